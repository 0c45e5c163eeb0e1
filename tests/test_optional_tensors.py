"""What the published `s3gen_v3.pt` lacks is computed, and nothing else may be missing."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from librosa.filters import mel
from safetensors.torch import load_file, save_file
from torch import Tensor

from chatterbox_nb.audio import Clip, read_clip
from chatterbox_nb.checkpoint import source
from chatterbox_nb.checkpoint.catalog import CATALOG, DEMO_FOLDER
from chatterbox_nb.checkpoint.source import Files
from chatterbox_nb.checkpoint.synthetic import TINY
from chatterbox_nb.engine import assembly, conditioning
from chatterbox_nb.engine import model as engine
from chatterbox_nb.engine.model import Model
from chatterbox_nb.errors import TensorError
from chatterbox_nb.precision import device
from chatterbox_nb.precision.layers import tensors_of

OPTIONAL = ("tokenizer._mel_filters", "tokenizer.window")


@pytest.fixture(scope="module")
def complete(tiny_folder: Path) -> dict[str, Tensor]:
    """A file that has both buffers: filters as librosa makes them, as the package does, and Hann's window."""
    filters = torch.from_numpy(mel(sr=16_000, n_fft=400, n_mels=TINY.s3gen.tokenizer_mels))
    return {**load_file(tiny_folder / "s3gen.safetensors"), OPTIONAL[0]: filters, OPTIONAL[1]: torch.hann_window(400)}


def write(tiny_folder: Path, folder: Path, s3gen: dict[str, Tensor], form: str) -> Files:
    """The tiny checkpoint with these tensors in its S3Gen's file."""
    shutil.copytree(tiny_folder, folder, ignore=shutil.ignore_patterns("s3gen.safetensors"))
    (torch.save if form == "pt" else save_file)(s3gen, folder / f"s3gen.{form}")
    return source.find(source=folder)[1]


def refusal(files: Files, optional: tuple[str, ...]) -> str:
    with pytest.raises(TensorError) as caught:
        engine.prepare(replace(TINY, optional=optional), files, "fp32", device.facts("cpu"))
    return str(caught.value)


def without(tensors: dict[str, Tensor], *names: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name not in names}


def test_without_both_buffers_a_clip_is_read_as_with_them(
    tiny: Model, tiny_folder: Path, tmp_path: Path, complete: dict[str, Tensor]
) -> None:
    lacking = {name: tensor for name, tensor in complete.items() if name not in OPTIONAL}
    mine, theirs = (
        assembly.read_encoders(TINY, files, tiny.tensors, tiny.plan)[0]
        for files in (
            write(tiny_folder, tmp_path / "complete", complete, "safetensors"),
            write(tiny_folder, tmp_path / "lacking", lacking, "pt"),
        )
    )
    for component, module in mine.modules().items():
        found = tensors_of(theirs.modules()[component])
        assert all(torch.equal(tensor, found[name]) for name, tensor in tensors_of(module).items())
    clip = read_clip(DEMO_FOLDER / "builtin_voice.wav")
    clip = Clip(clip.samples[: clip.sample_rate], clip.sample_rate)
    one, other = (conditioning.prepare(clip, encoders, TINY, "clip").tensors() for encoders in (mine, theirs))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize("third", ["tokenizer.encoder.conv1.bias", "flow.spk_embed_affine_layer.weight"])
def test_a_third_missing_tensor_is_refused_by_name(
    tiny_folder: Path, tmp_path: Path, complete: dict[str, Tensor], third: str
) -> None:
    lacking = {name: tensor for name, tensor in complete.items() if name not in (*OPTIONAL, third)}
    files = write(tiny_folder, tmp_path / "lacking", lacking, "pt")
    assert f"1 missing tensors: '{third}'" in refusal(files, TINY.optional)


@pytest.mark.parametrize("name", ["turbo", "nano"])
def test_of_a_distilled_model_nothing_may_be_missing(tiny_folder: Path, name: str) -> None:
    """The tiny checkpoint's file lacks the window, as English's does."""
    files = source.find(source=tiny_folder)[1]
    assert "1 missing tensors: 'tokenizer.window'" in refusal(files, CATALOG[name].optional)


def test_of_english_the_two_buffers_may_be_missing() -> None:
    assert CATALOG["english"].optional == OPTIONAL

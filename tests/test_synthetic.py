"""Random checkpoints: the real architecture, the same bytes from the same seed, behaviour that tests can rely on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from chatterbox_nb.checkpoint import catalog, reference, source, synthetic, synthetic_text
from chatterbox_nb.checkpoint.catalog import ENGLISH
from chatterbox_nb.checkpoint.inventory import inventory
from chatterbox_nb.checkpoint.spec import ModelSpec
from chatterbox_nb.checkpoint.synthetic import TINY
from chatterbox_nb.engine import decode, flow
from chatterbox_nb.engine import model as engine
from chatterbox_nb.engine.decode import Decoded
from chatterbox_nb.engine.model import Model
from chatterbox_nb.engine.noise import StageNoise
from chatterbox_nb.engine.pipeline import Speaker
from chatterbox_nb.engine.sampling import Sampling
from chatterbox_nb.precision import device

pytestmark = pytest.mark.xdist_group("synthetic")

TEXTS = [
    "The brown spring wants the orange street.",
    "hello, is it you?",
    "A longer sentence, with a comma, that wants to know whether the count still holds.",
]
SEEDS = [0, 1, 2]
OTHER = replace(
    TINY,
    name="other",
    t3=replace(TINY.t3, width=96, heads=4, ffn=160, layers=3, text_vocab=300, start_text=255),
    s3gen=replace(TINY.s3gen, encoder_width=64, estimator_width=48, vocoder_width=64, f0_width=48),
    voice_encoder_width=24,
)


def load(folder: Path) -> Model:
    spec, files = source.find(source=folder)
    return engine.load(spec, files, "fp32", device.facts("cpu"))


@pytest.fixture(scope="module")
def model_of(tiny: Model, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Model]:
    """Random weights for the tiny spec, for one of other sizes, and for the demo's own."""

    @cache
    def load_of(name: str) -> Model:
        if name == "tiny":
            return tiny
        spec = OTHER if name == "other" else catalog.spec("demo")
        return load(synthetic.write(spec, tmp_path_factory.mktemp(name)))

    return load_of


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


# Files


def test_the_tiny_checkpoint_is_under_10_mb(tiny_folder: Path) -> None:
    assert sum(path.stat().st_size for path in tiny_folder.iterdir()) < 10e6


def test_a_checkpoint_has_the_published_file_names_and_its_spec(tiny_folder: Path) -> None:
    published = {file.name for file in ENGLISH.files}
    assert {path.name for path in tiny_folder.iterdir()} == published | {"config.json"}
    assert catalog.read_spec(tiny_folder) == TINY


def test_the_same_seed_gives_the_same_bytes(tiny_folder: Path, tmp_path: Path) -> None:
    assert digests(synthetic.tiny(tmp_path)) == digests(tiny_folder)


def test_writing_does_not_touch_the_global_random_state(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    synthetic.tiny(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_another_seed_gives_other_weights_in_files_of_the_same_size(tiny_folder: Path, tmp_path: Path) -> None:
    other = synthetic.tiny(tmp_path, seed=1)
    here, there = digests(tiny_folder), digests(other)
    drawn = {"t3_cfg.safetensors", "s3gen.safetensors", "ve.safetensors", "conds.pt"}
    assert {name for name in here if here[name] != there[name]} == drawn
    for name in drawn:
        assert (tiny_folder / name).stat().st_size == (other / name).stat().st_size


def test_the_files_hold_what_the_inventory_lists_less_the_computed_window(tiny_folder: Path) -> None:
    tensors = inventory(TINY, reference.build(TINY))
    for role in ("t3", "s3gen", "voice_encoder"):
        name = TINY.file(role).name
        listed = {tensor.name: tensor.shape for tensor in tensors if tensor.file == name}
        listed.pop("tokenizer.window", None)
        assert {place: tuple(tensor.shape) for place, tensor in load_file(tiny_folder / name).items()} == listed


def test_every_number_is_finite_and_no_tensor_is_all_one_number(tiny_folder: Path) -> None:
    for role in ("t3", "s3gen", "voice_encoder"):
        for name, tensor in load_file(tiny_folder / TINY.file(role).name).items():
            assert bool(torch.isfinite(tensor).all()), name
            assert tensor.numel() == 1 or tensor.dtype == torch.int64 or float(tensor.std()) > 0, name


def test_writing_into_a_folder_again_leaves_nothing_of_what_was_there(tmp_path: Path) -> None:
    synthetic.write(OTHER, tmp_path, seed=3)
    synthetic.tiny(tmp_path)
    assert source.find(source=tmp_path)[0] == TINY
    assert digests(tmp_path) == digests(synthetic.tiny(tmp_path / "fresh"))


def test_the_tokenizer_says_every_letter_and_knows_the_specs_own_tokens(tiny: Model) -> None:
    assert tiny.tokenizer.unspeakable("The quick brown fox jumps over the lazy dog, 0123456789!") == ""
    assert tiny.tokenizer.unspeakable("a☃b") == "☃"
    inner = tiny.tokenizer._tokenizer
    assert (inner.token_to_id("[START]"), inner.token_to_id("[STOP]")) == (TINY.t3.start_text, TINY.t3.stop_text)
    assert inner.get_vocab_size() <= TINY.t3.text_vocab
    assert len(tiny.tokenizer.encode("there")) < len("there"), "frequent pairs are one token"


def test_a_small_vocabulary_leaves_out_pairs_before_letters() -> None:
    spec = replace(TINY, t3=replace(TINY.t3, text_vocab=80, start_text=5))
    model = synthetic_text._english(spec)["tokenizer"]["model"]
    assert set("abcxyzABCXYZ019.,") <= set(model["vocab"])
    assert max(model["vocab"].values()) < 80
    assert all(merge.replace(" ", "") in model["vocab"] for merge in model["merges"])
    assert json.dumps(model)


def test_the_catalogs_own_model_is_written_without_a_spec_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As published; a spec that was there before would say otherwise. In the tiny model's place: English has 3.2 GB."""
    synthetic.tiny(tmp_path)
    monkeypatch.setattr(catalog, "CATALOG", {**catalog.CATALOG, "tiny": TINY})
    synthetic.tiny(tmp_path)
    assert not (tmp_path / "config.json").exists()
    assert source.find("tiny", tmp_path)[0] == TINY


# The builtin voice


@pytest.mark.parametrize("name", ["tiny", "other", "demo"])
def test_a_builtin_voice_of_the_specs_sizes_is_there(model_of: Callable[[str], Model], name: str) -> None:
    model = model_of(name)
    voice, dims = model.builtin_voice(), model.spec.t3
    assert voice.speaker.shape == (1, dims.speaker_width)
    assert voice.t3_prompt.shape == (1, dims.prompt_tokens)
    assert voice.prompt_mel.shape == (1, 2 * voice.prompt_tokens.shape[1], 80)
    assert voice.speaker_vector.shape == (1, 192)
    assert int(voice.prompt_tokens.max()) < model.spec.s3gen.codes
    assert float(voice.speaker.norm()) == pytest.approx(1.0)


# Takes


@dataclass(frozen=True)
class Spoken:
    """What a text became: text tokens, speech tokens, and f0 of every frame in Hz."""

    text_tokens: int
    decoded: Decoded
    f0: Tensor

    @property
    def ratio(self) -> float:
        return len(self.decoded.tokens) / self.text_tokens


@pytest.fixture(scope="module")
def spoken(model_of: Callable[[str], Model]) -> Callable[[str, str, int], Spoken]:
    @cache
    def speak(name: str, text: str, seed: int) -> Spoken:
        model, noise = model_of(name), StageNoise(seed)
        voice, ids, codes = model.builtin_voice(), model.text_ids(text), model.spec.s3gen.codes
        with torch.inference_mode():
            prefix = decode.prefill(model.t3, voice.speaker, voice.t3_prompt, 0.5)
            decoded = decode.decode(model.t3, prefix, ids, Sampling(), noise, 10_000, 400)
            tokens = torch.tensor([decode.audible(decoded.tokens, codes)])
            mel = flow.tokens_to_mel(model.flow, tokens, voice, noise, model.spec.s3gen.cfm_steps)
            f0 = model.vocoder.f0_predictor(mel)[0]
        return Spoken(len(ids), decoded, f0)

    return speak


CASES = [("tiny", text, seed) for text in TEXTS for seed in SEEDS]
CASES += [(name, text, 0) for name in ("other", "demo") for text in TEXTS]


@pytest.mark.parametrize(("name", "text", "seed"), CASES)
def test_a_take_ends_by_itself_after_about_three_tokens_a_text_token(
    spoken: Callable[[str, str, int], Spoken], name: str, text: str, seed: int
) -> None:
    take = spoken(name, text, seed)
    assert take.decoded.finish == "stop"
    assert 2.5 <= take.ratio <= 4.0


@pytest.mark.parametrize(("name", "text", "seed"), CASES)
def test_only_sounds_and_the_stop_are_drawn(
    spoken: Callable[[str, str, int], Spoken], name: str, text: str, seed: int
) -> None:
    tokens = spoken(name, text, seed).decoded.tokens
    assert max(tokens[:-1]) < TINY.s3gen.codes
    assert tokens[-1] == TINY.t3.stop_speech


@pytest.mark.parametrize(("name", "text", "seed"), CASES)
def test_about_half_of_the_frames_are_voiced(
    spoken: Callable[[str, str, int], Spoken], name: str, text: str, seed: int
) -> None:
    f0 = spoken(name, text, seed).f0
    assert 0.3 <= float((f0 > 10).float().mean()) <= 0.8


@pytest.mark.parametrize(("name", "text", "seed"), CASES)
def test_voiced_frames_are_mostly_pitched_like_a_voice(
    spoken: Callable[[str, str, int], Spoken], name: str, text: str, seed: int
) -> None:
    f0 = spoken(name, text, seed).f0
    voiced = f0[f0 > 10]
    assert float(((voiced > 60) & (voiced < 400)).float().mean()) >= 0.4


def test_speech_varies(spoken: Callable[[str, str, int], Spoken]) -> None:
    """A model that repeats itself would hide mistakes in sampling."""
    tokens = spoken("tiny", TEXTS[0], 0).decoded.tokens
    assert len(set(tokens)) > 0.5 * len(tokens)
    assert tokens != spoken("tiny", TEXTS[0], 1).decoded.tokens


@pytest.mark.parametrize("options", [Sampling(cfg_weight=0.0), Sampling(temperature=1.2), Sampling(temperature=0.0)])
def test_a_take_ends_by_itself_with_other_options_too(tiny: Model, options: Sampling) -> None:
    ids, voice = tiny.text_ids(TEXTS[0]), tiny.builtin_voice()
    with torch.inference_mode():
        prefix = decode.prefill(tiny.t3, voice.speaker, voice.t3_prompt, 0.5)
        decoded = decode.decode(tiny.t3, prefix, ids, options, StageNoise(0), 10_000, 400)
    assert decoded.finish == "stop"
    assert 2.0 <= len(decoded.tokens) / len(ids) <= 4.5


@pytest.mark.parametrize("name", ["tiny", "other", "demo"])
def test_a_take_is_neither_silent_nor_clipped(model_of: Callable[[str], Model], name: str) -> None:
    model = model_of(name)
    with torch.inference_mode():
        (chunk,) = Speaker(model, model.builtin_voice(), Sampling(), 0.5, StageNoise(4), [TEXTS[1]])
    assert chunk.finish == "stop"
    assert len(chunk.samples) == 960 * len(chunk.tokens)
    assert 0.01 < float(np.sqrt(np.mean(chunk.samples**2))) < 0.2
    assert float(np.abs(chunk.samples).max()) < 0.98


def test_a_take_ends_by_itself_when_quantized(tiny: Model) -> None:
    model = engine.load(tiny.spec, tiny.files, "int8", device.facts("cpu"))
    with torch.inference_mode():
        (chunk,) = Speaker(model, model.builtin_voice(), Sampling(), 0.5, StageNoise(5), [TEXTS[0]])
    assert chunk.finish == "stop"


def test_full_writes_the_published_spec(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The 3.2 GB themselves are for `make oracle-full`."""
    written: list[tuple[ModelSpec, Path, int]] = []
    monkeypatch.setattr(synthetic, "write", lambda *asked: written.append(asked))
    synthetic.full(tmp_path, seed=2)
    assert written == [(ENGLISH, tmp_path, 2)]

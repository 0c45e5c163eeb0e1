"""int8 for what is no nn.Linear: LSTM and GRU, and GPT-2's Conv1D."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from chatterbox_nb.audio import Clip, read_clip
from chatterbox_nb.checkpoint import loader, source
from chatterbox_nb.checkpoint.catalog import DEMO_FOLDER
from chatterbox_nb.checkpoint.loader import plain_fills
from chatterbox_nb.checkpoint.tensorfile import TensorFile
from chatterbox_nb.engine import conditioning
from chatterbox_nb.engine import model as engine
from chatterbox_nb.engine.model import Model
from chatterbox_nb.precision import device, kernels
from chatterbox_nb.precision.kernels import dequantize
from chatterbox_nb.precision.layers import Int8Linear, Int8Recurrent, convert, is_conv1d, quantize

HERE = device.facts("cpu")
SAME_VOICE = 0.999  # the least cosine between a speaker's embedding and the one of int8


class Holder(nn.Module):
    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part


def through_int8(part: nn.Module, folder: Path, kernel: str = "plain") -> nn.Module:
    """A module saved, converted on the meta device and loaded again."""
    path = folder / "part.safetensors"
    save_file({f"part.{name}": tensor.contiguous() for name, tensor in part.state_dict().items()}, path)
    empty = Holder(part).to("meta")
    convert(empty, {"part": "int8"}, lambda name: kernels.get(kernel))
    with TensorFile(path) as file:
        loader.load(empty, file, plain_fills(empty, ""), torch.device("cpu"))
    return empty.part


@torch.inference_mode()
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("bias", [True, False])
def test_a_recurrent_network_gives_what_the_dequantized_one_gives(
    kind: type[nn.RNNBase], batch_first: bool, bias: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    sizes = {"num_layers": 3, "batch_first": batch_first, "bias": bias}
    plain = kind(40, 32, **sizes).eval()
    rounded = kind(40, 32, **sizes).eval()
    for name, tensor in plain.state_dict().items():
        value = dequantize(*quantize(tensor), torch.float32) if name.startswith("weight") else tensor
        rounded.state_dict()[name].copy_(value)
    x = torch.randn(2, 50, 40)
    wanted, states = rounded(x)
    int8 = through_int8(plain, tmp_path)
    assert isinstance(int8, Int8Recurrent)
    found, found_states = int8(x)
    assert torch.allclose(found, wanted, atol=1e-6)
    pairs = zip(states, found_states, strict=True) if kind is nn.LSTM else [(states, found_states)]
    for one, other in pairs:
        assert one.shape == other.shape
        assert torch.allclose(one, other, atol=1e-6)


def test_what_runs_in_both_directions_is_left_as_it_is() -> None:
    module = nn.ModuleDict({"both": nn.LSTM(4, 4, bidirectional=True), "one": nn.LSTM(4, 4)})
    assert convert(module, {"both": "int8", "one": "int8"}, lambda name: kernels.get("plain")) == 1
    assert isinstance(module["both"], nn.LSTM)


def clips(demo: Callable[..., Model]) -> list[Clip]:
    """The demo's own clip, and pieces of it that differ."""
    clip = read_clip(DEMO_FOLDER / "builtin_voice.wav")
    half = len(clip.samples) // 2
    return [
        clip,
        Clip(clip.samples[:half], clip.sample_rate),
        Clip(clip.samples[half:], clip.sample_rate),
        Clip(clip.samples[::-1].copy(), clip.sample_rate),
    ]


@torch.inference_mode()
@pytest.mark.parametrize("model", ["demo", "tiny"])
def test_a_speaker_is_the_same_in_int8(model: str, demo: Callable[..., Model], tiny_folder: Path) -> None:
    spec, files = source.find(source=None if model == "demo" else tiny_folder)
    fp32, int8 = (engine.load(spec, files, precision, HERE).read_encoders() for precision in ("fp32", "int8"))
    assert isinstance(int8.voice_encoder.lstm, Int8Recurrent)
    assert isinstance(fp32.voice_encoder.lstm, nn.LSTM)
    for clip in clips(demo):
        one, other = (conditioning.prepare(clip, encoders, spec, "clip").speaker for encoders in (fp32, int8))
        assert float(torch.cosine_similarity(one, other)) >= SAME_VOICE


def test_the_row_can_be_switched_off(tiny_folder: Path) -> None:
    spec, files = source.find(source=tiny_folder)
    encoders = engine.load(spec, files, "int8", HERE, off=("voice_encoder.lstm",)).read_encoders()
    assert isinstance(encoders.voice_encoder.lstm, nn.LSTM)


def test_kept_encoders_are_there_and_are_what_was_planned(tiny_folder: Path) -> None:
    spec, files = source.find(source=tiny_folder)
    kept = engine.load(spec, files, "int8", HERE, keep_encoders=True)
    assert kept.read_encoders() is kept.read_encoders()
    assert kept.report.bytes == kept.plan.expected_bytes
    assert kept.report.bytes_by_component["voice_encoder"] > 0
    assert kept.parked_bytes == 0
    parked = engine.load(spec, files, "int8", HERE)
    assert parked.read_encoders() is not parked.read_encoders()
    assert parked.parked_bytes == kept.report.bytes - parked.report.bytes
    assert 0 < kept.report.ratios["of our own fp32"] < 1


@torch.inference_mode()
@pytest.mark.parametrize("kernel", ["plain", "int8pack"])
def test_a_conv1d_gives_what_the_dequantized_one_gives(kernel: str, tmp_path: Path) -> None:
    """GPT-2's layer: `[in, out]`, and skipped by everything that looks for nn.Linear."""
    from transformers.pytorch_utils import Conv1D

    if kernel == "int8pack" and HERE.capability == "DEFAULT":
        pytest.skip("no AVX2")
    torch.manual_seed(0)
    plain = Conv1D(48, 32).eval()
    nn.init.normal_(plain.bias)
    assert is_conv1d(plain)
    quantized, scale = quantize(plain.weight, 1)
    weight = quantized * scale
    x = torch.randn(3, 5, 32)
    bias = plain.bias.clone()
    int8 = through_int8(plain, tmp_path, kernel)
    assert isinstance(int8, Int8Linear)
    assert torch.allclose(int8(x), x @ weight + bias, atol=1e-5)
    assert torch.allclose(int8(x[:1, :1]), x[:1, :1] @ weight + bias, atol=1e-5 if kernel == "plain" else 0.05)


def test_all_linear_layers_of_a_gpt2_are_converted(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2Model

    gpt2: nn.Module = GPT2Model(GPT2Config(n_layer=2, n_embd=32, n_head=2, vocab_size=50, n_positions=20)).eval()
    names = {name: "int8" for name, layer in gpt2.named_modules() if is_conv1d(layer)}
    assert len(names) == 8
    assert convert(gpt2, names, lambda name: kernels.get("plain")) == 8
    assert not any(is_conv1d(layer) for layer in gpt2.modules())


def test_the_scales_of_a_conv1d_belong_to_its_outputs() -> None:
    from transformers.pytorch_utils import Conv1D

    from chatterbox_nb.checkpoint.inventory import _kind, _rows

    layer = Conv1D(48, 32)
    weight: Tensor = layer.weight
    assert (_kind("tfmr.h.0.attn.c_attn.weight", "tfmr.h.0.attn.c_attn", layer, weight), _rows(layer, weight)) == (
        "linear",
        48,
    )

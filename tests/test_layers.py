"""int8 with one scale a row: how numbers are rounded, which layers are converted, and that nothing is lost."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
from conftest import KERNELS
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from chatterbox_nb.checkpoint import loader
from chatterbox_nb.checkpoint.loader import plain_fills
from chatterbox_nb.checkpoint.reference import import_package
from chatterbox_nb.checkpoint.tensorfile import TensorFile
from chatterbox_nb.errors import PrecisionError, TensorError
from chatterbox_nb.precision import kernels, layers
from chatterbox_nb.precision.kernels import dequantize
from chatterbox_nb.precision.layers import Int8Embedding, Int8Linear, Int8Weight, convert, is_int8, quantize, tensors_of

# Below this a scale would be a subnormal float32, which has fewer digits than the error bound needs.
SMALLEST_LARGEST = 127 * float(np.finfo(np.float32).tiny)


def restored(quantized: Tensor, scale: Tensor, axis: int = 0) -> Tensor:
    """What the int8 numbers stand for, in float64."""
    shape = [1] * quantized.ndim
    shape[axis] = -1
    return quantized.double() * scale.double().view(shape)


# Rounding


def weights(max_dims: int) -> Any:
    """Any finite float32 array: subnormal, huge and zero rows included."""
    return arrays.arrays(
        np.float32,
        arrays.array_shapes(min_dims=2, max_dims=max_dims, max_side=7),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
    )


@settings(deadline=None, max_examples=200)
@given(weights(4), st.integers(0, 1))
def test_no_number_moves_by_more_than_half_a_scale(array: np.ndarray, axis: int) -> None:
    weight = torch.from_numpy(array)
    quantized, scale = quantize(weight, axis)
    shape = [1] * weight.ndim
    shape[axis] = -1
    error = (restored(quantized, scale, axis) - weight.double()).abs() / scale.double().view(shape)
    # w / scale is at most 127 and is rounded to float32 before it is rounded to an integer.
    assert float(error.max()) <= 0.5 + 127 * 2**-24


@settings(deadline=None, max_examples=100)
@given(weights(3), st.integers(0, 1))
def test_a_scale_is_the_rows_largest_over_127(array: np.ndarray, axis: int) -> None:
    weight = torch.from_numpy(array)
    quantized, scale = quantize(weight, axis)
    largest = weight.abs().transpose(0, axis).flatten(1).amax(1)
    expected = torch.where(largest / 127 >= torch.finfo(torch.float32).tiny, largest / 127, 1.0)
    assert torch.equal(scale, expected)
    assert quantized.shape == weight.shape
    assert quantized.is_contiguous()
    assert (quantized.dtype, scale.dtype) == (torch.int8, torch.float32)


@settings(deadline=None, max_examples=100)
@given(weights(3))
def test_the_largest_of_each_row_is_127_and_nothing_is_128(array: np.ndarray) -> None:
    weight = torch.from_numpy(array)
    quantized, _ = quantize(weight)
    assert int(quantized.min()) >= -127
    reached = quantized.abs().flatten(1).amax(1)
    for row, largest in zip(reached, weight.abs().flatten(1).amax(1), strict=True):
        assert int(row) == (127 if largest / 127 >= np.finfo(np.float32).tiny else 0)


def test_a_row_of_zeros_stays_zero_with_scale_1() -> None:
    weight = torch.tensor([[0.0, -0.0, 0.0], [1.0, -2.0, 0.5]])
    quantized, scale = quantize(weight)
    assert quantized[0].tolist() == [0, 0, 0]
    assert scale[0] == 1.0
    assert scale[1] == torch.tensor(2.0) / 127


def test_a_row_too_small_for_a_normal_scale_becomes_zeros() -> None:
    """Its scale would underflow, and `w / 0` would turn the smallest numbers into the largest."""
    quantized, scale = quantize(torch.tensor([[1e-45, -1e-44, 0.0], [SMALLEST_LARGEST * 0.99, 0.0, 0.0]]))
    assert quantized.tolist() == [[0, 0, 0], [0, 0, 0]]
    assert scale.tolist() == [1.0, 1.0]


def test_half_precision_weights_are_quantized_as_the_float32_they_stand_for() -> None:
    weight = torch.randn(6, 40).half()
    for ours, theirs in zip(quantize(weight), quantize(weight.float()), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("shape", [(5, 400_000), (3, 1 << 21), (2_100_000, 1), (70, 30_000)])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_tensor_larger_than_a_block_is_quantized_as_in_one_go(shape: tuple[int, int], axis: int) -> None:
    assert shape[0] * shape[1] > layers._BLOCK
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    if axis == 1:
        weight = weight.t().contiguous()
    quantized, scale = quantize(weight, axis)
    rows = weight.transpose(0, axis)
    once_scale = rows.abs().amax(1) / 127
    once = (rows / once_scale[:, None]).round().to(torch.int8).transpose(0, axis)
    assert torch.equal(scale, once_scale)
    assert torch.equal(quantized, once)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_weight_that_is_no_number_is_an_error_that_tells_where(value: float, axis: int) -> None:
    """Rounded, NaN would be 0 and infinity would take the rest of its row to 0: silently another model."""
    weight = torch.randn(4, 6, 3)
    weight[3, 5, 1] = value
    with pytest.raises(TensorError, match=rf"\[4, 6, 3\] holds NaN or infinite.*index {(3, 5)[axis]} of axis {axis}"):
        quantize(weight, axis)


def test_a_bad_number_in_a_later_block_is_found_too() -> None:
    weight = torch.zeros(3, layers._BLOCK)
    weight[2, -1] = float("nan")
    with pytest.raises(TensorError, match="index 2 of axis 0"):
        quantize(weight)


# Converting


def package_layers() -> dict[str, Callable[[], nn.Module]]:
    """The layers that a plan stores in int8, the package's own subclasses among them."""
    import_package()
    from chatterbox.models.s3gen.decoder import CausalConv1d
    from diffusers.models.lora import LoRACompatibleLinear

    return {
        "Linear": lambda: nn.Linear(24, 10),
        "Linear without bias": lambda: nn.Linear(24, 10, bias=False),
        "LoRACompatibleLinear": lambda: LoRACompatibleLinear(24, 10),
        "Embedding": lambda: nn.Embedding(9, 24),
        "Conv1d": lambda: nn.Conv1d(6, 10, 3, padding=1, dilation=2),
        "Conv1d in groups": lambda: nn.Conv1d(6, 12, 3, groups=3),
        "Conv1d without bias": lambda: nn.Conv1d(6, 10, 3, bias=False),
        "CausalConv1d": lambda: CausalConv1d(6, 10, 3),
        "ConvTranspose1d": lambda: nn.ConvTranspose1d(6, 10, 5, stride=2),
        "Conv2d": lambda: nn.Conv2d(2, 4, 3),
    }


NAMES = [
    "Linear", "Linear without bias", "LoRACompatibleLinear", "Embedding", "Conv1d", "Conv1d in groups",
    "Conv1d without bias", "CausalConv1d", "ConvTranspose1d", "Conv2d",
]  # fmt: skip


def made(name: str) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # diffusers calls its own layer deprecated
        torch.manual_seed(0)
        return package_layers()[name]().eval().requires_grad_(False)


def input_for(layer: nn.Module) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    if isinstance(layer, nn.Embedding):
        return torch.randint(0, layer.num_embeddings, (2, 11), generator=generator)
    if isinstance(layer, nn.Linear):
        return torch.randn(2, 5, layer.in_features, generator=generator)
    if isinstance(layer, nn.Conv2d):
        return torch.randn(1, layer.in_channels, 8, 9, generator=generator)
    return torch.randn(2, layer.in_channels, 20, generator=generator)  # type: ignore[call-overload]


def converted(module: nn.Module, folder: Path, kernel: str = "plain") -> nn.Module:
    """The module as a load leaves it: built without weights, converted, filled from a file of its float weights."""
    save_file(module.state_dict(), folder / "float.safetensors")
    new = copy.deepcopy(module).to("meta")
    fills = plain_fills(new, "")
    shared = kernels.get(kernel)
    convert(new, {name: "int8" for name, _ in new.named_modules()}, lambda name: shared)
    with TensorFile(folder / "float.safetensors") as file:
        loader.load(new, file, fills, torch.device("cpu"))
    return new


@pytest.mark.parametrize("name", NAMES)
def test_a_converted_layer_gives_what_the_dequantized_one_gives(name: str, tmp_path: Path) -> None:
    layer: Any = made(name)
    new = converted(nn.Sequential(layer), tmp_path)[0]  # type: ignore[index]
    assert is_int8(new)
    axis = 1 if isinstance(layer, nn.ConvTranspose1d) else 0
    layer.weight.copy_(dequantize(*quantize(layer.weight, axis), torch.float32, axis))
    x = input_for(layer)
    with torch.inference_mode():
        assert torch.equal(new(x), layer(x))


@pytest.mark.parametrize("name", [name for name in NAMES if "without" not in name and name != "Embedding"])
def test_biases_are_kept_exactly(name: str, tmp_path: Path) -> None:
    layer: Any = made(name)
    new = converted(nn.Sequential(layer), tmp_path)[0]  # type: ignore[index]
    assert torch.equal(new.bias, layer.bias)
    assert new.bias.dtype == torch.float32


@pytest.mark.parametrize("name", NAMES)
def test_a_converted_layer_holds_no_float_weight(name: str, tmp_path: Path) -> None:
    layer = made(name)
    weight: Any = layer.weight
    new = converted(nn.Sequential(layer), tmp_path)
    held = {key: tensor for key, tensor in tensors_of(new).items() if "bias" not in key}
    assert {key: tensor.dtype for key, tensor in held.items()} == {
        "0.weight_int8": torch.int8,
        "0.weight_scale": torch.float32,
    }
    rows = weight.shape[1 if name == "ConvTranspose1d" else 0]
    bias = getattr(layer, "bias", None)
    assert layers.bytes_of(new) == weight.numel() + 4 * rows + (0 if bias is None else 4 * bias.numel())


def test_a_convolution_stays_its_own_class_so_its_forward_runs() -> None:
    layer = made("CausalConv1d")
    assert convert(module := nn.Sequential(layer), {"0": "int8"}, lambda name: kernels.get("plain")) == 1
    assert isinstance(module[0], type(layer))
    assert isinstance(module[0], Int8Weight)
    assert module[0].causal_padding == (2, 0)


def test_only_what_is_asked_for_is_converted() -> None:
    module = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4), "c": nn.LayerNorm(4)})
    assert convert(module, {"a": "int8", "b": "float32", "c": "int8"}, lambda name: kernels.get("plain")) == 1
    assert [is_int8(module[name]) for name in "abc"] == [True, False, False]


def test_nested_layers_are_found_by_their_dotted_names() -> None:
    module = nn.ModuleDict({"block": nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Conv1d(4, 4, 1)))})
    asked: list[str] = []

    def kernel_of(name: str) -> kernels.Kernel:
        asked.append(name)
        return kernels.get("plain")

    assert convert(module, {"block.0": "int8", "block.1.0": "int8"}, kernel_of) == 2
    assert asked == ["block.0"]


def test_converting_nothing_is_an_error() -> None:
    """A quantizer that finds no layer it knows and goes on is how int8 models turn out to be fp32."""
    with pytest.raises(PrecisionError, match="int8 was asked for, and nothing in Sequential could be converted"):
        convert(nn.Sequential(nn.Linear(4, 4)), {"1": "int8"}, lambda name: kernels.get("plain"))


@pytest.mark.parametrize("entry", [9, -1])
def test_an_embedding_beyond_its_table_is_an_error(entry: int, tmp_path: Path) -> None:
    new = converted(nn.Sequential(made("Embedding")), tmp_path)
    with pytest.raises(IndexError):
        new(torch.tensor([entry]))


def test_a_bad_weight_stops_a_load(tmp_path: Path) -> None:
    layer: Any = made("Linear")
    layer.weight[7, 3] = float("nan")
    with pytest.raises(TensorError, match="index 7 of axis 0"):
        converted(nn.Sequential(layer), tmp_path)


# State dicts


def filled(kernel: str, in_features: int = 48, out_features: int = 20, seed: int = 0) -> Int8Linear:
    generator = torch.Generator().manual_seed(seed)
    layer = Int8Linear(in_features, out_features, True, kernels.get(kernel))
    quantized, scale = quantize(torch.randn(out_features, in_features, generator=generator))
    assert layer.weight_int8 is not None
    assert layer.bias is not None
    layer.weight_int8.copy_(quantized)
    layer.weight_scale.copy_(scale)
    layer.bias.data.copy_(torch.randn(out_features, generator=generator))
    return layer


@pytest.mark.parametrize("read_by", ["fresh", "finished"])
@pytest.mark.parametrize("written", ["before finish", "after finish", "after a forward"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_state_dict_comes_back_bit_for_bit(kernel: str, written: str, read_by: str, tmp_path: Path) -> None:
    layer, x = filled(kernel), torch.randn(3, 48)
    wanted = [tensor.clone() for tensor in layer.plain()]
    if written == "after finish":
        layer.finish()
    if written == "after a forward":
        layer(x)
    save_file(layer.state_dict(), tmp_path / "layer.safetensors")
    saved = load_file(tmp_path / "layer.safetensors")
    assert {name: tensor.dtype for name, tensor in saved.items()} == {
        "weight_int8": torch.int8,
        "weight_scale": torch.float32,
        "bias": torch.float32,
    }
    other = filled(kernel, seed=1)
    if read_by == "finished":
        other.finish()
    other.load_state_dict(saved)
    for read, expected in zip(other.plain(), wanted, strict=True):
        assert torch.equal(read, expected)
    assert torch.equal(other(x), layer(x))
    assert {name: tensor.tolist() for name, tensor in other.state_dict().items()} == {
        name: tensor.tolist() for name, tensor in saved.items()
    }


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_state_dict_without_the_weights_leaves_them_as_they_are(kernel: str) -> None:
    layer = filled(kernel)
    layer.finish()
    wanted = layer.plain()[0].clone()
    layer.load_state_dict({"bias": torch.zeros(20)}, strict=False)
    assert torch.equal(layer.plain()[0], wanted)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_whole_module_comes_back_bit_for_bit(kernel: str, tmp_path: Path) -> None:
    modules = {name.replace(" ", "_"): made(name) for name in NAMES}
    first = converted(nn.ModuleDict(modules), tmp_path, kernel)
    save_file(first.state_dict(), tmp_path / "int8.safetensors")
    for module in modules.values():
        for parameter in module.parameters():
            parameter.zero_()
    second = converted(nn.ModuleDict(modules), tmp_path, kernel)
    second.load_state_dict(load_file(tmp_path / "int8.safetensors"))
    for name, layer in modules.items():
        x = input_for(layer)
        with torch.inference_mode():
            assert torch.equal(second[name](x), first[name](x))  # type: ignore[index]


# Walking


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_walk_counts_every_tensor_packed_or_not(kernel: str) -> None:
    module = nn.ModuleDict({"linear": filled(kernel), "embedding": Int8Embedding(7, 5), "norm": nn.LayerNorm(3)})
    module.register_buffer("table", torch.zeros(11), persistent=False)
    expected = (20 * 48 + 4 * 20 + 4 * 20) + (7 * 5 + 4 * 7) + 2 * 4 * 3 + 4 * 11
    assert layers.bytes_of(module) == expected
    module["linear"].finish()
    assert layers.bytes_of(module) == expected
    assert set(tensors_of(module)) == {
        "linear.weight_int8", "linear.weight_scale", "linear.bias",
        "embedding.weight_int8", "embedding.weight_scale", "norm.weight", "norm.bias", "table",
    }  # fmt: skip


def test_shared_tensors_are_counted_once() -> None:
    layer = nn.Linear(4, 4, bias=False)
    assert layers.bytes_of(nn.ModuleDict({"a": layer, "b": layer})) == 4 * 4 * 4

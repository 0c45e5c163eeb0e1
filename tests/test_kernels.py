"""Each kernel against float64, within a bound that is derived, not measured; and rows that never touch each other.

The bounds. For a row x of M, a row w = scale * q of N, K terms, and S = sum |x||w| of that pair, in exact arithmetic.
A number rounded to p significant bits moves by at most u = 2^-p of itself; float32 has u = 2^-24, bfloat16 2^-8,
float16 2^-11. A sum of K products in float32 is off by at most (K + 1) 2^-24 S, in whatever order it is taken.

* plain, float32: each w is one float32 product, so S (K + 2) 2^-24, and the bias one more rounding of the result.
* plain, bfloat16 and float16: w is rounded to that format, u S; the sum is taken in float32; result and bias are
  rounded to the format, u (|y| + |b|) each time.
* int8pack: x is rounded to bfloat16, u S; the float32 sum; its result is rounded to bfloat16, u |y|; times scale and
  plus bias in float32.
* dynamic: with step = max |x| / 127 of the row, each x moves by at most half a step (and 127 * 2^-23 of one, for the
  roundings of step and x / step), so the sum by at most half a step times the row sum of |w|. The int32 sum is exact;
  turning it into float32 and the products with scale and step are four roundings.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch
from conftest import HERE, KERNELS
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from chatterbox_nb.checkpoint import source
from chatterbox_nb.engine import model as engine
from chatterbox_nb.engine.noise import StageNoise
from chatterbox_nb.engine.pipeline import Speaker
from chatterbox_nb.engine.sampling import Sampling
from chatterbox_nb.precision import kernels
from chatterbox_nb.precision.kernels import Kernel, dequantize
from chatterbox_nb.precision.kernels.packed import Int8PackArm, Int8PackMps
from chatterbox_nb.precision.kernels.x86 import Int8Pack
from chatterbox_nb.precision.layers import Int8Linear, quantize
from chatterbox_nb.precision.plan import DeviceFacts

ROUNDING = {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
FLOAT32 = ROUNDING[torch.float32]
TINY = 1e-37  # what may underflow

# (K, N) of T3's matrices: qkv, gate and up, down, head.
REAL = [(1024, 3072), (1024, 8192), (4096, 1024), (1024, 8194)]
SMALL = [(1, 1), (1, 9), (16, 1), (7, 5), (33, 17), (48, 6570), (192, 6564), (31, 3), (100, 64), (65, 33)]


def drawn(K: int, N: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """int8 weights `[N, K]`, scales and a bias."""
    generator = torch.Generator().manual_seed(seed)
    quantized, scale = quantize(torch.randn(N, K, generator=generator) / K**0.5)
    return quantized, scale, torch.randn(N, generator=generator)


def rows_of(M: int, K: int, seed: int = 1) -> Tensor:
    return torch.randn(M, K, generator=torch.Generator().manual_seed(seed))


def layer_of(kernel: str, quantized: Tensor, scale: Tensor, bias: Tensor | None = None) -> Int8Linear:
    """A layer as a load leaves it."""
    layer = Int8Linear(quantized.shape[1], quantized.shape[0], bias is not None, kernels.get(kernel))
    assert layer.weight_int8 is not None
    layer.weight_int8.copy_(quantized)
    layer.weight_scale.copy_(scale)
    if bias is not None:
        assert layer.bias is not None
        layer.bias.data.copy_(bias)
    layer.finish()
    return layer


def exact(x: Tensor, quantized: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    y = x.double() @ (quantized.double() * scale.double()[:, None]).T
    return y if bias is None else y + bias.double()


def bound(kernel: str, x: Tensor, quantized: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """How far `[M, N]` may be from `exact`; the derivation is at the top of this file."""
    K = x.shape[1]
    weight = quantized.double().abs() * scale.double()[:, None]
    S = x.double().abs() @ weight.T
    y = exact(x, quantized, scale, bias).abs()
    b = torch.zeros(len(scale), dtype=torch.float64) if bias is None else bias.double().abs()
    if kernel == "dynamic":
        step = x.double().abs().amax(1, keepdim=True) / 127
        error = step * (0.5 + 127 * 2**-23) * weight.sum(1) + 4 * FLOAT32 * (S + step * weight.sum(1))
    elif kernel == "int8pack":
        u = ROUNDING[torch.bfloat16]
        error = u * S + (K + 1) * FLOAT32 * (1 + u) * S
        error = error + u * (y + b + error)
    else:
        u = ROUNDING[x.dtype]
        error = ((K + 2) * FLOAT32 + (u if x.dtype != torch.float32 else 0)) * S
    final = ROUNDING[x.dtype] * (y + 2 * b + error)
    return error + final + 2 * FLOAT32 * (y + b + error) + TINY


def assert_within_bound(kernel: str, x: Tensor, quantized: Tensor, scale: Tensor, bias: Tensor | None) -> None:
    """Through the layer, so that rows and shapes a kernel does not take go where a model sends them."""
    layer = layer_of(kernel, quantized, scale, bias)
    used = layer.kernel.name if len(x) <= layer.kernel.max_rows else "plain"
    y = layer(x)
    assert y.dtype == x.dtype
    error = (y.double() - exact(x, quantized, scale, bias)).abs()
    assert bool((error <= bound(used, x, quantized, scale, bias)).all())


# Numbers


@pytest.mark.parametrize("M", [1, 2, 3, 6, 7, 9])
@pytest.mark.parametrize(("K", "N"), [*SMALL, *REAL])
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_layer_is_within_the_bound(kernel: str, K: int, N: int, M: int) -> None:
    assert_within_bound(kernel, rows_of(M, K), *drawn(K, N))


@settings(deadline=None, max_examples=150)
@given(
    M=st.integers(1, 9),
    K=st.integers(1, 100),
    N=st.integers(1, 40),
    seed=st.integers(0, 2**31),
    size=st.sampled_from([1e-20, 1.0, 1e20]),
)
@pytest.mark.parametrize("kernel", KERNELS)
def test_any_shape_and_size_is_within_the_bound(kernel: str, M: int, K: int, N: int, seed: int, size: float) -> None:
    quantized, scale, _ = drawn(K, N, seed)
    assert_within_bound(kernel, rows_of(M, K, seed + 1) * size, quantized, scale, None)


@pytest.mark.parametrize("kernel", KERNELS)
def test_outlier_columns_are_within_the_bound(kernel: str) -> None:
    """What language models do: a few columns of the activations are hundreds of times larger than the rest."""
    x = rows_of(4, 256)
    x[:, [3, 77]] *= 500
    assert_within_bound(kernel, x, *drawn(256, 64))


@pytest.mark.parametrize("kernel", KERNELS)
def test_tiny_huge_and_zero_rows_side_by_side_are_within_the_bound(kernel: str) -> None:
    x = rows_of(5, 128) * torch.tensor([1e-30, 1e30, 0.0, 1.0, 1e-38])[:, None]
    quantized, scale, bias = drawn(128, 33)
    assert_within_bound(kernel, x, quantized, scale, None)
    assert_within_bound(kernel, x, quantized, scale, bias)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_row_of_zeros_gives_the_bias_exactly(kernel: str) -> None:
    quantized, scale, bias = drawn(64, 33)
    y = layer_of(kernel, quantized, scale, bias)(torch.zeros(2, 64))
    assert torch.equal(y, bias.expand(2, -1))


@pytest.mark.parametrize("kernel", KERNELS)
def test_rows_of_zero_weights_and_extreme_scales_are_within_the_bound(kernel: str) -> None:
    weight = torch.randn(6, 96, generator=torch.Generator().manual_seed(3))
    weight *= torch.tensor([0.0, 1e-30, 1e20, 1.0, 1e-36, 1e5])[:, None]
    assert_within_bound(kernel, rows_of(3, 96), *quantize(weight), None)


@pytest.mark.parametrize("kernel", KERNELS)
def test_all_weights_and_activations_at_their_largest_do_not_overflow(kernel: str) -> None:
    """127 * 127 * 4096 fits in the int32 sum; a saturating 16-bit step in between would not."""
    quantized = torch.full((8, 4096), 127, dtype=torch.int8)
    quantized[1::2] = -127
    assert_within_bound(kernel, torch.full((2, 4096), 3.0), quantized, torch.full((8,), 0.01), None)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_bound_catches_scales_of_the_wrong_row(kernel: str) -> None:
    quantized, scale, bias = drawn(64, 16)
    x = rows_of(2, 64)
    y = layer_of(kernel, quantized, scale.roll(1), bias)(x)
    error = (y.double() - exact(x, quantized, scale, bias)).abs()
    assert bool((error > bound(kernel, x, quantized, scale, bias)).any())


@pytest.mark.parametrize("kernel", KERNELS)
def test_scales_are_used_in_float32(kernel: str) -> None:
    """int8pack's operator would take them in bfloat16, and put 0.2 % on every row: here nothing else is rounded."""
    quantized = torch.zeros(5, 16, dtype=torch.int8)
    quantized[:, 3] = 64
    scale = torch.tensor([1.001, 0.01234567, 1 / 3, 7.77, 1e-5])
    x = torch.zeros(1, 16)
    x[0, 3] = 127.0  # a whole number of steps
    assert torch.allclose(layer_of(kernel, quantized, scale)(x)[0], 64 * 127 * scale, rtol=1e-6)


def test_dynamic_rows_are_scaled_each_by_its_own_largest() -> None:
    """One range for all rows would round the quiet row to nothing."""
    if not HERE.vnni:
        pytest.skip("no VNNI")
    x = rows_of(2, 64)
    x[0] *= 1e-4
    assert_within_bound("dynamic", x, *drawn(64, 16))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("M", [1, 4, 9])
def test_the_dtype_of_the_activations_is_the_dtype_of_the_result(kernel: str, dtype: torch.dtype, M: int) -> None:
    assert_within_bound(kernel, rows_of(M, 64).to(dtype), *drawn(64, 33))


# Rows


GARBAGE = [float("inf"), float("-inf"), float("nan"), 3e38, -1e30]


@pytest.mark.parametrize("value", GARBAGE)
@pytest.mark.parametrize("M", [2, 5, 9])
@pytest.mark.parametrize("kernel", KERNELS)
def test_garbage_in_one_row_changes_no_other_bit_for_bit(kernel: str, M: int, value: float) -> None:
    layer = layer_of(kernel, *drawn(64, 33))
    x = rows_of(M, 64)
    clean = layer(x)
    for row in range(M):
        dirty = x.clone()
        dirty[row] = value
        dirty[row, ::3] = 1.0
        others = [other for other in range(M) if other != row]
        assert torch.equal(layer(dirty)[others], clean[others])


@pytest.mark.parametrize("M", [1, 4, 9])
@pytest.mark.parametrize("kernel", KERNELS)
def test_nan_in_a_row_is_nan_in_all_its_results(kernel: str, M: int) -> None:
    """Quantizing activations could hide it; then a broken model would speak on."""
    layer = layer_of(kernel, *drawn(64, 33))
    x = rows_of(M, 64)
    x[-1, 7] = float("nan")
    assert bool(torch.isnan(layer(x)[-1]).all())


@pytest.mark.parametrize("value", [float("inf"), float("-inf")])
@pytest.mark.parametrize("M", [1, 4, 9])
@pytest.mark.parametrize("kernel", KERNELS)
def test_infinity_in_a_row_leaves_no_finite_result_in_it(kernel: str, M: int, value: float) -> None:
    layer = layer_of(kernel, *drawn(64, 33))
    x = rows_of(M, 64)
    x[-1, 7] = value
    assert not bool(torch.isfinite(layer(x)[-1]).any())


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_same_rows_give_the_same_bits(kernel: str) -> None:
    layer, x = layer_of(kernel, *drawn(1024, 300)), rows_of(2, 1024)
    assert torch.equal(layer(x), layer(x.clone()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kernel", KERNELS)
def test_views_are_multiplied_as_what_they_show(kernel: str, dtype: torch.dtype) -> None:
    """Strided, transposed, and unaligned: int8pack's operator wants aligned rows and does not check."""
    base = rows_of(8, 3 * 64 + 1).to(dtype)
    views = [
        base[:2, 1:65],
        base[:4, : 3 * 64].view(4, 3, 64)[:, -1],
        base[:2, :64].t().contiguous().t(),
        base.flatten()[1 : 1 + 2 * 64].view(2, 64),
    ]
    for view in views:
        assert_within_bound(kernel, view, *drawn(64, 33))


@pytest.mark.parametrize("kernel", KERNELS)
def test_leading_dimensions_are_kept(kernel: str) -> None:
    layer, x = layer_of(kernel, *drawn(64, 33)), rows_of(6, 64)
    assert torch.equal(layer(x.view(2, 1, 3, 64)), layer(x).view(2, 1, 3, 33))
    assert layer(x[:0]).shape == (0, 33)


# Packing


@pytest.mark.parametrize(("K", "N"), [*SMALL, (1024, 8194)])
@pytest.mark.parametrize("kernel", KERNELS)
def test_unpacking_gives_the_packed_numbers_back_bit_for_bit(kernel: str, K: int, N: int) -> None:
    quantized, scale, _ = drawn(K, N)
    kept = quantized.clone(), scale.clone()
    it = kernels.get(kernel)
    for ours, theirs in zip(it.unpack(it.pack(quantized, scale)), kept, strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("kernel", KERNELS)
def test_layers_of_all_widths_share_one_kernel(kernel: str) -> None:
    """It keeps one vector of constants, grown to the widest; narrower layers must not notice."""
    it: Kernel = kernels.get(kernel)
    layers = []
    for N in (40, 8, 100):
        quantized, scale, _ = drawn(32, N, seed=N)
        layers.append((quantized, scale, it.pack(quantized.clone(), scale)))
    x = rows_of(2, 32)
    for quantized, scale, packed in layers:
        error = (it.multiply(x, packed, None).double() - exact(x, quantized, scale, None)).abs()
        assert bool((error <= bound(kernel, x, quantized, scale, None)).all())


@pytest.mark.skipif(not HERE.vnni, reason="no VNNI")
@pytest.mark.parametrize(("K", "N"), REAL)
def test_onednns_own_layout_takes_at_most_2_percent_more_than_is_counted(K: int, N: int) -> None:
    """It pads rows and keeps sums beside the weights. The plan counts the weights themselves."""
    quantized, scale, _ = drawn(K, N)
    packed, _ = kernels.get("dynamic").pack(quantized, scale)
    assert K * N <= torch.ops.mkldnn._nbytes(packed) <= 1.02 * K * N


# What a kernel cannot do


@pytest.mark.parametrize("K", [1, 8, 15, 17, 24, 40, 100])
def test_a_width_that_int8pack_cannot_read_goes_to_plain_and_says_so(K: int) -> None:
    """Its operator reads 16 at a time and checks nothing: past the end of the weights lies garbage, or a crash."""
    layer = layer_of("int8pack", *drawn(K, 6))
    assert layer.kernel.name == "plain"
    x = rows_of(2, K)
    quantized, scale, bias = drawn(K, 6)
    assert torch.equal(layer(x), torch.nn.functional.linear(x, dequantize(quantized, scale, torch.float32), bias))


@pytest.mark.parametrize(("kernel", "K"), [("int8pack", 16), ("int8pack", 1024), ("dynamic", 7), ("plain", 7)])
def test_a_width_that_a_kernel_can_do_stays_with_it(kernel: str, K: int) -> None:
    assert Int8Linear(K, 4, False, kernels.get(kernel)).kernel.name == kernel


def test_more_rows_than_a_kernel_pays_for_are_multiplied_plainly() -> None:
    quantized, scale, bias = drawn(64, 33)
    layer = layer_of("int8pack", quantized, scale, bias)
    x = rows_of(layer.kernel.max_rows + 1, 64)
    assert torch.equal(layer(x), torch.nn.functional.linear(x, dequantize(quantized, scale, torch.float32), bias))
    assert kernels.get("plain").max_rows == 0
    assert kernels.get("dynamic").max_rows == sys.maxsize


# Dequantizing


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_dequantizing_multiplies_along_the_axis_of_the_scales(axis: int) -> None:
    weight = torch.randint(-127, 128, (3, 4, 5), dtype=torch.int8)
    scale = torch.rand(weight.shape[axis])
    shape = [1, 1, 1]
    shape[axis] = -1
    assert torch.equal(dequantize(weight, scale, torch.float32, axis), weight.float() * scale.view(shape))


def test_a_scale_is_not_rounded_before_it_is_used() -> None:
    weight, scale = torch.tensor([[127]], dtype=torch.int8), torch.tensor([1.0009766])
    assert dequantize(weight, scale, torch.bfloat16).item() == (127 * scale).bfloat16().item()


# What this machine does not have: run as the x86 operator of the same schema


def test_the_operators_schema_is_the_one_these_kernels_call() -> None:
    schema = torch.ops.aten._weight_int8pack_mm.default._schema
    assert [(argument.name, str(argument.type)) for argument in schema.arguments] == [
        ("self", "Tensor"),
        ("mat2", "Tensor"),
        ("scales", "Tensor"),
    ]


@pytest.mark.parametrize("kind", [Int8PackArm, Int8PackMps])
@pytest.mark.parametrize(("K", "N"), [(64, 96), (192, 6564), (1024, 8194), (32, 1), (96, 6563)])
@pytest.mark.parametrize("M", [1, 2, 6])
def test_packed_kernels_are_float32s_own(kind: type[Int8PackArm], K: int, N: int, M: int) -> None:
    """Activations, sums and scales are all float32."""
    kernel, (quantized, scale, bias), x = kind(), drawn(K, N), rows_of(M, K)
    found = kernel.multiply(x, kernel.pack(quantized, scale), bias)
    assert found.shape == (M, N)
    wanted = exact(x, quantized, scale, bias)
    S = x.double().abs() @ (quantized.double().abs() * scale.double()[:, None]).T
    assert bool(((found.double() - wanted).abs() <= (K + 4) * FLOAT32 * (S + wanted.abs())).all())


@pytest.mark.parametrize(("N", "padded"), [(8194, 8224), (6563, 6592), (1024, 1024)])
def test_mps_gets_rows_in_multiples_of_32_and_gives_those_there_are(N: int, padded: int) -> None:
    quantized, scale, _ = drawn(64, N)
    packed = Int8PackMps().pack(quantized, scale)
    assert packed[0].shape == (padded, 64)
    assert all(
        torch.equal(one, other) for one, other in zip(Int8PackMps().unpack(packed), (quantized, scale), strict=True)
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", [Int8PackArm, Int8PackMps])
def test_packed_kernels_do_not_overflow_in_half(kind: type[Int8PackArm], dtype: torch.dtype) -> None:
    """A sum before scaling of 127 × 1024 × 8 is beyond float16."""
    kernel = kind()
    weight, scale = torch.full((32, 1024), 127, dtype=torch.int8), torch.full((32,), 1e-4)
    found = kernel.multiply(torch.full((2, 1024), 8.0, dtype=dtype), kernel.pack(weight, scale), None)
    assert found.dtype == dtype
    assert torch.allclose(found.float(), torch.full((2, 32), 127 * 1024 * 8e-4), rtol=1e-2)


@pytest.mark.parametrize("facts", [DeviceFacts("mps", "arm64"), DeviceFacts("cpu", "aarch64")])
def test_a_matrix_of_another_width_goes_to_the_plain_path(facts: DeviceFacts) -> None:
    kernel = kernels.get("int8pack", facts)
    assert Int8Linear(48, 64, False, kernel).kernel.name == "plain"
    assert Int8Linear(64, 48, False, kernel).kernel is kernel


@pytest.mark.parametrize(
    ("facts", "kind"),
    [
        (DeviceFacts("mps", "arm64"), Int8PackMps),
        (DeviceFacts("cpu", "aarch64"), Int8PackArm),
        (DeviceFacts("cpu", "arm64"), Int8PackArm),
        (DeviceFacts("cpu", "x86_64", "AVX512"), Int8Pack),
        (DeviceFacts("cpu", "AMD64", "AVX2"), Int8Pack),
    ],
)
def test_each_device_gets_its_own_kernel(facts: DeviceFacts, kind: type) -> None:
    assert type(kernels.get("int8pack", facts)) is kind


@pytest.mark.parametrize("facts", [DeviceFacts("mps", "arm64"), DeviceFacts("cpu", "aarch64", "DEFAULT")])
def test_the_demo_speaks_through_the_kernel_of_another_device(facts: DeviceFacts) -> None:
    """Planned for that device, and put on this one: its kernel, its padding, its dtypes; not its hardware."""
    spec, files = source.find("demo")
    prepared = engine.prepare(spec, files, "int8", facts)
    assert prepared.plan.kernel == "int8pack"
    prepared.plan = replace(prepared.plan, device="cpu")
    model = engine.finish(prepared)
    assert model.report.bytes == prepared.plan.expected_bytes
    with torch.inference_mode():
        (spoken,) = Speaker(
            model, model.builtin_voice(), Sampling(), 0.5, StageNoise(7), ["The brown spring wants the orange street."]
        )
    assert len(spoken.tokens) > 30
    kinds = {type(layer.kernel).__name__ for layer in model.t3.backbone.modules() if isinstance(layer, Int8Linear)}
    assert kinds == {"Int8PackMps" if facts.kind == "mps" else "Int8PackArm"}

"""A few rows times a matrix, by Triton: every shape, storage and what comes before and after, against float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import GPU
from torch import Tensor

pytest.importorskip("triton")

from chatterbox_nb.precision.kernels.rows import TILED_ROWS, Matrix, Norm, multiply
from chatterbox_nb.precision.layers import Int8Linear, quantize

EPS = 1e-5
STORAGES = ("int8", "float16", "bfloat16", "float32")
# What a float32 sum may be off; tensor cores see activations as two halves, which is 16 bits of bfloat16.
EXACT, SPLIT = 1e-6, 2e-5


def stored(weight: Tensor, storage: str, bias: Tensor | None = None) -> tuple[Matrix, Tensor]:
    """As the kernel reads it, and what that is in float64."""
    there = None if bias is None else bias.to(GPU)
    if storage == "int8":
        quantized, scale = quantize(weight)
        return Matrix(quantized.to(GPU), scale.to(GPU), there), quantized.double() * scale.double()[:, None]
    cast = weight.to(getattr(torch, storage))
    return Matrix(cast.to(GPU), None, there), cast.double()


def apart(found: Tensor, wanted: Tensor) -> float:
    assert found.isfinite().all()
    return float((found.cpu().double() - wanted).norm() / wanted.norm())


def products(M: int, N: int, K: int, storage: str, limit: float, **more: Any) -> None:
    """With each of what may come before and after."""
    generator = torch.Generator().manual_seed(M * N * K)
    x, weight = torch.randn(M, K, generator=generator), torch.randn(N, K, generator=generator)
    bias, gain = torch.randn(N, generator=generator), 0.5 + torch.rand(K, generator=generator)
    there = x.to(GPU)
    matrix, full = stored(weight, storage, bias)

    def empty(columns: int) -> Tensor:
        return torch.full((M, columns), float("nan"), device=GPU)

    y = empty(N)
    multiply(there, matrix, y, norm=Norm(gain.to(GPU), EPS), **more)
    normed = x.double() / torch.sqrt((x.double() ** 2).mean(1, keepdim=True) + EPS) * gain.double()
    assert apart(y, normed @ full.T + bias.double()) < limit, "norm and bias"

    before = torch.randn(M, N, generator=generator)
    y = before.clone().to(GPU)
    multiply(there, Matrix(matrix.weight, matrix.scale), y, add=True, **more)
    assert apart(y, before.double() + x.double() @ full.T) < limit, "added"

    offset = torch.randn(K, generator=generator)
    y = empty(N)
    shifted = x + 3  # a mean that is large beside what is left without it
    multiply(shifted.to(GPU), matrix, y, norm=Norm(gain.to(GPU), EPS, offset.to(GPU)), gelu=True, **more)
    normed = F.layer_norm(shifted.double(), (K,), gain.double(), offset.double(), EPS)
    assert apart(y, F.gelu(normed @ full.T + bias.double(), approximate="tanh")) < 3 * limit, "layer norm and GELU"

    y = before.clone().to(GPU)
    multiply(there, matrix, y, add=True, **more)
    assert apart(y, before.double() + x.double() @ full.T + bias.double()) < limit, "added, with a bias"

    if N % 2 == 0:
        y = empty(N // 2)
        multiply(there, Matrix(matrix.weight, matrix.scale), y, gated=True, **more)
        gate, up = (x.double() @ full.T).chunk(2, dim=1)
        assert apart(y, F.silu(gate) * up) < 3 * limit, "gated"


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize(("M", "N", "K"), [(1, 5, 7), (2, 48, 33), (4, 70, 192), (8, 18, 130), (16, 10, 96)])
def test_products_of_odd_sizes(M: int, N: int, K: int, storage: str) -> None:
    products(M, N, K, storage, EXACT)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("K", [1024, 4096, 768, 3072])  # English, multilingual and turbo; nano
def test_products_as_wide_as_every_models(K: int, storage: str) -> None:
    products(2, 34, K, storage, EXACT)


@pytest.mark.parametrize("storage", STORAGES[:3])
@pytest.mark.parametrize(("M", "N", "K"), [(8, 70, 192), (8, 34, 1024), (16, 50, 130)])
def test_many_rows_by_tensor_cores(M: int, N: int, K: int, storage: str) -> None:
    assert M >= TILED_ROWS
    products(M, N, K, storage, SPLIT, tiled=True)


def test_a_row_is_the_same_whatever_is_beside_it() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 96, generator=generator).to(GPU)
    matrix, _ = stored(torch.randn(40, 96, generator=generator), "int8")
    whole, alone = torch.zeros(8, 40, device=GPU), torch.zeros(1, 40, device=GPU)
    multiply(x, matrix, whole)
    multiply(x[3:4], matrix, alone)
    assert torch.equal(whole[3], alone[0])


def test_silu_of_a_large_negative_number_is_nothing_and_no_nan() -> None:
    weight = torch.tensor([[-1000.0, 0.0], [0.0, 1000.0]], device=GPU)
    y = torch.full((1, 1), float("nan"), device=GPU)
    multiply(torch.ones(1, 2, device=GPU), Matrix(weight), y, gated=True)
    assert abs(float(y)) < 1e-20


def test_gelu_of_large_numbers_is_the_number_or_nothing() -> None:
    y = torch.full((1, 2), float("nan"), device=GPU)
    multiply(torch.ones(1, 1, device=GPU), Matrix(torch.tensor([[-1e9], [1e9]], device=GPU)), y, gelu=True)
    assert abs(float(y[0, 0])) < 1e-15
    assert float(y[0, 1]) == 1e9


def test_a_norm_of_either_kind_is_what_the_kernel_is_given() -> None:
    rms, layer = torch.nn.RMSNorm(4, eps=0.5), torch.nn.LayerNorm(4, eps=0.25)
    of_rms, of_layer = Norm.of(rms), Norm.of(layer)
    assert (of_rms.gain is rms.weight, of_rms.eps, of_rms.offset) == (True, 0.5, None)
    assert (of_layer.gain is layer.weight, of_layer.eps, of_layer.offset is layer.bias) == (True, 0.25, True)


def test_a_layer_of_either_kind_is_a_matrix() -> None:
    from chatterbox_nb.precision import kernels

    linear = torch.nn.Linear(4, 3)
    assert Matrix.of(linear).weight is linear.weight
    quantized = Int8Linear(4, 3, True, kernels.get("plain"))
    assert Matrix.of(quantized).weight is quantized.weight_int8
    assert Matrix.of(quantized).scale is quantized.weight_scale

"""A few rows of activations times a matrix, on a GPU: Triton kernels, with what comes before and after the product.

Each program reads some rows of the weights whole, once, as they are stored; a token's step is bound by that. With one
to eight rows of activations `_multiply` sums products in float32, without tensor cores: it runs on every GPU, and for
one chunk it is the faster. `_multiply_tiles` uses them for many rows, where weights are int8 or half: activations are
split into a high and a low half-precision part, so that nothing of a float32 is lost that matters.

Before the product: an RMS norm, or a layer norm. After it: scale, bias, SiLU times a second matrix or GELU, what is
added up. All of it is float32 but the weights. What a backbone does not have is not compiled for it.

Under `TRITON_INTERPRET=1` the same code runs on a CPU.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

MOST_ROWS = 8  # of activations that one program of `_multiply` multiplies; more are several programs
# Numbers of a weight matrix that a program reads at once, and its warps, by the width of the matrix. Measured on an
# H200: `benchmarks/gpu.py`.
_NARROW, _WIDE, _WIDEST_NARROW = (4096, 1), (16384, 8), 2048
# Of `_multiply_tiles`: rows of activations from which it is used; rows and columns of weights, stages, warps.
TILED_ROWS, _MOST_TILED = 8, 16
_TILE_N, _TILE_K, _STAGES, _TILE_WARPS = 32, 128, 3, 4
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if _INTERPRETED:
    _NARROW = _WIDE = (1 << 16, 1)  # a program takes its time there, whatever it does


@triton.jit
def _gelu(x):
    """As GPT-2 approximates it, by tanh, which is a logistic function of twice as much."""
    twice = 1.5957691216057308 * (x + 0.044715 * x * x * x)  # sqrt(8 / pi)
    return x / (1.0 + tl.exp(-tl.maximum(twice, -80.0)))


@triton.jit
def _moments(x, eps, K: tl.constexpr, M: tl.constexpr, BLOCK: tl.constexpr):
    """What a layer norm subtracts from each of M rows, and what it multiplies then; each twice over, `[2 M]`."""
    k = tl.arange(0, BLOCK)
    inside = (k < K)[None, :]
    row = tl.load(x + tl.arange(0, M)[:, None] * K + k[None, :], mask=inside, other=0.0)
    mean = tl.sum(row, axis=1) / K
    row = tl.where(inside, row - mean[:, None], 0.0)
    length = tl.rsqrt(tl.sum(row * row, axis=1) / K + eps)
    return tl.reshape(tl.trans(tl.join(mean, mean)), [2 * M]), tl.reshape(tl.trans(tl.join(length, length)), [2 * M])


@triton.jit
def _multiply(
    x, weight, scale, bias, gain, offset, y, N, K, eps,
    M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, EVEN: tl.constexpr, INT8: tl.constexpr,
    BIAS: tl.constexpr, NORM: tl.constexpr, LAYER_NORM: tl.constexpr, GATED: tl.constexpr, GELU: tl.constexpr,
    ADD: tl.constexpr,
):  # fmt: skip
    """`y[m, n]` for BLOCK_N columns n and M rows m."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    there = n < N
    inside = k < K
    place = n[:, None] * K + k[None, :]
    kept = there[:, None] if EVEN else there[:, None] & inside[None, :]
    w = tl.load(weight + place, mask=kept, other=0).to(tl.float32)
    if GATED:
        second = tl.load(weight + N * K + place, mask=kept, other=0).to(tl.float32)
    if INT8:
        factor = tl.load(scale + n, mask=there, other=0.0)
        if GATED:
            second_factor = tl.load(scale + N + n, mask=there, other=0.0)
    if BIAS:
        shift = tl.load(bias + n, mask=there, other=0.0).to(tl.float32)
    if NORM or LAYER_NORM:
        weights = tl.load(gain + k, mask=inside, other=0.0).to(tl.float32)
    if LAYER_NORM:
        offsets = tl.load(offset + k, mask=inside, other=0.0).to(tl.float32)
    for each in tl.static_range(M):
        m = tl.program_id(1) * M + each
        row = tl.load(x + m * K + k, mask=inside, other=0.0)
        length = 1.0
        if NORM:
            length = tl.rsqrt(tl.sum(row * row, axis=0) / K + eps)
            row = row * weights
        if LAYER_NORM:
            row = tl.where(inside, row - tl.sum(row, axis=0) / K, 0.0)
            row = row * tl.rsqrt(tl.sum(row * row, axis=0) / K + eps) * weights + offsets
        found = tl.sum(w * row[None, :], axis=1) * length
        if INT8:
            found = found * factor
        if BIAS:
            found += shift
        if GATED:
            other = tl.sum(second * row[None, :], axis=1) * length
            if INT8:
                other = other * second_factor
            found = found / (1.0 + tl.exp(-tl.maximum(found, -80.0))) * other
        if GELU:
            found = _gelu(found)
        out = y + m * N + n
        if ADD:
            found += tl.load(out, mask=there, other=0.0)
        tl.store(out, found, mask=there)


@triton.jit
def _multiply_tiles(
    x, weight, scale, bias, gain, offset, y, N, eps,
    K: tl.constexpr, M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, WHOLE_K: tl.constexpr,
    STAGES: tl.constexpr, HALF: tl.constexpr, EVEN: tl.constexpr, INT8: tl.constexpr,
    BIAS: tl.constexpr, NORM: tl.constexpr, LAYER_NORM: tl.constexpr, GATED: tl.constexpr, GELU: tl.constexpr,
    ADD: tl.constexpr,
):  # fmt: skip
    """`y[m, n]` for BLOCK_N columns n and all M rows: rows m of a tile are the high parts, rows M + m the low ones."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    there = n < N
    part = tl.arange(0, 2 * M)
    m = part % M
    found = tl.zeros([2 * M, BLOCK_N], tl.float32)
    other = tl.zeros([2 * M, BLOCK_N], tl.float32)
    squares = tl.zeros([2 * M], tl.float32)
    if LAYER_NORM:
        mean, spread = _moments(x, eps, K, M, WHOLE_K)
    for start in tl.range(0, K, BLOCK_K, num_stages=STAGES):
        k = start + tl.arange(0, BLOCK_K)
        inside = k < K
        kept = there[:, None] if EVEN else there[:, None] & inside[None, :]
        place = n[:, None] * K + k[None, :]
        w = tl.load(weight + place, mask=kept, other=0)
        if GATED:
            second = tl.load(weight + N * K + place, mask=kept, other=0)
        row = tl.load(x + m[:, None] * K + k[None, :], mask=inside[None, :], other=0.0)
        if NORM:
            squares += tl.sum(row * row, axis=1)
            row = row * tl.load(gain + k, mask=inside, other=0.0).to(tl.float32)[None, :]
        if LAYER_NORM:
            row = (row - mean[:, None]) * spread[:, None]
            row = row * tl.load(gain + k, mask=inside, other=0.0).to(tl.float32)[None, :]
            row += tl.load(offset + k, mask=inside, other=0.0).to(tl.float32)[None, :]
        high = row.to(HALF)
        both = tl.where((part < M)[:, None], high, (row - high.to(tl.float32)).to(HALF))
        found = tl.dot(both, tl.trans(w.to(HALF)), found)
        if GATED:
            other = tl.dot(both, tl.trans(second.to(HALF)), other)
    if NORM:
        length = tl.rsqrt(squares / K + eps)[:, None]
        found = found * length
        other = other * length
    value = tl.sum(tl.reshape(found, [2, M, BLOCK_N]), axis=0)
    if INT8:
        value = value * tl.load(scale + n, mask=there, other=0.0)[None, :]
    if BIAS:
        value += tl.load(bias + n, mask=there, other=0.0).to(tl.float32)[None, :]
    if GATED:
        up = tl.sum(tl.reshape(other, [2, M, BLOCK_N]), axis=0)
        if INT8:
            up = up * tl.load(scale + N + n, mask=there, other=0.0)[None, :]
        value = value / (1.0 + tl.exp(-tl.maximum(value, -80.0))) * up
    if GELU:
        value = _gelu(value)
    out = y + tl.arange(0, M)[:, None] * N + n[None, :]
    kept = there[None, :]
    if ADD:
        value += tl.load(out, mask=kept, other=0.0)
    tl.store(out, value, mask=kept)


@dataclass(frozen=True)
class Matrix:
    """A linear layer as the kernel reads it.

    Args:
        weight: `[N, K]`, int8 or the dtype it is stored in.
        scale: float32 `[N]` of int8, else None.
        bias: `[N]`.
    """

    weight: Tensor
    scale: Tensor | None = None
    bias: Tensor | None = None

    @classmethod
    def of(cls, layer: Any) -> Matrix:
        """nn.Linear or Int8Linear."""
        if (quantized := getattr(layer, "weight_int8", None)) is not None:
            return cls(quantized, layer.weight_scale, layer.bias)
        return cls(layer.weight, None, layer.bias)


@dataclass(frozen=True)
class Norm:
    """A norm as the kernel reads it.

    Args:
        gain: `[K]`.
        offset: `[K]` of a layer norm, which subtracts the mean; None of an RMS norm.
    """

    gain: Tensor
    eps: float
    offset: Tensor | None = None

    @classmethod
    def of(cls, layer: Any) -> Norm:
        """nn.RMSNorm or nn.LayerNorm."""
        return cls(layer.weight, layer.eps, getattr(layer, "bias", None))


def multiply(
    x: Tensor,
    matrix: Matrix,
    y: Tensor,
    *,
    norm: Norm | None = None,
    gated: bool = False,
    gelu: bool = False,
    add: bool = False,
    tiled: bool = False,
) -> None:
    """Writes `x @ matrix.T + bias` into `y`.

    Args:
        x: float32 `[M, K]`, contiguous; M is a power of two.
        y: float32 `[M, N]`, or `[M, N / 2]` when gated.
        norm: that `x` is given first.
        gated: SiLU of the first half of the rows of the matrix, times the second half; without a bias.
        gelu: of the product, approximated by tanh.
        add: to what `y` holds.
        tiled: by tensor cores, where rows are many and weights are not float32.
    """
    N, K = matrix.weight.shape
    columns, block_k = N // 2 if gated else N, triton.next_power_of_2(K)
    eps = 0.0 if norm is None else norm.eps
    pointers = (
        x, matrix.weight, y if matrix.scale is None else matrix.scale, y if matrix.bias is None else matrix.bias,
        y if norm is None else norm.gain, y if norm is None or norm.offset is None else norm.offset, y,
    )  # fmt: skip
    flags = {
        "INT8": matrix.scale is not None,
        "BIAS": matrix.bias is not None,
        "NORM": norm is not None and norm.offset is None,
        "LAYER_NORM": norm is not None and norm.offset is not None,
        "GATED": gated,
        "GELU": gelu,
        "ADD": add,
    }
    if tiled and TILED_ROWS <= len(x) <= _MOST_TILED and matrix.weight.dtype != torch.float32:
        half = tl.float16 if matrix.weight.dtype == torch.float16 else tl.bfloat16
        _multiply_tiles[(triton.cdiv(columns, _TILE_N),)](
            *pointers, columns, eps, K=K, M=len(x), BLOCK_N=_TILE_N, BLOCK_K=_TILE_K, WHOLE_K=block_k,
            STAGES=_STAGES, HALF=tl.float32 if _INTERPRETED else half, EVEN=K % _TILE_K == 0, **flags,
            num_warps=_TILE_WARPS,
        )  # fmt: skip
        return
    rows = min(len(x), MOST_ROWS)
    tile, warps = _NARROW if block_k <= _WIDEST_NARROW else _WIDE
    block_n = min(triton.next_power_of_2(columns), max(1, tile // block_k // (2 if gated else 1)))
    _multiply[(triton.cdiv(columns, block_n), len(x) // rows)](
        *pointers, columns, K, eps,
        M=rows, BLOCK_N=block_n, BLOCK_K=block_k, EVEN=block_k == K, **flags, num_warps=warps,
    )  # fmt: skip

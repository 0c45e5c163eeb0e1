"""A few rows of activations times a matrix, on a GPU: Triton kernels, with what comes before and after the product.

Each program reads some rows of the weights whole, once, as they are stored; a token's step is bound by that. With one
to eight rows of activations `_multiply` sums products in float32, without tensor cores: it runs on every GPU, and for
one chunk it is the faster. `_multiply_tiles` uses them for many rows, where weights are int8 or half: activations are
split into a high and a low half-precision part, so that nothing of a float32 is lost that matters.

Before the product: an RMS norm. After it: scale, bias, SiLU times a second matrix, what is added up. All of it is
float32 but the weights.

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
def _multiply(
    x, weight, scale, bias, gain, y, N, K, eps,
    M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, EVEN: tl.constexpr, INT8: tl.constexpr,
    BIAS: tl.constexpr, NORM: tl.constexpr, GATED: tl.constexpr, ADD: tl.constexpr,
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
    if NORM:
        weights = tl.load(gain + k, mask=inside, other=0.0).to(tl.float32)
    for each in tl.static_range(M):
        m = tl.program_id(1) * M + each
        row = tl.load(x + m * K + k, mask=inside, other=0.0)
        length = 1.0
        if NORM:
            length = tl.rsqrt(tl.sum(row * row, axis=0) / K + eps)
            row = row * weights
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
        out = y + m * N + n
        if ADD:
            found += tl.load(out, mask=there, other=0.0)
        tl.store(out, found, mask=there)


@triton.jit
def _multiply_tiles(
    x, weight, scale, bias, gain, y, N, eps,
    K: tl.constexpr, M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    STAGES: tl.constexpr, HALF: tl.constexpr, EVEN: tl.constexpr, INT8: tl.constexpr,
    BIAS: tl.constexpr, NORM: tl.constexpr, GATED: tl.constexpr, ADD: tl.constexpr,
):  # fmt: skip
    """`y[m, n]` for BLOCK_N columns n and all M rows: rows m of a tile are the high parts, rows M + m the low ones."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    there = n < N
    part = tl.arange(0, 2 * M)
    m = part % M
    found = tl.zeros([2 * M, BLOCK_N], tl.float32)
    other = tl.zeros([2 * M, BLOCK_N], tl.float32)
    squares = tl.zeros([2 * M], tl.float32)
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


def multiply(
    x: Tensor,
    matrix: Matrix,
    y: Tensor,
    *,
    gain: Tensor | None = None,
    eps: float = 0.0,
    gated: bool = False,
    add: bool = False,
    tiled: bool = False,
) -> None:
    """Writes `x @ matrix.T + bias` into `y`.

    Args:
        x: float32 `[M, K]`, contiguous; M is a power of two.
        y: float32 `[M, N]`, or `[M, N / 2]` when gated.
        gain: of the RMS norm that `x` is given first, `[K]`; `eps` is its own.
        gated: SiLU of the first half of the rows of the matrix, times the second half; without a bias.
        add: to what `y` holds.
        tiled: by tensor cores, where rows are many and weights are not float32.
    """
    N, K = matrix.weight.shape
    columns = N // 2 if gated else N
    pointers = (
        x, matrix.weight, y if matrix.scale is None else matrix.scale, y if matrix.bias is None else matrix.bias,
        y if gain is None else gain, y,
    )  # fmt: skip
    flags = {
        "INT8": matrix.scale is not None,
        "BIAS": matrix.bias is not None,
        "NORM": gain is not None,
        "GATED": gated,
        "ADD": add,
    }
    if tiled and TILED_ROWS <= len(x) <= _MOST_TILED and matrix.weight.dtype != torch.float32:
        half = tl.float16 if matrix.weight.dtype == torch.float16 else tl.bfloat16
        _multiply_tiles[(triton.cdiv(columns, _TILE_N),)](
            *pointers, columns, eps, K=K, M=len(x), BLOCK_N=_TILE_N, BLOCK_K=_TILE_K,
            STAGES=_STAGES, HALF=tl.float32 if _INTERPRETED else half, EVEN=K % _TILE_K == 0, **flags,
            num_warps=_TILE_WARPS,
        )  # fmt: skip
        return
    block_k, rows = triton.next_power_of_2(K), min(len(x), MOST_ROWS)
    tile, warps = _NARROW if block_k <= _WIDEST_NARROW else _WIDE
    block_n = min(triton.next_power_of_2(columns), max(1, tile // block_k // (2 if gated else 1)))
    _multiply[(triton.cdiv(columns, block_n), len(x) // rows)](
        *pointers, columns, K, eps,
        M=rows, BLOCK_N=block_n, BLOCK_K=block_k, EVEN=block_k == K, **flags, num_warps=warps,
    )  # fmt: skip

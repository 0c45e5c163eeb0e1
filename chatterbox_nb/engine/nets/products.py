"""Rows of a compiled step (`step.py`): normalized, rounded, multiplied with weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from chatterbox_nb.precision.kernels import tiles
from chatterbox_nb.precision.kernels.emit import compiled
from chatterbox_nb.precision.kernels.vector import dot, float_at, total

# No fast mathematics: the compiler would choose an order of sums, or a fused product, for each number of rows and for
# each thread's share of them, and another for each processor. What is summed is summed by `dot` and `total`.
_compiled = compiled()

F = np.float32
# int16 that is 256 times an int8 and another. Of 8,192 products of int8 and this, summed in 16 lanes, none passes an
# int32.
_LARGEST = F(32639)
_LOG2E, _LN2 = F(1.4426950408889634), F(0.6931471805599453)
_LOWEST, _HIGHEST = F(-87), F(88)
_UNSIGNED, _INFINITY = np.int32(0x7FFFFFFF), np.int32(0x7F800000)  # a float's bits but its sign; infinity's


@_compiled
def exponentials(values: Any, powers: Any, count: int) -> None:
    """`exp` in place, to 2e-7, of numbers in float32's range; `powers` is int32 to work in."""
    for i in range(count):
        x = min(max(values[i], _LOWEST), _HIGHEST) if values[i] == values[i] else values[i]
        whole = np.floor(x * _LOG2E + F(0.5))
        f = (x * _LOG2E - whole) * _LN2
        values[i] = F(1) + f * (
            F(1) + f * (F(0.5) + f * (F(1 / 6) + f * (F(1 / 24) + f * (F(1 / 120) + f * F(1 / 720)))))
        )
        powers[i] = np.int32(np.int32(np.int32(whole) + np.int32(127)) << np.int32(23))
    scale = powers.view(np.float32)
    for i in range(count):
        values[i] *= scale[i]


@_compiled
def below_highest(values: Any, powers: Any, count: int) -> None:
    """Subtracts the highest, found among the bits: integers compare in any order, and NaN hides nothing."""
    bits, highest = values.view(np.int32), np.int32(-0x80000000)
    for i in range(count):
        highest = max(highest, np.int32(bits[i] ^ (np.int32(bits[i] >> np.int32(31)) & _UNSIGNED)))
    powers[0] = highest if highest >= 0 else highest ^ _UNSIGNED
    found = powers.view(np.float32)[0]
    for i in range(count):
        values[i] -= found


@_compiled
def _rms_norm(x: Any, weight: Any, eps: Any, out: Any, width: int) -> None:
    for m in range(len(x)):
        row = x[m].ctypes.data
        dot(x[m, :0], (0,), (0,), row, 0, row, 0, row, 0, out[m].ctypes.data, width)
        factor = F(1) / np.sqrt(out[m, 0] / F(width) + eps)
        for i in range(width):
            out[m, i] = x[m, i] * factor * weight[i]


@_compiled
def _layer_norm(x: Any, weight: Any, bias: Any, eps: Any, out: Any, sums: Any, width: int) -> None:
    for m in range(len(x)):
        mean, row = total(x[m].ctypes.data, width) / F(width), out[m].ctypes.data
        for i in range(width):
            out[m, i] = x[m, i] - mean
        dot(x[m, :0], (0,), (0,), row, 0, row, 0, row, 0, sums.ctypes.data, width)
        factor = F(1) / np.sqrt(sums[0] / F(width) + eps)
        for i in range(width):
            out[m, i] = out[m, i] * factor * weight[i] + bias[i]


@_compiled
def normalize(x: Any, norm: Any, eps: Any, out: Any, sums: Any, width: int) -> None:
    """Norm of each row: RMS with weights `[D]`, or layer norm with weights and biases `[2, D]`; `sums` to work in."""
    if norm.ndim == 1:
        _rms_norm(x, norm, eps, out, width)
    else:
        _layer_norm(x, norm[0], norm[1], eps, out, sums, width)


@_compiled
def prepare(kind: Any, tiled: Any, x: Any, work: Any, thread: int, width: int) -> tuple[int, int]:
    """Activations as the kind's products take them: an address, and bytes from row to row. int16 for int8."""
    quantized, steps = work.quantized[thread], work.steps[thread]
    if kind.itemsize > 1:
        for m in range(len(x)):
            steps[m] = F(1)
        return x.ctypes.data, x.strides[0]
    for m in range(len(x)):
        bits, highest = x[m].view(np.int32), np.int32(0)  # without their sign, integers order as floats do
        for i in range(width):
            highest = max(highest, bits[i] & _UNSIGNED)
        if highest >= _INFINITY:
            steps[m] = F(np.nan)
            continue
        steps[m : m + 1].view(np.int32)[0] = highest
        largest = max(steps[m], F(1e-30))
        inverse = _LARGEST / largest
        for i in range(width):
            scaled = x[m, i] * inverse
            quantized[m, i] = np.int16(np.int32(scaled + (F(0.5) if scaled >= F(0) else F(-0.5))))
        steps[m] = largest / _LARGEST
    at, row = quantized.ctypes.data, quantized.strides[0]
    if len(tiled):
        into, blocks = work.spread[thread].ctypes.data, width // tiles.BYTES
        for group in range(0, len(x), tiles.ROWS):
            tiles.spread(at + group * row, row, blocks, into + group // tiles.ROWS * blocks * tiles.TILE)
    return at, row


@_compiled
def _multiply_tiles(w: int, scale: int, begin: int, end: int, K: int, work: Any, thread: int, y: Any, add: bool) -> int:
    """`multiply` of whole blocks of 32 rows of weights; gives where it ends."""
    x, counts, blocks = work.spread[thread].ctypes.data, work.counts[thread], K // tiles.BYTES
    n = begin
    while n + tiles.BLOCK <= end:
        place = w + n * K
        for group in range(0, len(y), tiles.ROWS):
            soon = place + tiles.BLOCK * K
            tiles.products(place, K, x + group // tiles.ROWS * blocks * tiles.TILE, blocks, soon, counts.ctypes.data)
            into, steps = y[group, n:].ctypes.data, work.steps[thread, group:].ctypes.data
            tiles.settle(counts.ctypes.data, scale + 4 * n, steps, into, y.strides[0], add)
        n += tiles.BLOCK
    return n


@_compiled
def multiply(
    kind: Any, tiled: Any, block: Any, rows: Any, w: int, scale: int, begin: int, end: int, K: int,
    x: int, x_row: int, work: Any, thread: int, y: Any, add: bool,
) -> None:  # fmt: skip
    """`y[m, n] = dot(x[m], w[n])`, or added to it, for n from `begin` to `end`."""
    if len(tiled) and kind.itemsize == 1:
        begin = _multiply_tiles(w, scale, begin, end, K, work, thread, y, add)
    steps, sums = work.steps[thread], work.sums[thread]
    N, G, M = len(block), len(rows), len(y)
    shift = 2 if M >= 4 * G else 1 if M >= 2 * G else 0
    w_row, out = K * kind.itemsize, sums.ctypes.data
    n = begin
    while n < end:
        place = w + n * w_row
        count = N if n + N <= end else 1
        for group in range(0, M, G):
            if count == N:
                soon = place + N * w_row + (group * N * w_row // M)  # each group asks for its part of the next block
                dot(kind, block, rows, place, w_row, soon, shift, x + group * x_row, x_row, out, K)
            else:
                dot(kind, (0,), rows, place, w_row, place + w_row, 0, x + group * x_row, x_row, out, K)
            for g in range(G):
                m = group + g
                for i in range(count):
                    factor = float_at(scale, n + i) if kind.itemsize == 1 else F(1)
                    value = sums[g * count + i] * factor * steps[m]
                    y[m, n + i] = y[m, n + i] + value if add else value
        n += count

"""One position of T3 through all its layers, compiled: what `llama.Llama` and the head compute, a token at a time.

In torch a step is 1,400 calls, each with its own threads' start; here it is one, in five phases a layer.
Shapes as in `llama.py`; M rows, each at a position of its own. Activations are float32; for int8 weights they are
scaled, a row at a time, to int16, which is finer than bfloat16 by a factor of 100.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import numpy as np
from numba import types

from chatterbox_nb.precision.kernels.emit import compiled
from chatterbox_nb.precision.kernels.shared import arrive, glance, take
from chatterbox_nb.precision.kernels.vector import dot, float_at, mix, put, total

# No fast mathematics: the compiler would choose an order of sums, or a fused product, for each number of rows and for
# each thread's share of them, and another for each processor. What is summed is summed by `dot` and `total`.
_compiled = compiled()

F = np.float32
_LARGEST = F(32767)  # of 4,096 products of int8 and this, summed in 16 lanes, none passes an int32
_LOG2E, _LN2 = F(1.4426950408889634), F(0.6931471805599453)
_LOWEST, _HIGHEST = F(-87), F(88)
_UNSIGNED, _INFINITY = np.int32(0x7FFFFFFF), np.int32(0x7F800000)  # a float's bits but its sign; infinity's
_PATIENCE = 200  # looks at a counter, 50 ns each, before a thread lets others run
# Addresses in a layer's row of `Weights.layers`; a scale's is 0 where there are none.
QKV, QKV_SCALE, OUT, OUT_SCALE, GATE_UP, GATE_UP_SCALE, DOWN, DOWN_SCALE = range(8)


class Weights(NamedTuple):
    """Where the weights are.

    Args:
        layers: int64 `[L, 8]`, addresses.
        norms: float32 `[2 L + 1, D]`: before attention and before the feed-forward of each layer, and the last.
        head, head_scale: addresses.
    """

    layers: Any
    norms: Any
    head: int
    head_scale: int


class Cached(NamedTuple):
    """Where each row's keys and values are, int64 `[M]`: addresses, and bytes from layer to layer and head to head.

    A row without keys, at address 0, is not in use.
    """

    keys: Any
    values: Any
    layer: Any
    head: Any


class Work(NamedTuple):
    """What threads share, and what each has of its own (first axis: threads).

    Args:
        x: float32 `[M, D]`, the residual stream: the embeddings before a step.
        qkv, attended, hidden, up: float32 `[M, 3 D]`, `[M, D]`, `[M, F]`, `[M, F]`.
        logits: float32 `[M, V]`.
        cosine, sine: float32 `[T, W]`.
        positions: int64 `[M]`, where each row's new key and value go.
        normed, quantized, steps: float32 and int16 `[threads, M, max(D, F)]`, float32 `[threads, M]`.
        sums, scores, powers: float32, float32, int32 `[threads, ...]`.
        sync: int64 `[32]`: parts done, parts taken, steps begun, whether to stop; each in a cache line of its own.
    """

    x: Any
    qkv: Any
    attended: Any
    hidden: Any
    up: Any
    logits: Any
    cosine: Any
    sine: Any
    positions: Any
    normed: Any
    quantized: Any
    steps: Any
    sums: Any
    scores: Any
    powers: Any
    sync: Any


DONE, TAKEN, BEGUN, STOP = 0, 8, 16, 24  # in `Work.sync`

if sys.platform == "win32":

    @_compiled
    def _rest() -> None:
        pass

else:
    _sched_yield = types.ExternalFunction("sched_yield", types.int32())

    @_compiled
    def _rest() -> None:
        _sched_yield()


@_compiled
def _wait(address: int, wanted: int) -> None:
    looks = 0
    while glance(address) < wanted:
        looks += 1
        if looks > _PATIENCE:
            _rest()


@_compiled
def _claim(sync: Any, phase: int, parts: int) -> int:
    """A part of a phase that no other thread works on; -1 when there is none left.

    A phase is open once all parts of those before it are done, and is over with its own: a thread that the system does
    not run holds up nobody, unless it has a part.
    """
    done, taken = sync.ctypes.data + 8 * DONE, sync.ctypes.data + 8 * TAKEN
    _wait(done, phase * parts)
    while True:
        found = glance(taken)
        if found >= (phase + 1) * parts:
            return -1
        if take(taken, found):
            return found - phase * parts


@_compiled
def _share(count: int, block: int, part: int, parts: int) -> tuple[int, int]:
    """Which of `count` rows a part is: whole blocks, but for the last."""
    blocks = (count + block - 1) // block
    return min(count, blocks * part // parts * block), min(count, blocks * (part + 1) // parts * block)


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
def _below_highest(values: Any, powers: Any, count: int) -> None:
    """Subtracts the highest, found among the bits: integers compare in any order, and NaN hides nothing."""
    bits, highest = values.view(np.int32), np.int32(-0x80000000)
    for i in range(count):
        highest = max(highest, np.int32(bits[i] ^ (np.int32(bits[i] >> np.int32(31)) & _UNSIGNED)))
    powers[0] = highest if highest >= 0 else highest ^ _UNSIGNED
    found = powers.view(np.float32)[0]
    for i in range(count):
        values[i] -= found


@_compiled
def _normalize(x: Any, weight: Any, eps: Any, out: Any, width: int) -> None:
    """RMS norm of each row."""
    for m in range(len(x)):
        row = x[m].ctypes.data
        dot(x[m, :0], (0,), (0,), row, 0, row, 0, row, 0, out[m].ctypes.data, width)
        factor = F(1) / np.sqrt(out[m, 0] / F(width) + eps)
        for i in range(width):
            out[m, i] = x[m, i] * factor * weight[i]


@_compiled
def _prepare(kind: Any, x: Any, quantized: Any, steps: Any, width: int) -> tuple[int, int]:
    """Activations as the kind's `dot` takes them: an address, and bytes from row to row. int16 for int8."""
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
    return quantized.ctypes.data, quantized.strides[0]


@_compiled
def _multiply(
    kind: Any, block: Any, rows: Any, w: int, scale: int, first: int, begin: int, end: int, K: int,
    x: int, x_row: int, steps: Any, sums: Any, y: Any, add: bool,
) -> None:  # fmt: skip
    """`y[m, n] = dot(x[m], w[first + n])`, or added to it, for n from `begin` to `end`."""
    N, G, M = len(block), len(rows), len(y)
    shift = 2 if M >= 4 * G else 1 if M >= 2 * G else 0
    w_row, out = K * kind.itemsize, sums.ctypes.data
    n = begin
    while n < end:
        place = w + (first + n) * w_row
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
                    factor = float_at(scale, first + n + i) if kind.itemsize == 1 else F(1)
                    value = sums[g * count + i] * factor * steps[m]
                    y[m, n + i] = y[m, n + i] + value if add else value
        n += count


@_compiled
def _attend(kept: Any, width: Any, cached: Any, layer: int, work: Any, pair: int, last: int, thread: int) -> None:
    """One head of one row: turns its query and key, keeps key and value, and reads all that is kept.

    Keys are read, then values, then the keys of the next pair of row and head: each is asked for while the one before
    it is read.
    """
    heads = work.x.shape[1] // (len(width) * 16)
    row, head = pair // heads, pair % heads
    following = min(pair + 1, last - 1)
    W, D = len(width) * 16, work.x.shape[1]
    half, position = W // 2, work.positions[row]
    q, k, v = head * W, D + head * W, 2 * D + head * W
    query, new = work.normed[thread, row], work.qkv[row]
    place, stride = layer * cached.layer[row] + head * cached.head[row], W * kept.itemsize
    keys, values = cached.keys[row] + place, cached.values[row] + place
    row_next, head_next = following // heads, following % heads
    keys_next = cached.keys[row_next] + layer * cached.layer[row_next] + head_next * cached.head[row_next]
    factor = F(1) / np.sqrt(F(W))
    for i in range(W):
        other = i + half if i < half else i - half
        sign = F(-1) if i < half else F(1)
        c, s = work.cosine[position, i], work.sine[position, i]
        query[i] = (new[q + i] * c + sign * new[q + other] * s) * factor
        put(kept, keys + position * stride, i, new[k + i] * c + sign * new[k + other] * s)
        put(kept, values + position * stride, i, new[v + i])
    scores, count = work.scores[thread], position + 1
    at, asked, t = scores.ctypes.data, query.ctypes.data, 0
    while t + 4 <= count:
        dot(kept, (0, 0, 0, 0), (0,), keys + t * stride, stride, values + t * stride, 0, asked, 0, at + 4 * t, W)
        t += 4
    while t < count:
        dot(kept, (0,), (0,), keys + t * stride, stride, values + t * stride, 0, asked, 0, at + 4 * t, W)
        t += 1
    _below_highest(scores, work.powers[thread], count)
    exponentials(scores, work.powers[thread], count)
    whole = total(at, count)
    mixed = work.attended[row, q : q + W]
    mix(kept, width, values, stride, keys_next, at, count, mixed.ctypes.data)
    for i in range(W):
        mixed[i] /= whole


@_compiled
def _gate(hidden: Any, up: Any, begin: int, end: int, scratch: Any, powers: Any) -> None:
    """SiLU of the gate, times up, in place."""
    for m in range(len(hidden)):
        count = end - begin
        for i in range(count):
            scratch[i] = -hidden[m, begin + i]
        exponentials(scratch, powers, count)
        for i in range(count):
            hidden[m, begin + i] *= up[m, begin + i] / (F(1) + scratch[i])


@_compiled
def _linear(
    kind: Any, block: Any, rows: Any, w: int, scale: int, count: int, K: int, x: Any, norm: Any, eps: Any, y: Any,
    add: bool, work: Any, thread: int, phase: int, parts: int,
) -> int:  # fmt: skip
    """A phase: `y = x @ w.T`, or added to it, of x or of its RMS norm; gives the next phase."""
    quantized, steps, sums = work.quantized[thread], work.steps[thread], work.sums[thread]
    at, at_row = 0, 0
    part = _claim(work.sync, phase, parts)
    while part >= 0:
        if at == 0:
            if len(norm):
                _normalize(x, norm, eps, work.normed[thread], K)
                at, at_row = _prepare(kind, work.normed[thread], quantized, steps, K)
            else:
                at, at_row = _prepare(kind, x, quantized, steps, K)
        begin, end = _share(count, len(block), part, parts)
        _multiply(kind, block, rows, w, scale, 0, begin, end, K, at, at_row, steps, sums, y, add)
        arrive(work.sync.ctypes.data + 8 * DONE)
        part = _claim(work.sync, phase, parts)
    return phase + 1


@_compiled
def _gated(
    kind: Any, block: Any, rows: Any, w: int, scale: int, norm: Any, eps: Any, work: Any, thread: int, phase: int,
    parts: int,
) -> int:  # fmt: skip
    """A phase: the feed-forward's hidden values, SiLU of the gate times up; gives the next phase."""
    D, hidden = work.x.shape[1], work.hidden.shape[1]
    normed, quantized, steps, sums = work.normed[thread], work.quantized[thread], work.steps[thread], work.sums[thread]
    at, at_row = 0, 0
    part = _claim(work.sync, phase, parts)
    while part >= 0:
        if at == 0:
            _normalize(work.x, norm, eps, normed, D)
            at, at_row = _prepare(kind, normed, quantized, steps, D)
        begin, end = _share(hidden, len(block), part, parts)
        _multiply(kind, block, rows, w, scale, 0, begin, end, D, at, at_row, steps, sums, work.hidden, False)
        _multiply(kind, block, rows, w, scale, hidden, begin, end, D, at, at_row, steps, sums, work.up, False)
        _gate(work.hidden, work.up, begin, end, work.scores[thread], work.powers[thread])
        arrive(work.sync.ctypes.data + 8 * DONE)
        part = _claim(work.sync, phase, parts)
    return phase + 1


@_compiled
def _attention(kept: Any, width: Any, cached: Any, layer: int, work: Any, thread: int, phase: int, parts: int) -> int:
    """A phase: every head of every row in use; gives the next phase."""
    heads = work.x.shape[1] // (len(width) * 16)
    part = _claim(work.sync, phase, parts)
    while part >= 0:
        begin, end = _share(len(work.x) * heads, 1, part, parts)
        for pair in range(begin, end):
            if cached.keys[pair // heads]:
                _attend(kept, width, cached, layer, work, pair, end, thread)
        arrive(work.sync.ctypes.data + 8 * DONE)
        part = _claim(work.sync, phase, parts)
    return phase + 1


@_compiled
def step(
    kind: Any, last: Any, kept: Any, block: Any, rows: Any, width: Any,
    weights: Any, cached: Any, work: Any, eps: Any, thread: int, parts: int, phase: int,
) -> int:  # fmt: skip
    """What a thread finds to do of a step; it is done when this returns. Gives the next step's first phase.

    Args:
        kind, last, kept: how the layers' weights, the head's, and keys and values are stored.
        block, rows, width: tuples: rows of weights and of activations in one go, W in vectors of 16. M is a multiple of
            the second.
        parts: that a phase is divided into.
        phase: counts on from step to step.
    """
    D, hidden, plain = work.x.shape[1], work.hidden.shape[1], weights.norms[0, :0]
    for layer in range(len(weights.layers)):
        at = weights.layers[layer]
        norm = weights.norms[2 * layer]
        phase = _linear(
            kind, block, rows, at[QKV], at[QKV_SCALE], 3 * D, D, work.x, norm, eps, work.qkv, False,
            work, thread, phase, parts,
        )  # fmt: skip
        phase = _attention(kept, width, cached, layer, work, thread, phase, parts)
        phase = _linear(
            kind, block, rows, at[OUT], at[OUT_SCALE], D, D, work.attended, plain, eps, work.x, True,
            work, thread, phase, parts,
        )  # fmt: skip
        norm = weights.norms[2 * layer + 1]
        phase = _gated(kind, block, rows, at[GATE_UP], at[GATE_UP_SCALE], norm, eps, work, thread, phase, parts)
        phase = _linear(
            kind, block, rows, at[DOWN], at[DOWN_SCALE], D, hidden, work.hidden, plain, eps, work.x, True,
            work, thread, phase, parts,
        )  # fmt: skip
    phase = _linear(
        last, block, rows, weights.head, weights.head_scale, work.logits.shape[1], D, work.x, weights.norms[-1], eps,
        work.logits, False, work, thread, phase, parts,
    )  # fmt: skip
    _wait(work.sync.ctypes.data + 8 * DONE, phase * parts)
    return phase


@_compiled
def serve(
    kind: Any, last: Any, kept: Any, block: Any, rows: Any, width: Any,
    weights: Any, cached: Any, work: Any, eps: Any, thread: int, parts: int,
) -> None:  # fmt: skip
    """What a helping thread does until it is told to stop: what it finds to do of every step that is begun."""
    sync, begun, phase = work.sync.ctypes.data, 0, 0
    while True:
        begun += 1
        _wait(sync + 8 * BEGUN, begun)
        if glance(sync + 8 * STOP):
            return
        phase = step(kind, last, kept, block, rows, width, weights, cached, work, eps, thread, parts, phase)

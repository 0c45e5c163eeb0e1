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

from chatterbox_nb.engine.nets.products import below_highest, exponentials, multiply, normalize, prepare
from chatterbox_nb.precision.kernels import tiles
from chatterbox_nb.precision.kernels.emit import compiled
from chatterbox_nb.precision.kernels.shared import count_up, glance, take
from chatterbox_nb.precision.kernels.vector import dot, keep, mix, total

_compiled = compiled()

F = np.float32
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
        spread, counts, set_up: what tiles (AMX) work with: uint8 `[threads, ...]`, int32 `[threads, 32, 16]`, uint8
            `[threads, 2, 64]`.
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
    spread: Any
    counts: Any
    set_up: Any
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
def _together(tiled: Any, block: Any) -> int:
    """Rows of weights in one go."""
    return tiles.BLOCK if len(tiled) else len(block)


@_compiled
def _share(count: int, block: int, part: int, parts: int) -> tuple[int, int]:
    """Which of `count` rows a part is: whole blocks, but for the last."""
    blocks = (count + block - 1) // block
    return min(count, blocks * part // parts * block), min(count, blocks * (part + 1) // parts * block)


@_compiled
def _turn(x: Any, cosine: Any, sine: Any, factor: Any) -> None:
    """A head's query or key to its position, in place, times a factor."""
    half = len(x) // 2
    for i in range(half):
        first, second = x[i], x[half + i]
        x[i] = (first * cosine[i] - second * sine[i]) * factor
        x[half + i] = (second * cosine[half + i] + first * sine[half + i]) * factor


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
    new, position = work.qkv[row], work.positions[row]
    q, k, v = head * W, D + head * W, 2 * D + head * W
    place, stride = layer * cached.layer[row] + head * cached.head[row], W * kept.itemsize
    keys, values = cached.keys[row] + place, cached.values[row] + place
    row_next, head_next = following // heads, following % heads
    keys_next = cached.keys[row_next] + layer * cached.layer[row_next] + head_next * cached.head[row_next]
    query, key = new[q : q + W], new[k : k + W]
    _turn(query, work.cosine[position], work.sine[position], F(1) / np.sqrt(F(W)))
    _turn(key, work.cosine[position], work.sine[position], F(1))
    keep(kept, width, keys + position * stride, key.ctypes.data)
    keep(kept, width, values + position * stride, new[v:].ctypes.data)
    scores, count = work.scores[thread], position + 1
    at, asked, t = scores.ctypes.data, query.ctypes.data, 0
    while t + 4 <= count:
        dot(kept, (0, 0, 0, 0), (0,), keys + t * stride, stride, values + t * stride, 0, asked, 0, at + 4 * t, W)
        t += 4
    while t < count:
        dot(kept, (0,), (0,), keys + t * stride, stride, values + t * stride, 0, asked, 0, at + 4 * t, W)
        t += 1
    below_highest(scores, work.powers[thread], count)
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
    kind: Any, tiled: Any, block: Any, rows: Any, w: int, scale: int, count: int, K: int, x: Any, norm: Any, eps: Any,
    y: Any, add: bool, work: Any, thread: int, phase: int, parts: int,
) -> int:  # fmt: skip
    """A phase: `y = x @ w.T`, or added to it, of x or of its RMS norm; gives the next phase."""
    at, at_row = 0, 0
    part = _claim(work.sync, phase, parts)
    while part >= 0:
        if at == 0:
            if len(norm):
                normalize(x, norm, eps, work.normed[thread], K)
                at, at_row = prepare(kind, tiled, work.normed[thread], work, thread, K)
            else:
                at, at_row = prepare(kind, tiled, x, work, thread, K)
        begin, end = _share(count, _together(tiled, block), part, parts)
        multiply(kind, tiled, block, rows, w, scale, 0, begin, end, K, at, at_row, work, thread, y, add)
        count_up(work.sync.ctypes.data + 8 * DONE)
        part = _claim(work.sync, phase, parts)
    return phase + 1


@_compiled
def _gated(
    kind: Any, tiled: Any, block: Any, rows: Any, w: int, scale: int, norm: Any, eps: Any, work: Any, thread: int,
    phase: int, parts: int,
) -> int:  # fmt: skip
    """A phase: the feed-forward's hidden values, SiLU of the gate times up; gives the next phase."""
    D, hidden = work.x.shape[1], work.hidden.shape[1]
    normed = work.normed[thread]
    at, at_row = 0, 0
    part = _claim(work.sync, phase, parts)
    while part >= 0:
        if at == 0:
            normalize(work.x, norm, eps, normed, D)
            at, at_row = prepare(kind, tiled, normed, work, thread, D)
        begin, end = _share(hidden, _together(tiled, block), part, parts)
        multiply(kind, tiled, block, rows, w, scale, 0, begin, end, D, at, at_row, work, thread, work.hidden, False)
        multiply(kind, tiled, block, rows, w, scale, hidden, begin, end, D, at, at_row, work, thread, work.up, False)
        _gate(work.hidden, work.up, begin, end, work.scores[thread], work.powers[thread])
        count_up(work.sync.ctypes.data + 8 * DONE)
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
        count_up(work.sync.ctypes.data + 8 * DONE)
        part = _claim(work.sync, phase, parts)
    return phase + 1


@_compiled
def step(
    kind: Any, last: Any, kept: Any, tiled: Any, block: Any, rows: Any, width: Any,
    weights: Any, cached: Any, work: Any, eps: Any, thread: int, parts: int, phase: int,
) -> int:  # fmt: skip
    """What a thread finds to do of a step; it is done when this returns. Gives the next step's first phase.

    Args:
        kind, last, kept: how the layers' weights, the head's, and keys and values are stored.
        tiled: an empty tuple, or one of length 1 if int8 is multiplied in tiles; M is a multiple of 8 then.
        block, rows, width: tuples: rows of weights and of activations in one go, W in vectors of 16. M is a multiple of
            the second.
        parts: that a phase is divided into.
        phase: counts on from step to step.
    """
    D, hidden, plain = work.x.shape[1], work.hidden.shape[1], weights.norms[0, :0]
    set_up = work.set_up[thread]
    if len(tiled):
        tiles.begin(set_up[0].ctypes.data, set_up[1].ctypes.data)
    for layer in range(len(weights.layers)):
        at = weights.layers[layer]
        norm = weights.norms[2 * layer]
        phase = _linear(
            kind, tiled, block, rows, at[QKV], at[QKV_SCALE], 3 * D, D, work.x, norm, eps, work.qkv, False,
            work, thread, phase, parts,
        )  # fmt: skip
        phase = _attention(kept, width, cached, layer, work, thread, phase, parts)
        phase = _linear(
            kind, tiled, block, rows, at[OUT], at[OUT_SCALE], D, D, work.attended, plain, eps, work.x, True,
            work, thread, phase, parts,
        )  # fmt: skip
        norm = weights.norms[2 * layer + 1]
        phase = _gated(kind, tiled, block, rows, at[GATE_UP], at[GATE_UP_SCALE], norm, eps, work, thread, phase, parts)
        phase = _linear(
            kind, tiled, block, rows, at[DOWN], at[DOWN_SCALE], D, hidden, work.hidden, plain, eps, work.x, True,
            work, thread, phase, parts,
        )  # fmt: skip
    phase = _linear(
        last, tiled, block, rows, weights.head, weights.head_scale, work.logits.shape[1], D, work.x, weights.norms[-1],
        eps, work.logits, False, work, thread, phase, parts,
    )  # fmt: skip
    if len(tiled):
        tiles.end(set_up[1].ctypes.data)
    _wait(work.sync.ctypes.data + 8 * DONE, phase * parts)
    return phase


@_compiled
def serve(
    kind: Any, last: Any, kept: Any, tiled: Any, block: Any, rows: Any, width: Any,
    weights: Any, cached: Any, work: Any, eps: Any, thread: int, parts: int,
) -> None:  # fmt: skip
    """What a helping thread does until it is told to stop: what it finds to do of every step that is begun."""
    sync, begun, phase = work.sync.ctypes.data, 0, 0
    while True:
        begun += 1
        _wait(sync + 8 * BEGUN, begun)
        if glance(sync + 8 * STOP):
            return
        phase = step(kind, last, kept, tiled, block, rows, width, weights, cached, work, eps, thread, parts, phase)

"""The phases of a compiled step (`step.py`), each in parts that are taken by whichever thread is there."""

from __future__ import annotations

import sys
from typing import Any

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
_TANH, _CUBIC = F(-1.5957691216057308), F(0.044715)  # GELU's: minus twice the root of 2 / pi

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
def wait(address: int, wanted: int) -> None:
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
    wait(done, phase * parts)
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
def gelu(hidden: Any, bias: Any, begin: int, end: int, scratch: Any, powers: Any) -> None:
    """Adds a bias, then GELU as tanh approximates it, in place: (1 + tanh(u)) / 2 is 1 / (1 + exp(-2 u))."""
    count = end - begin
    for m in range(len(hidden)):
        for i in range(count):
            x = hidden[m, begin + i] + bias[begin + i]
            hidden[m, begin + i] = x
            scratch[i] = _TANH * (x + _CUBIC * x * x * x)
        exponentials(scratch, powers, count)
        for i in range(count):
            hidden[m, begin + i] /= F(1) + scratch[i]


@_compiled
def _shift(y: Any, bias: Any, begin: int, end: int) -> None:
    """Adds a bias, in place."""
    for m in range(len(y)):
        for n in range(begin, end):
            y[m, n] += bias[n]


@_compiled
def linear(
    kind: Any, tiled: Any, block: Any, rows: Any, w: int, scale: int, bias: Any, count: int, K: int, x: Any, norm: Any,
    eps: Any, y: Any, work: Any, thread: int, phase: int, parts: int,
) -> int:  # fmt: skip
    """A phase: `y = normalized x @ w.T + bias`, or without a norm that of x, added to y; gives the next phase.

    Without a norm or a bias, those are of length 0.
    """
    add, at, at_row = len(norm) == 0, 0, 0
    part = _claim(work.sync, phase, parts)
    while part >= 0:
        if at == 0:
            if not add:
                normalize(x, norm, eps, work.normed[thread], work.sums[thread], K)
                at, at_row = prepare(kind, tiled, work.normed[thread], work, thread, K)
            else:
                at, at_row = prepare(kind, tiled, x, work, thread, K)
        begin, end = _share(count, _together(tiled, block), part, parts)
        multiply(kind, tiled, block, rows, w, scale, begin, end, K, at, at_row, work, thread, y, add)
        if len(bias):
            _shift(y, bias, begin, end)
        count_up(work.sync.ctypes.data + 8 * DONE)
        part = _claim(work.sync, phase, parts)
    return phase + 1


@_compiled
def hidden(
    kind: Any, tiled: Any, gated: Any, block: Any, rows: Any, w: int, scale: int, bias: Any, norm: Any, eps: Any,
    work: Any, thread: int, phase: int, parts: int,
) -> int:  # fmt: skip
    """A phase: the feed-forward's hidden values, SiLU of the gate times up, or GELU; gives the next phase."""
    D, width = work.x.shape[1], work.hidden.shape[1]
    up, up_scale = w + width * D * kind.itemsize, scale + 4 * width
    add = len(norm) == 0  # it is not; of a literal numba would compile another `multiply`
    normed, scratch, powers = work.normed[thread], work.scores[thread], work.powers[thread]
    at, at_row = 0, 0
    part = _claim(work.sync, phase, parts)
    while part >= 0:
        if at == 0:
            normalize(work.x, norm, eps, normed, work.sums[thread], D)
            at, at_row = prepare(kind, tiled, normed, work, thread, D)
        begin, end = _share(width, _together(tiled, block), part, parts)
        multiply(kind, tiled, block, rows, w, scale, begin, end, D, at, at_row, work, thread, work.hidden, add)
        if len(gated):
            multiply(kind, tiled, block, rows, up, up_scale, begin, end, D, at, at_row, work, thread, work.up, add)
            _gate(work.hidden, work.up, begin, end, scratch, powers)
        else:
            gelu(work.hidden, bias, begin, end, scratch, powers)
        count_up(work.sync.ctypes.data + 8 * DONE)
        part = _claim(work.sync, phase, parts)
    return phase + 1


@_compiled
def attention(kept: Any, width: Any, cached: Any, layer: int, work: Any, thread: int, phase: int, parts: int) -> int:
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

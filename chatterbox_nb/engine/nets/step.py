"""One position of T3 through all its layers, compiled: what `llama.Llama` or `gpt2.GPT2` and the head compute.

In torch a step is 1,400 calls, each with its own threads' start; here it is one, in five phases a layer (`phases.py`).
Shapes as in `llama.py`; M rows, each at a position of its own. Activations are float32; for int8 weights they are
scaled, a row at a time, to int16, which is finer than bfloat16 by a factor of 100.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from chatterbox_nb.engine.nets.phases import BEGUN, DONE, STOP, attention, hidden, linear, wait
from chatterbox_nb.precision.kernels import tiles
from chatterbox_nb.precision.kernels.emit import compiled
from chatterbox_nb.precision.kernels.shared import glance

_compiled = compiled()

# Addresses in a layer's row of `Weights.layers`; a scale's is 0 where there are none. UP is gate and up where both are.
QKV, QKV_SCALE, OUT, OUT_SCALE, UP, UP_SCALE, DOWN, DOWN_SCALE = range(8)


class Weights(NamedTuple):
    """Where the weights are.

    Args:
        layers: int64 `[L, 8]`, addresses.
        norms: float32 `[2 L + 1, D]`: before attention and before the feed-forward of each layer, and the last. Layer
            norms are `[2 L + 1, 2, D]`, weights and biases.
        biases: float32 `[L, 5 D + F]`, of qkv, out, up and down; `[L, 0]` where there are none.
        head, head_scale: addresses.
        head_bias: float32 `[V]` or `[0]`.
    """

    layers: Any
    norms: Any
    biases: Any
    head: int
    head_scale: int
    head_bias: Any


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
        qkv, attended, hidden, up: float32 `[M, 3 D]`, `[M, D]`, `[M, F]`, `[M, F]`; without a gate up is `[M, 0]`.
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


@_compiled
def step(
    kind: Any, last: Any, kept: Any, tiled: Any, gated: Any, block: Any, rows: Any, width: Any,
    weights: Any, cached: Any, work: Any, eps: Any, thread: int, parts: int, phase: int,
) -> int:  # fmt: skip
    """What a thread finds to do: thread 0 of one step, a helper of every step that is begun until it is told to stop.

    Thread 0's is done when this returns; it gives the next step's first phase. One function for both, or numba would
    compile all of it twice.

    Args:
        kind, last, kept: how the layers' weights, the head's, and keys and values are stored.
        tiled: an empty tuple, or one of length 1 if int8 is multiplied in tiles; M is a multiple of 8 then.
        gated: a tuple of length 1 if the feed-forward has a gate, or an empty one.
        block, rows, width: tuples: rows of weights and of activations in one go, W in vectors of 16. M is a multiple of
            the second.
        parts: that a phase is divided into.
        phase: counts on from step to step.
    """
    D, F, V = work.x.shape[1], work.hidden.shape[1], work.logits.shape[1]
    norm, plain, set_up = weights.norms[-1], weights.norms[0][:0], work.set_up[thread]
    sync, begun = work.sync.ctypes.data, 0
    while True:
        if thread > 0:
            begun += 1
            wait(sync + 8 * BEGUN, begun)
            if glance(sync + 8 * STOP):
                return phase
        if len(tiled):
            tiles.begin(set_up[0].ctypes.data, set_up[1].ctypes.data)
        for layer in range(len(weights.layers)):
            at, bias, norms = weights.layers[layer], weights.biases[layer], weights.norms[2 * layer :]
            phase = linear(
                kind, tiled, block, rows, at[QKV], at[QKV_SCALE], bias[: 3 * D], 3 * D, D, work.x, norms[0], eps,
                work.qkv, work, thread, phase, parts,
            )  # fmt: skip
            phase = attention(kept, width, cached, layer, work, thread, phase, parts)
            phase = linear(
                kind, tiled, block, rows, at[OUT], at[OUT_SCALE], bias[3 * D : 4 * D], D, D, work.attended, plain, eps,
                work.x, work, thread, phase, parts,
            )  # fmt: skip
            phase = hidden(
                kind, tiled, gated, block, rows, at[UP], at[UP_SCALE], bias[4 * D : 4 * D + F], norms[1], eps,
                work, thread, phase, parts,
            )  # fmt: skip
            phase = linear(
                kind, tiled, block, rows, at[DOWN], at[DOWN_SCALE], bias[4 * D + F :], D, F, work.hidden, plain, eps,
                work.x, work, thread, phase, parts,
            )  # fmt: skip
        phase = linear(
            last, tiled, block, rows, weights.head, weights.head_scale, weights.head_bias, V, D, work.x, norm, eps,
            work.logits, work, thread, phase, parts,
        )  # fmt: skip
        if len(tiled):
            tiles.end(set_up[1].ctypes.data)
        wait(sync + 8 * DONE, phase * parts)
        if thread == 0:
            return phase

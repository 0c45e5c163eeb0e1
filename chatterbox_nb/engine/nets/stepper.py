"""Runs the compiled step (`step.py`) for a T3 on a CPU: where its weights are, its helping threads, its rows."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from chatterbox_nb.checkpoint.spec import T3Dims
from chatterbox_nb.engine.nets import phases, step
from chatterbox_nb.engine.nets.llama import Cache
from chatterbox_nb.engine.nets.t3 import T3
from chatterbox_nb.precision.kernels import tiles, vector
from chatterbox_nb.precision.kernels.emit import LANES

_LINE = 8  # int64 in a cache line
_PARTS = 4  # of a phase, for each thread
# Rows of weights and of activations that are multiplied in one go: as many sums as fit the registers.
_BLOCK, _GROUPS = 4, (1, 2, 4)
_FEW = 4  # rows of activations that tiles (AMX) are no faster for


@dataclass(frozen=True)
class Place:
    """A row of a step: whose keys and values it reads and adds to, and at which position.

    Args:
        cache: on the CPU, `[layers, rows, H, T, W]`.
        row: of the cache.
    """

    cache: Cache
    row: int
    position: int


def kept_as(t3: T3) -> torch.dtype:
    """How the step stores keys and values: for int8 in float16, which halves what is read, else as the weights."""
    down: Any = t3.backbone.layers[0].ffn.down  # type: ignore[union-attr]
    return torch.float16 if _storage(down) == "int8" else down.weight.dtype


def _storage(linear: Any) -> str:
    weight = getattr(linear, "weight_int8", None)
    return "int8" if weight is not None else str(linear.weight.dtype).removeprefix("torch.")


def _addresses(linear: Any) -> tuple[int, int]:
    """Of a layer's weights and scales."""
    if _storage(linear) == "int8":
        return linear.weight_int8.data_ptr(), linear.weight_scale.data_ptr()
    return linear.weight.data_ptr(), 0


def _weights(t3: T3) -> step.Weights:
    layers: Any = t3.backbone.layers
    linears = [
        (each.attention.qkv, each.attention.out, each.ffn.up if t3.dims.gpt2 else each.ffn.gate_up, each.ffn.down)
        for each in layers
    ]
    norms = [norm for each in layers for norm in (each.attention_norm, each.ffn_norm)] + [t3.backbone.norm]
    table = [[address for linear in layer for address in _addresses(linear)] for layer in linears]
    if t3.dims.gpt2:
        normed = torch.stack([torch.stack([norm.weight, norm.bias]) for norm in norms])
        biases = torch.stack([torch.cat([linear.bias for linear in layer]) for layer in linears])
    else:
        normed = torch.stack([norm.weight for norm in norms])
        biases = torch.empty(len(linears), 0)
    last = torch.empty(0) if t3.head.bias is None else t3.head.bias
    head, head_scale = _addresses(t3.head)
    return step.Weights(np.array(table, np.int64), _floats(normed), _floats(biases), head, head_scale, _floats(last))


def _floats(found: Tensor) -> Any:
    return found.detach().float().numpy()


class Stepper:
    """Steps of any number of rows. A context: its helping threads end with it, and with `rest`.

    Args:
        t3: on the CPU; its linear layers plain int8, or all of one dtype. Its weights must stay where they are.
        threads: how many work on a step, the calling one among them.

    `tiles` tells whether more than four rows of int8 are multiplied in tiles (AMX).
    """

    def __init__(self, t3: T3, threads: int) -> None:
        self.dims, self.threads = t3.dims, threads
        self._weights = _weights(t3)
        down: Any = t3.backbone.layers[0].ffn.down  # type: ignore[union-attr]
        kinds = (_storage(down), _storage(t3.head), str(kept_as(t3)).removeprefix("torch."))
        self._kinds = tuple(map(vector.kind, kinds))
        self.tiles = kinds[0] == "int8" and t3.dims.width % 64 == t3.dims.ffn % 64 == 0 and tiles.available("int8")
        self._rows = self._longest = 0
        self._helpers: list[threading.Thread] = []
        self._phase = 0
        self._parts = 1 if threads == 1 else _PARTS * threads

    def __enter__(self) -> Stepper:
        return self

    def __exit__(self, *_: object) -> None:
        self.rest()

    def rest(self) -> None:
        """Lets the helping threads go, until the next step."""
        if self._helpers:
            sync = self._work.sync
            sync[phases.STOP] = 1
            sync[phases.BEGUN] += 1
            for helper in self._helpers:
                helper.join()
        self._helpers, self._rows = [], 0

    def __call__(self, x: Tensor, places: Sequence[Place]) -> Tensor:
        """One new position of each row.

        Args:
            x: embeddings `[M, D]`.
            places: M of them; keys and values of positions before theirs are there.

        Returns:
            logits `[M, V]`, float32, good until the next call.
        """
        tiled = self.tiles and len(places) > _FEW
        group = next((size for size in _GROUPS if size >= len(places)), _GROUPS[-1])
        together = tiles.ROWS if tiled else group
        rows = -(-len(places) // together) * together
        longest = max(place.cache.length for place in places)
        if rows != self._rows or longest > self._longest:
            self._begin(rows, group, longest, tiled)
        work, cached = self._work, self._cached
        cached.keys[len(places) :] = 0
        for index, place in enumerate(places):
            keys, values = place.cache.keys[0, place.row], place.cache.values[0, place.row]
            cached.keys[index], cached.values[index] = keys.data_ptr(), values.data_ptr()
            cached.layer[index] = place.cache.keys.stride(0) * keys.element_size()
            cached.head[index] = keys.stride(0) * keys.element_size()
            work.positions[index] = place.position
        work.x[: len(places)] = x.float().numpy()
        work.sync[phases.BEGUN] += 1
        self._phase = step.step(*self._arguments, 0, self._parts, self._phase)
        return torch.from_numpy(work.logits)[: len(places)]

    def _begin(self, rows: int, group: int, longest: int, tiled: bool) -> None:
        """Work space for so many rows, and the helping threads."""
        self.rest()
        self._rows, self._longest, self._phase = rows, longest, 0
        self._cached = step.Cached(*(np.zeros(rows, np.int64) for _ in range(4)))
        self._work = _work(self.dims, rows, self.threads, longest, tiled)
        counts = (0,) * _BLOCK, (0,) * group, (0,) * (self.dims.head_width // LANES)
        eps = np.float32(self.dims.norm_eps)
        flags = (0,) * tiled, (0,) * (not self.dims.gpt2)
        self._arguments = (*self._kinds, *flags, *counts, self._weights, self._cached, self._work, eps)
        self._helpers = [
            threading.Thread(target=step.step, args=(*self._arguments, index, self._parts, 0), daemon=True)
            for index in range(1, self.threads)
        ]
        for helper in self._helpers:
            helper.start()


def _work(dims: T3Dims, rows: int, threads: int, longest: int, tiled: bool) -> step.Work:
    def floats(*shape: int) -> Any:
        return np.zeros(shape, np.float32)

    cosine, sine = Cache.tables(dims, longest)
    D, F, widest = dims.width, dims.ffn, max(dims.width, dims.ffn)
    scratch = max(longest, F)
    return step.Work(
        x=floats(rows, D),
        qkv=floats(rows, 3 * D),
        attended=floats(rows, D),
        hidden=floats(rows, F),
        up=floats(rows, 0 if dims.gpt2 else F),
        logits=floats(rows, dims.speech_vocab),
        cosine=cosine.numpy(),
        sine=sine.numpy(),
        positions=np.zeros(rows, np.int64),
        normed=floats(threads, rows, widest),
        quantized=np.zeros((threads, rows, widest), np.int16),
        steps=floats(threads, rows),
        spread=np.zeros((threads, rows * 2 * widest if tiled else 0), np.uint8),
        counts=np.zeros((threads, tiles.BLOCK, tiles.SIDE), np.int32),
        set_up=np.stack([np.stack([tiles.setup(), tiles.setup()])] * threads),
        sums=floats(threads, _BLOCK * _GROUPS[-1]),
        scores=floats(threads, scratch),
        powers=np.zeros((threads, scratch), np.int32),
        sync=np.zeros(4 * _LINE, np.int64),
    )

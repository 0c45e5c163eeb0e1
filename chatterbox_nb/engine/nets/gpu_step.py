"""T3's step at each token on a GPU: five kernels a layer, all buffers where they stay, nothing read back.

Rows are the lines' (chunks that are decoded side by side), one each, or two with guidance. Activations and sums are
float32, weights as they are stored, keys and values in the dtype T3 computes in. Nothing is allocated in a step, so
that it can be captured as a CUDA graph; `Room` is what a graph's addresses are in.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from chatterbox_nb.checkpoint.spec import T3Dims
from chatterbox_nb.engine.nets.gpu_attention import Parts, attend
from chatterbox_nb.engine.nets.gpu_draw import Lines, Table, draw
from chatterbox_nb.engine.nets.llama import Cache
from chatterbox_nb.engine.nets.t3 import T3
from chatterbox_nb.precision.kernels.rows import Matrix, Norm, multiply


@dataclass(frozen=True)
class Room:
    """Everything that steps of L lines and T positions write to, M rows of it.

    Args:
        cache: keys and values `[layers, M, H, T, W]`; its tables are float32.
        x, attended: `[M, D]`; qkv `[M, 3 D]`; hidden `[M, F]`; logits `[M, V]`: float32.
    """

    lines: Lines
    cache: Cache
    parts: Parts
    x: Tensor
    qkv: Tensor
    attended: Tensor
    hidden: Tensor
    logits: Tensor

    @property
    def size(self) -> int:
        """How many lines there is room for."""
        return len(self.lines.positions)

    @property
    def rows_a_line(self) -> int:
        return len(self.x) // self.size

    @property
    def length(self) -> int:
        """How many positions."""
        return self.cache.length

    @classmethod
    def empty(cls, dims: T3Dims, size: int, rows_a_line: int, length: int, t3: T3) -> Room:
        head, rows = t3.backbone.norm.weight, size * rows_a_line

        def floats(width: int) -> Tensor:
            return torch.zeros(rows, width, device=head.device)

        cache = Cache.empty(dims, rows, length, head.device, head.dtype)
        cosine, sine = Cache.tables(dims, length)
        return cls(
            Lines.empty(size, dims.speech_vocab, head.device),
            Cache(cache.keys, cache.values, cosine.to(head.device), sine.to(head.device)),
            Parts.empty(rows, dims.heads, dims.head_width, length, head.device),
            floats(dims.width),
            floats(3 * dims.width),
            floats(dims.width),
            floats(dims.ffn),
            floats(dims.speech_vocab),
        )

    def of(self, line: int) -> Cache:
        """A line's part of the cache, with tables to read its text by."""
        rows = slice(line * self.rows_a_line, (line + 1) * self.rows_a_line)
        dtype = self.cache.keys.dtype
        return Cache(
            self.cache.keys[:, rows], self.cache.values[:, rows], self.cache.cosine.to(dtype), self.cache.sine.to(dtype)
        )

    def longer(self, dims: T3Dims, length: int, t3: T3) -> Room:
        """The same lines with room for more positions."""
        grown, here = Room.empty(dims, self.size, self.rows_a_line, length, t3), self.length
        grown.cache.keys[:, :, :, :here], grown.cache.values[:, :, :, :here] = self.cache.keys, self.cache.values
        for field in fields(Lines):
            getattr(grown.lines, field.name).copy_(getattr(self.lines, field.name))
        grown.logits.copy_(self.logits)
        return grown


class GpuStep:
    """Steps of a T3, whose weights must stay where they are.

    Args:
        t3: on a GPU; on a CPU under `TRITON_INTERPRET=1`. Norms, biases and what comes after `up` are its backbone's.

    `tiled` tells whether many rows are multiplied by tensor cores.
    """

    def __init__(self, t3: T3) -> None:
        self.dims, self.tiled = t3.dims, has_tensor_cores(t3.backbone.norm.weight.device)
        layers: Any = t3.backbone.layers
        self._layers = [
            (
                Norm.of(each.attention_norm),
                Matrix.of(each.attention.qkv),
                Matrix.of(each.attention.out),
                Norm.of(each.ffn_norm),
                Matrix.of(each.ffn.up if t3.dims.gpt2 else each.ffn.gate_up),
                Matrix.of(each.ffn.down),
            )
            for each in layers
        ]
        self._activation = {"gelu": True} if t3.dims.gpt2 else {"gated": True}
        self._norm, self._head = Norm.of(t3.backbone.norm), Matrix.of(t3.head)
        self._tokens, self._places = Table.of(t3.speech_embedding), Table.of(t3.places)

    def draw(self, room: Room, lines: int) -> None:
        """A token of each of the first lines, from their logits, and its embedding."""
        rows = lines * room.rows_a_line
        draw(room.logits[:rows], room.lines.first(lines), room.x[:rows], self._tokens, self._places, self.dims)

    def layers(self, room: Room, lines: int, count: int | None = None) -> None:
        """What was drawn through the layers, or the first few of them, into `x`."""
        rows = lines * room.rows_a_line
        x, qkv, attended, hidden = room.x[:rows], room.qkv[:rows], room.attended[:rows], room.hidden[:rows]
        cache, positions = room.cache, room.lines.positions[:lines]
        for index, (first, in_, out, second, up, down) in enumerate(self._layers[:count]):
            multiply(x, in_, qkv, norm=first, tiled=self.tiled)
            attend(
                qkv, cache.cosine, cache.sine, positions, cache.keys[index], cache.values[index], room.parts, attended,
                room.rows_a_line,
            )  # fmt: skip
            multiply(attended, out, x, add=True, tiled=self.tiled)
            multiply(x, up, hidden, norm=second, tiled=self.tiled, **self._activation)
            multiply(hidden, down, x, add=True, tiled=self.tiled)

    def head(self, room: Room, lines: int) -> None:
        """`x` to logits."""
        rows = lines * room.rows_a_line
        multiply(room.x[:rows], self._head, room.logits[:rows], norm=self._norm, tiled=self.tiled)

    def __call__(self, room: Room, lines: int) -> None:
        """One more token of each of the first lines."""
        self.draw(room, lines)
        self.layers(room, lines)
        self.head(room, lines)


def has_tensor_cores(device: torch.device) -> bool:
    """Whether Triton uses a GPU's: from capability 8.0. What runs on a CPU is interpreted."""
    return device.type != "cuda" or torch.cuda.get_device_capability(device) >= (8, 0)

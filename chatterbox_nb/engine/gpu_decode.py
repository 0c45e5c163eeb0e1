"""The decode loop on a GPU: tokens are drawn there, and looked at every few of them.

Steps are launched ahead; while the GPU works, the CPU draws the noise of the next token, so that a seed means what it
means on a CPU. Chunks have a slot each in one `Room`; a graph is recorded for each number of slots in use.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from chatterbox_nb.engine import finite, gpu_check
from chatterbox_nb.engine.decode import Line, Prefix, extent
from chatterbox_nb.engine.graphs import Recorder
from chatterbox_nb.engine.nets import gpu_draw
from chatterbox_nb.engine.nets.gpu_step import GpuStep, Room
from chatterbox_nb.engine.nets.t3 import T3
from chatterbox_nb.engine.noise import Noise
from chatterbox_nb.engine.sampling import Sampling
from chatterbox_nb.events import CancelToken
from chatterbox_nb.precision.exact import exact
from chatterbox_nb.precision.kernels import rows as rows_kernel

BUCKET = 256  # positions that a room grows by
_EVERY = 8  # tokens between two looks at what was drawn
_AHEAD = 160  # tokens that a line has room for at first


class Runner:
    """Steps of a T3 on a GPU: one room at a time, and its graphs. Between takes there is none.

    Args:
        t3: loaded.
        recorder: of the model.

    `problem` tells why many rows are not multiplied by tensor cores; empty where they are.
    """

    def __init__(self, t3: T3, recorder: Recorder) -> None:
        self.t3, self.recorder = t3, recorder
        self.step = GpuStep(t3)
        self.problem = ""
        self.room: Room | None = None
        self._graphs: dict[int, Callable[[], None]] = {}
        self._checked: set[int] = set()

    def make_room(self, size: int, rows_a_line: int, length: int) -> Room:
        """A room for so many lines at least, each of which has ended."""
        room = self.room
        if room is None or room.size < size or room.rows_a_line != rows_a_line or room.length < length:
            self.clear()
            room = self.room = Room.empty(self.t3.dims, size, rows_a_line, _rounded(length), self.t3)
        room.lines.state[:, gpu_draw.ENDED] = 1
        return room

    def grow(self, length: int) -> Room:
        """The room, with so many positions and what is in it."""
        assert self.room is not None
        self._graphs.clear()
        self.room = self.room.longer(self.t3.dims, _rounded(length), self.t3)
        return self.room

    def clear(self) -> None:
        """Gives the room and its graphs back."""
        self._graphs.clear()
        self.room = None

    def __call__(self, lines: int) -> None:
        """One more token of each of the first lines."""
        room = self.room
        assert room is not None
        graph = self._graphs.get(lines)
        if graph is not None:
            graph()
            return
        self._check_tiles(room, lines)
        self.step(room, lines)  # what a graph launches has to have run before
        self._graphs[lines] = self.recorder.recorded(lambda: self.step(room, lines))

    def _check_tiles(self, room: Room, lines: int) -> None:
        """The kernel for many rows is checked when it is first needed, and left where it fails."""
        rows = lines * room.rows_a_line
        if self.step.tiled and rows >= rows_kernel.TILED_ROWS and rows not in self._checked:
            self._checked.add(rows)
            self.problem = gpu_check.problem(self.t3, self.step, lines, room.rows_a_line)
            self.step.tiled = not self.problem


def _rounded(length: int) -> int:
    return -(-length // BUCKET) * BUCKET


@dataclass(eq=False, kw_only=True)
class GpuLine(Line):
    """A line, with its place in the room."""

    slot: int


class GpuDecoding:
    """`decode.Decoding` on a GPU: the same lines, several tokens of each at a time.

    Args:
        runner: of the model; it is used by one take at a time.
        at_once: lines that are decoded side by side, at the most.
    """

    def __init__(
        self, runner: Runner, prefix: Prefix, options: Sampling, cancel: CancelToken | None = None, at_once: int = 1
    ) -> None:
        self.runner, self.prefix, self.options, self.cancel = runner, prefix, options, cancel
        self.lines: list[GpuLine] = []
        self._at_once = triton.next_power_of_2(at_once)
        self._rows = 2 if options.cfg_weight > 0 else 1
        self._pinned: Tensor | None = None

    def __enter__(self) -> GpuDecoding:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Gives back what decoding takes: nothing will be begun any more."""
        self.runner.clear()

    def rest(self) -> None:
        """Nothing waits."""

    def begin(self, text: Tensor, noise: Noise, budget: int, limit: int) -> GpuLine:
        """Reads a chunk's text into a free slot. Args and errors: as of `decode.decode`."""
        t3, dims = self.runner.t3, self.runner.t3.dims
        start, wanted, ends = extent(self.prefix, text, budget, limit, dims)
        slot = min(set(range(self._at_once)) - {line.slot for line in self.lines})
        room = self._room(start + min(wanted, _AHEAD))
        line = GpuLine(noise=noise, start=start, wanted=wanted, ends=ends, slot=slot)
        cache = room.of(slot)
        cache.keys[:, :, :, : self.prefix.length] = self.prefix.keys
        cache.values[:, :, :, : self.prefix.length] = self.prefix.values
        rows = slice(slot * self._rows, (slot + 1) * self._rows)
        with exact(room.logits.device):
            room.logits[rows] = t3.logits(t3.text(text, self._rows == 2, self.prefix.length), cache, self.prefix.length)
        seen, state = room.lines.seen[slot], room.lines.state[slot]
        seen.zero_()
        seen[dims.start_speech] = 1
        state[: gpu_draw.TOKENS] = torch.tensor([start, wanted, 0, 0, 0], dtype=torch.int32)
        room.lines.options.copy_(gpu_draw.options_of(self.options))
        self.lines.append(line)
        return line

    def _room(self, length: int) -> Room:
        runner = self.runner
        if not self.lines:
            return runner.make_room(self._at_once, self._rows, length)
        assert runner.room is not None
        return runner.room if runner.room.length >= length else runner.grow(length)

    def advance(self) -> None:
        """A few more tokens of each line; those that ended are no longer in `lines`."""
        if self.cancel is not None:
            self.cancel.check()
        # A noise that is drawn in the order of its stages must not be drawn for tokens after the last.
        every = 1 if any(line.noise.in_order for line in self.lines) else _EVERY
        every = min(every, max(line.wanted - len(line.tokens) for line in self.lines))
        room = self._room(max(line.start + len(line.tokens) for line in self.lines) + every)
        slots = triton.next_power_of_2(1 + max(line.slot for line in self.lines))
        for token in range(every):
            self._bring_noise(room, token)
            self.runner(slots)
        self._look(room)

    def _bring_noise(self, room: Room, token: int) -> None:
        """Noise for a token of each line, into the room, by way of memory that the device reads by itself."""
        if self.options.temperature == 0.0:
            return
        vocabulary, on_gpu = room.lines.noise.shape[1], room.lines.noise.is_cuda
        if self._pinned is None:
            self._pinned = torch.ones(_EVERY, self._at_once, vocabulary, pin_memory=on_gpu)
        pinned = self._pinned[token]
        for line in self.lines:
            pinned[line.slot] = line.noise.token(vocabulary)
        room.lines.noise[: self._at_once].copy_(pinned, non_blocking=True)

    def _look(self, room: Room) -> None:
        """Reads what was drawn."""
        state = room.lines.state.tolist()
        for line in self.lines:
            mine = state[line.slot]
            if broken := mine[gpu_draw.BROKEN]:
                raise finite.failure(f"T3's logits at token {broken}", room.cache.keys.dtype)
            ring = mine[gpu_draw.TOKENS :]
            line.tokens += [ring[index % gpu_draw.RING] for index in range(len(line.tokens), mine[gpu_draw.COUNT])]
            if mine[gpu_draw.ENDED]:
                line.finish = "stop" if mine[gpu_draw.ENDED] == 1 else line.ends
        self.lines = [line for line in self.lines if line.finish is None]

"""The flow's Euler steps on a GPU: each a CUDA graph, for lengths that are rounded up.

A step is a thousand kernels. Frames are filled up with zeros to a multiple of `BUCKET`, so that chunks share a graph;
attention does not see what was added, and causal convolutions do not look ahead. What is recorded stays with the model,
and so do the weights in the dtype they are multiplied in: to make both again for each take costs more than the steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from chatterbox_nb.engine.flow import guided
from chatterbox_nb.engine.graphs import Recorder
from chatterbox_nb.engine.nets.estimator import MELS, Estimator, Velocity
from chatterbox_nb.engine.nets.ready import Ready

BUCKET = 128  # frames: 2.56 s
_KEPT = 6  # lengths that are kept, the newest


class _Steps:
    """Steps for one length, at addresses that stay."""

    def __init__(self, velocity: Velocity, recorder: Recorder, pool: Any) -> None:
        frames = velocity.inputs.shape[1]
        self._velocity, self._recorder, self._pool = velocity, recorder, pool
        self._mask = velocity.inputs.new_zeros(1, 1, 1, frames)
        self._x = torch.zeros(frames, MELS, device=self._mask.device)
        self._time = torch.zeros_like(velocity.times[0])
        self._span = torch.zeros((), device=self._mask.device)
        self._graph: Callable[[], None] | None = None

    def begin(self, velocity: Velocity, x: Tensor, frames: int) -> None:
        """Takes over another utterance of this length."""
        if velocity is not self._velocity:
            self._velocity.inputs.copy_(velocity.inputs)
        self._mask.zero_()
        self._mask[..., frames:] = float("-inf")
        self._x.copy_(x)

    def __call__(self, time: Tensor, span: Tensor) -> Tensor:
        """A step of so much at a time; `[T, 80]`, good until the next."""
        self._time.copy_(time)
        self._span.copy_(span)
        if self._graph is None:
            self._step()  # what a graph launches has to have run before
            self._graph = self._recorder.recorded(self._step, self._pool)
        else:
            self._graph()
        return self._x

    def _step(self) -> None:
        velocity = self._velocity
        velocity.inputs[..., :MELS] = self._x
        velocity.ready.mask = self._mask
        self._x += self._span * guided(velocity.net(velocity.inputs, self._time, velocity.ready))


class Solver:
    """`flow.begun` on a GPU, with the graphs of the newest lengths.

    Args:
        recorder: of the model.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self._ready: Ready | None = None
        self._pool: Any = None
        self._steps: dict[tuple[int, ...], _Steps] = {}

    def rest(self) -> None:
        """Gives everything back; a next take makes it again."""
        self._ready = None
        self._steps.clear()

    def __call__(
        self, net: Estimator, mu: Tensor, speaker: Tensor, condition: Tensor, x: Tensor, times: Tensor
    ) -> Callable[[int], Tensor]:
        """As `flow.begun`."""
        frames = mu.shape[1]
        more = (0, 0, 0, -frames % BUCKET)
        if self._ready is None:
            self._ready, self._pool = Ready(net, mu.dtype), self.recorder.pool()
        velocity = Velocity(net, F.pad(mu, more), speaker, F.pad(condition, more), times, self._ready)
        key = tuple(velocity.inputs.shape)
        steps = self._steps.pop(key, None) or _Steps(velocity, self.recorder, self._pool)
        self._steps[key] = steps
        while len(self._steps) > _KEPT:
            del self._steps[next(iter(self._steps))]
        steps.begin(velocity, F.pad(x, more), frames)
        return lambda index: steps(velocity.times[index], times[index + 1] - times[index])[:frames]

"""The sound of a chunk while its tokens are still coming.

The flow runs again over all tokens so far, with the same noise; what sounded stays as it was. The newest frames lack
what comes after them, so some are held back, and where two runs meet their mels are blended. The vocoder's source runs
on from the first frame, so that its phase does, and only the new frames and some before them become a wave again.
A segment is marked with the sound on both sides of it, so that the mark does not break off where segments meet.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from chatterbox_nb.audio import Samples
from chatterbox_nb.engine import flow, vocoder
from chatterbox_nb.engine.conditioning import Voice
from chatterbox_nb.engine.model import Model
from chatterbox_nb.engine.noise import Noise
from chatterbox_nb.events import CancelToken

# In tokens, 25 a second.
_FIRST = 25
_GROWTH = 2  # each run of the flow has at least so many times the tokens of the one before
# In frames, 50 a second.
_HELD = 14  # of a mel: the encoder looks three tokens ahead
_BLENDED = 8  # of those, where the next run takes over
_AHEAD = 8  # of a wave: f0 looks five frames ahead, HiFT a few
_BEHIND = 40  # before a wave's first frame
_HOP = 480  # samples of a frame
_CROSSED = 120  # samples in which one wave goes over into the next: 5 ms
_LED = 6000  # samples before a segment that are marked with it


class Segments:
    """The segments of one chunk.

    Args:
        noise: of the chunk, the same however often it is asked: `StageNoise`.
        steps: Euler steps of the flow.
    """

    def __init__(self, model: Model, voice: Voice, noise: Noise, steps: int) -> None:
        self.model, self.voice, self.noise, self.steps = model, voice, noise, steps
        self.tokens = 0  # that the last run had
        self._next = _FIRST
        self._mel = torch.zeros(1, flow.MELS, 0, device=model.device)  # what stays
        self._rest = self._mel  # what the last run made after it
        self._lead = self._tail = np.zeros(0, np.float32)  # the wave before and after what sounded last, not marked
        self._done = 0  # frames that sounded
        self._sounded: list[Samples] = []

    @property
    def samples(self) -> Samples:
        """All that sounded."""
        return np.concatenate([np.zeros(0, np.float32), *self._sounded])

    @property
    def mel(self) -> Tensor:
        """What stays of all runs, blended: `[1, 80, T]`."""
        return self._mel

    def due(self, count: int) -> bool:
        """Whether so many tokens are worth a run."""
        return count >= self._next

    def more(self, tokens: tuple[int, ...], last: bool, seconds: dict[str, float], cancel: CancelToken) -> Samples:
        """The next segment, watermarked; it may be empty.

        Args:
            tokens: all that the chunk has.
            last: no more will come.
            seconds: of work by stage, added to.
        """
        self._next = max(self._next, _GROWTH * len(tokens))
        self.tokens = len(tokens)
        wave = np.zeros(0, np.float32)
        if tokens:
            started = time.perf_counter()
            closing = self.model.spec.closing_tokens if last else ()
            found = torch.tensor([tokens + closing], device=self.model.device)
            mel = flow.tokens_to_mel(self.model.flow, found, self.voice, self.noise, self.steps, cancel=cancel)
            self._keep(mel, last)
            made = time.perf_counter()
            wave = self._wave(last)
            sounded = time.perf_counter()
            _add(seconds, mel=made - started, wave=sounded - made)
        started = time.perf_counter()
        samples = self._marked(wave)
        _add(seconds, watermark=time.perf_counter() - started)
        self._sounded.append(samples)
        return samples

    def _marked(self, wave: Samples) -> Samples:
        around = np.concatenate([self._lead, wave, self._tail])
        start = len(self._lead)
        self._lead = around[: start + len(wave)][-_LED:]
        if not len(wave):
            return wave
        return self.model.watermarker.apply(around, self.model.spec.sample_rate)[start : start + len(wave)]

    def _keep(self, mel: Tensor, last: bool) -> None:
        """Takes the frames that a run adds to what stays."""
        start, stop = self._mel.shape[2], mel.shape[2] - (0 if last else _HELD)
        fresh = mel[:, :, start : max(start, stop)].clone()
        blended = min(_BLENDED, fresh.shape[2], self._rest.shape[2])
        weight = (torch.arange(blended, device=mel.device) + 1) / (blended + 1)
        fresh[:, :, :blended] = torch.lerp(self._rest[:, :, :blended], fresh[:, :, :blended], weight)
        self._mel = torch.cat([self._mel, fresh], dim=2)
        self._rest = mel[:, :, self._mel.shape[2] :]

    def _wave(self, last: bool) -> Samples:
        frames = self._mel.shape[2]
        if last:  # of which the end may be noise
            frames = max(2, frames - 2 * self.model.spec.cropped_tokens)
        stop = frames if last else max(self._done, frames - _AHEAD)
        if stop == self._done and not last:
            return np.zeros(0, np.float32)
        first = max(0, self._done - _BEHIND)
        whole: Any = vocoder.mel_to_wave(self.model.vocoder, self._mel, self.noise, first).cpu().numpy()
        begin, end = (self._done - first) * _HOP, (stop - first) * _HOP
        wave = whole[begin:end].copy()
        crossed = min(_CROSSED, len(self._tail), len(wave))
        weight = (np.arange(crossed, dtype=np.float32) + 1) / (crossed + 1)
        wave[:crossed] = (1 - weight) * self._tail[:crossed] + weight * wave[:crossed]
        self._tail, self._done = whole[end:].copy(), stop
        return wave


def _add(seconds: dict[str, float], **more: float) -> None:
    for stage, spent in more.items():
        seconds[stage] = seconds.get(stage, 0.0) + spent

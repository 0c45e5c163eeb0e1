"""A clip in another voice, piece by piece: samples → speech tokens → mel → wave → watermark. T3 is not asked.

A long clip is cut where it is quiet. A piece is read with a second of its neighbours on both sides, which tell the
networks what goes on; of its sound only its own part is kept, and goes over into the next one's where they meet.
Positions are counted in speech tokens of 40 ms, so that nothing is lost or said twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from chatterbox_nb import events
from chatterbox_nb.audio import Samples
from chatterbox_nb.checkpoint.spec import ModelSpec
from chatterbox_nb.engine.conditioning import S3_RATE, TOKENS_PER_SECOND, Voice
from chatterbox_nb.engine.model import Model
from chatterbox_nb.engine.noise import PackageNoise, StageNoise
from chatterbox_nb.engine.pipeline import SpokenChunk
from chatterbox_nb.engine.sounding import Telling, sounded, timed
from chatterbox_nb.events import CancelToken, Observer
from chatterbox_nb.precision.plan import BYTES, compute_of

# In speech tokens, 25 a second. What is read at once is 24 s at the most: the S3 tokenizer hears 30 s and no more, the
# flow's memory grows with the square, and T3's longest chunks are not much longer.
_LONGEST = 550  # of a piece's own
_SHORTEST = 300  # of a piece that others follow: ten seconds are left to find a pause in
_AROUND = 25  # that are read before and after
_PAUSE = 3  # on both sides of a cut, whose loudness is compared: a pause, and not the stop of a "t"

_HEARD_HOP = S3_RATE // TOKENS_PER_SECOND  # samples of a token at 16 kHz
_SOUND_HOP = 960  # and at 24 kHz
_CROSSED = 480  # samples on both sides of a cut in which one wave goes over into the next: 20 ms each
# Where each stage of a piece begins, as a part of its work: roughly, for estimates of time left.
_STAGE_START = {"tokens": 0.0, "mel": 0.08, "wave": 0.85, "watermark": 0.96, "end": 1.0}


@dataclass(frozen=True)
class Piece:
    """A part of a clip, in tokens: what is its own, `begin` to `end`, and what is read for it, `first` to `last`."""

    begin: int
    end: int
    first: int
    last: int

    @property
    def text(self) -> str:
        """What of the clip it is, for people."""
        return f"{self.begin / TOKENS_PER_SECOND:.2f} to {self.end / TOKENS_PER_SECOND:.2f} s"


def count(samples: int) -> int:
    """Speech tokens of so many samples at 16 kHz: one for each four mel frames of 10 ms, begun ones too."""
    return -(-(samples // (_HEARD_HOP // 4)) // 4)


def cut(samples: Samples) -> list[Piece]:
    """The pieces of a clip at 16 kHz, cut where it is quietest; one, where it is short enough."""
    total = count(len(samples))
    if total <= _LONGEST + 2 * _AROUND:
        return [Piece(0, total, 0, total)]
    loudness = _loudness(samples, total)
    cuts = [0]
    while total - cuts[-1] > _LONGEST:
        earliest, latest = cuts[-1] + _SHORTEST, min(cuts[-1] + _LONGEST, total - 1)
        quiet = loudness[earliest : latest + 1][::-1]  # of equal ones the last, so that silence makes long pieces
        cuts.append(latest - int(quiet.argmin()))
    ends = [*cuts[1:], total]
    return [
        Piece(begin, end, max(0, begin - _AROUND), min(total, end + _AROUND))
        for begin, end in zip(cuts, ends, strict=True)
    ]


def _loudness(samples: Samples, total: int) -> Any:
    """Energy around the beginning of each token, `[total]`."""
    padded = np.pad(samples, (0, max(0, total * _HEARD_HOP - len(samples))))[: total * _HEARD_HOP]
    energy = np.square(padded.reshape(total, _HEARD_HOP), dtype=np.float64).sum(axis=1)
    return np.convolve(np.pad(energy, (_PAUSE, _PAUSE - 1)), np.ones(2 * _PAUSE), "valid")


class Conversion:
    """One clip on its way: `hear` it while the encoders are in memory, then iterate over its `sound`.

    Args:
        model: loaded.
        samples: float32 `[n]` at 16 kHz.
        noise: of the take.
        steps: Euler steps of the flow; None is the model's own.
        observer, cancel: told of every piece and step; checked there.
    """

    def __init__(
        self,
        model: Model,
        samples: Samples,
        noise: StageNoise | PackageNoise,
        steps: int | None = None,
        observer: Observer = events.ignore,
        cancel: CancelToken | None = None,
    ) -> None:
        self.model, self.samples, self.noise = model, samples, noise
        self.steps = model.spec.s3gen.cfm_steps if steps is None else steps
        self.cancel = cancel or CancelToken()
        self.pieces = cut(samples)
        self.tokens: list[list[int]] = []  # that each piece reads
        self._seconds: list[dict[str, float]] = [{} for _ in self.pieces]
        self._tell = Telling([piece.end - piece.begin for piece in self.pieces], _STAGE_START, observer, self.cancel)

    def hear(self, tokenizer: Any) -> None:
        """Finds the speech tokens of all pieces.

        Args:
            tokenizer: the S3 tokenizer, in float32.
        """
        for index, piece in enumerate(self.pieces):
            self.cancel.check()
            end = len(self.samples) if piece is self.pieces[-1] else piece.last * _HEARD_HOP
            with timed(self._seconds[index], "tokens"):
                heard = torch.from_numpy(np.array(self.samples[piece.first * _HEARD_HOP : end]))[None]
                found: list[int] = tokenizer(heard)[0][0].tolist()
            self.tokens.append(found)
            own = piece.end - piece.begin
            self._tell.audio[index] = own / TOKENS_PER_SECOND
            self._tell(index, "tokens", own, own, 1.0)

    def sound(self, voice: Voice) -> Iterator[SpokenChunk]:
        """The pieces in a voice, watermarked, in their order; one after the other they are the whole."""
        self._tell.audio = [0.0] * len(self.pieces)
        tail = np.zeros(0, np.float32)
        for index, (piece, tokens) in enumerate(zip(self.pieces, self.tokens, strict=True)):
            self._tell.audio[index] = (piece.end - piece.begin) / TOKENS_PER_SECOND
            seconds = self._seconds[index]
            marked = sounded(
                self.model, voice, tokens, self.noise.for_chunk(index), self.steps, partial(self._tell, index),
                seconds, self.cancel,
            )  # fmt: skip
            samples, tail = _own(marked(), piece, tail, last=index == len(self.pieces) - 1)
            self._tell.parts[index] = 1.0
            own = tuple(tokens[piece.begin - piece.first : piece.end - piece.first])
            yield SpokenChunk(piece.text, own, samples, "stop", seconds)


def _own(wave: Samples, piece: Piece, tail: Samples, last: bool) -> tuple[Samples, Samples]:
    """A piece's own part of its wave, and its tail, which the next one begins with.

    Args:
        wave: of all that the piece read. It is told by its end, since a longer prompt takes half a token off its start.
        tail: of the piece before, empty for the first.
    """

    def at(token: int) -> int:
        return len(wave) - (piece.last - token) * _SOUND_HOP

    start = at(piece.begin) - _CROSSED if len(tail) else 0
    stop = len(wave) if last else at(piece.end) - _CROSSED
    own = wave[start:stop].copy()
    weight = (np.arange(len(tail), dtype=np.float32) + 1) / (len(tail) + 1)
    own[: len(tail)] = (1 - weight) * tail + weight * own[: len(tail)]
    return own, wave[stop : stop + 2 * _CROSSED].copy() if not last else wave[:0]


def working_bytes(model: Model, pieces: Sequence[Piece], voice: Voice) -> int:
    """What a take needs at the least, over the weights: what the flow's encoder attends with, for its longest piece.

    Each head has a score of every frame with every other, and one of every frame with every distance.
    """
    spec: ModelSpec = model.spec
    frames = 2 * (voice.prompt_tokens.shape[1] + max(piece.last - piece.first for piece in pieces))
    scores = spec.s3gen.encoder_heads * frames * (frames + 2 * frames - 1)
    return scores * BYTES[compute_of("flow", model.plan)]

"""Speech tokens that are there to sound: mel → wave → watermark. And what an observer is told of it.

Text and clips both become tokens; from there on the work is the same. Knows nothing of where tokens come from.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch

from chatterbox_nb.audio import Samples
from chatterbox_nb.engine import flow, vocoder
from chatterbox_nb.engine.conditioning import Voice
from chatterbox_nb.engine.model import Model
from chatterbox_nb.engine.noise import Noise, StageNoise
from chatterbox_nb.events import CancelToken, Observer, Progress


class Telling:
    """Tells an observer of the stages of chunks and how much of the whole is done, then honours a cancel.

    Args:
        sizes: of the chunks, in whatever their work is proportional to.
        starts: where each stage of a chunk begins, as a part of the chunk's work, in order; the last is the end.
    """

    def __init__(
        self, sizes: Sequence[int], starts: Mapping[str, float], observer: Observer, cancel: CancelToken
    ) -> None:
        self.sizes, self.starts, self.observer, self.cancel = sizes, starts, observer, cancel
        self.parts = [0.0] * len(sizes)  # of each chunk's work that is done
        self.audio = [0.0] * len(sizes)  # seconds of each chunk's tokens

    def __call__(self, index: int, stage: str, done: int, total: int | None, part: float) -> None:
        """Tells of a stage of a chunk, `part` of which is done."""
        stages = list(self.starts)
        begin, end = self.starts[stage], self.starts[stages[stages.index(stage) + 1]]
        self.parts[index] = max(self.parts[index], begin + (end - begin) * part)
        work = sum(size * part for size, part in zip(self.sizes, self.parts, strict=True))
        self.observer(
            Progress(
                stage,
                done,
                total,
                chunk=index,
                chunks=len(self.sizes),
                audio_seconds=sum(self.audio),
                fraction=work / sum(self.sizes),
            )
        )
        self.cancel.check()


def sounded(
    model: Model,
    voice: Voice,
    tokens: Sequence[int],
    noise: Noise,
    steps: int,
    tell: Callable[[str, int, int, float], None],
    seconds: dict[str, float],
    cancel: CancelToken,
    cropped: int = 0,
) -> Callable[[], Samples]:
    """The sound of speech tokens in a voice, but for the watermark, which the call puts in.

    Args:
        tokens: at least one.
        steps: Euler steps of the flow.
        tell: told the stage, steps done, steps in all, and the part of the stage that is done.
        seconds: of work by stage, added to.
        cropped: tokens of the end whose sound is left out; one token's stays.

    Returns:
        What gives the samples, float32 `[960 N]`, and 480 less after a prompt whose mel is a frame longer.
    """
    found = torch.tensor([list(tokens)], device=model.device)
    if model.device.type == "cuda" and isinstance(noise, StageNoise):
        vocoder.draw_ahead(model.vocoder, noise, 2 * len(tokens))
    with timed(seconds, "mel"):
        mel = flow.tokens_to_mel(
            model.flow, found, voice, noise, steps, lambda step: tell("mel", step, steps, step / steps), cancel
        )
    tell("wave", 0, 1, 0.0)
    with timed(seconds, "wave"):
        wave = vocoder.mel_to_wave(model.vocoder, mel, noise).cpu().numpy()
    if cropped:
        wave = wave[: max(1, len(tokens) - cropped) * (len(wave) // len(tokens))]
    tell("watermark", 0, 1, 0.0)

    def marked() -> Samples:
        with timed(seconds, "watermark"):
            return model.watermarker.apply(wave, model.spec.sample_rate)

    return marked


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Adds what a stage takes."""
    started = time.perf_counter()
    yield
    seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - started

"""One take, chunk by chunk: text → speech tokens → mel → wave → watermark."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from chatterbox_nb import events
from chatterbox_nb.audio import Samples
from chatterbox_nb.engine import decode, flow, vocoder
from chatterbox_nb.engine.conditioning import Voice
from chatterbox_nb.engine.decode import Finish
from chatterbox_nb.engine.model import Model
from chatterbox_nb.engine.noise import PackageNoise, StageNoise
from chatterbox_nb.engine.sampling import Sampling
from chatterbox_nb.errors import TextError
from chatterbox_nb.events import CancelToken, Observer, Progress
from chatterbox_nb.precision.plan import BYTES

TOKENS_PER_SECOND = 25
# Where each stage of a chunk begins, as a part of the chunk's work: roughly, for estimates of time left.
_STAGE_START = {"tokens": 0.0, "mel": 0.5, "wave": 0.92, "watermark": 0.98, "end": 1.0}


@dataclass(frozen=True)
class SpokenChunk:
    """A chunk as it came out.

    Args:
        text: what was spoken.
        tokens: the speech tokens, those that stand for sound.
        samples: float32 `[n]`, watermarked.
        finish: why its tokens end.
        seconds: of work, by stage.
    """

    text: str
    tokens: tuple[int, ...]
    samples: Samples
    finish: Finish
    seconds: Mapping[str, float]


class Speaker:
    """Speaks the chunks of one take with one voice.

    Args:
        model: loaded.
        voice: copied, never changed.
        sampling: options of a draw.
        exaggeration: how much emotion.
        noise: of the take.
        texts: the chunks.
        observer, cancel: told of every token and step; checked there.
    """

    def __init__(
        self,
        model: Model,
        voice: Voice,
        sampling: Sampling,
        exaggeration: float,
        noise: StageNoise | PackageNoise,
        texts: list[str],
        observer: Observer = events.ignore,
        cancel: CancelToken | None = None,
    ) -> None:
        self.model, self.voice, self.sampling, self.noise = model, voice.copy(), sampling, noise
        self.texts, self.observer, self.cancel = texts, observer, cancel or CancelToken()
        self._characters = sum(map(len, texts))
        self._spoken_characters = 0
        self._spoken_seconds = 0.0
        self._chunk = 0
        self._ids = [self._text_ids(text) for text in texts]
        self.cancel.check()
        device = model.device
        self._prefix = decode.prefill(
            model.t3, self.voice.speaker.to(device), self.voice.t3_prompt.to(device), exaggeration
        )

    def __iter__(self) -> Iterator[SpokenChunk]:
        for index, text in enumerate(self.texts):
            self._chunk = index
            spoken = self._speak(index, text)
            self._spoken_characters += len(text)
            self._spoken_seconds += len(spoken.samples) / self.model.spec.sample_rate
            yield spoken

    def _text_ids(self, text: str) -> torch.Tensor:
        if set(filter(str.isalnum, text)) <= set(self.model.tokenizer.unspeakable(text)):
            raise TextError(f"{self.model.spec.name} can say nothing of '{text}'.")
        return self.model.text_ids(text)

    def _speak(self, index: int, text: str) -> SpokenChunk:
        model, spec, ids = self.model, self.model.spec, self._ids[index]
        noise = self.noise.for_chunk(index)
        seconds: dict[str, float] = {}
        expected = max(1, round(spec.text.tokens_per_text_token * len(ids)))

        def on_token(count: int) -> None:
            self._tell("tokens", count, None, min(1.0, count / expected), count / TOKENS_PER_SECOND)

        with _timed(seconds, "tokens"):
            decoded = decode.decode(
                model.t3, self._prefix, ids, self.sampling, noise,
                spec.text.budget(len(ids)), spec.max_tokens, on_token, self.cancel,
            )  # fmt: skip
        tokens = decode.audible(decoded.tokens, spec.s3gen.codes)
        if not tokens:
            return SpokenChunk(text, (), torch.zeros(0).numpy(), decoded.finish, seconds)
        audio_seconds = len(tokens) / TOKENS_PER_SECOND
        steps = spec.s3gen.cfm_steps

        def on_step(step: int) -> None:
            self._tell("mel", step, steps, step / steps, audio_seconds)

        with _timed(seconds, "mel"):
            mel = flow.tokens_to_mel(
                model.flow, torch.tensor([tokens], device=model.device), self.voice, noise, steps, on_step, self.cancel
            )
        self._tell("wave", 0, 1, 0.0, audio_seconds)
        with _timed(seconds, "wave"):
            wave = vocoder.mel_to_wave(model.vocoder, mel, noise).cpu().numpy()
        self._tell("watermark", 0, 1, 0.0, audio_seconds)
        with _timed(seconds, "watermark"):
            samples = model.watermarker.apply(wave, spec.sample_rate)
        return SpokenChunk(text, tokens, samples, decoded.finish, seconds)

    def _tell(self, stage: str, done: int, total: int | None, part: float, audio_seconds: float) -> None:
        """Tells the observer, then honours a cancel it may have asked for."""
        stages = list(_STAGE_START)
        begin, end = _STAGE_START[stage], _STAGE_START[stages[stages.index(stage) + 1]]
        characters = self._spoken_characters + len(self.texts[self._chunk]) * (begin + (end - begin) * part)
        self.observer(
            Progress(
                stage,
                done,
                total,
                chunk=self._chunk,
                chunks=len(self.texts),
                audio_seconds=self._spoken_seconds + audio_seconds,
                fraction=characters / self._characters,
            )
        )
        self.cancel.check()


def working_bytes(model: Model, texts: list[str], guided: bool) -> int:
    """What a take needs at the least, over the weights: the keys and values of its longest chunk."""
    dims, rules = model.spec.t3, model.spec.text
    longest = len(model.text_ids(max(texts, key=len)))  # in characters, so that one is tokenized and not all
    positions = dims.perceiver_queries + 2 + longest + 2 + min(rules.budget(longest), model.spec.max_tokens)
    values = 2 * dims.layers * dims.width * positions * (2 if guided else 1)
    return values * BYTES[model.plan.compute]


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - started

"""One take, chunk by chunk: text → speech tokens → mel → wave → watermark.

Chunks are decoded side by side where that pays, and come out in their order. Or each alone, and in segments that sound
while its tokens are still coming.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from chatterbox_nb import events
from chatterbox_nb.audio import Samples
from chatterbox_nb.engine import decode
from chatterbox_nb.engine.conditioning import TOKENS_PER_SECOND, Voice
from chatterbox_nb.engine.decode import Decoder, Finish, Line
from chatterbox_nb.engine.model import Model
from chatterbox_nb.engine.noise import PackageNoise, StageNoise
from chatterbox_nb.engine.sampling import Sampling
from chatterbox_nb.engine.segments import Segments
from chatterbox_nb.engine.sounding import Telling, sounded, timed
from chatterbox_nb.errors import TextError
from chatterbox_nb.events import CancelToken, Observer
from chatterbox_nb.precision.plan import BYTES

# Where each stage of a chunk begins, as a part of the chunk's work: roughly, for estimates of time left.
_STAGE_START = {"tokens": 0.0, "mel": 0.5, "wave": 0.92, "watermark": 0.98, "end": 1.0}
# Chunks decoded side by side: with eight and guidance, 16 rows, a step takes two to three times as long as one chunk's.
_MOST_AT_ONCE = 8
# A smaller T3 than this is not bound by the reading of its weights, and gains nothing side by side.
_SMALLEST_PARAMETERS = 50_000_000
_PART_OF_FREE = 0.5  # of the free memory, for keys and values


@dataclass(frozen=True)
class SpokenChunk:
    """A chunk, or a segment of one, as it came out.

    Args:
        text: what was spoken.
        tokens: the speech tokens, those that stand for sound.
        samples: float32 `[n]`, watermarked.
        finish: why its tokens end; None of a segment that others follow.
        seconds: of work, by stage; of tokens that were decoded beside others, a share.
    """

    text: str
    tokens: tuple[int, ...]
    samples: Samples
    finish: Finish | None
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
        steps: Euler steps of the flow; None is the model's own.
        at_once: how many chunks are decoded side by side; package noise, which is drawn in order, allows one.
        on_segment: told the index of a chunk and a segment of it, as soon as that sounds; chunks are decoded alone.
        language: of the texts; None is the model's default.
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
        steps: int | None = None,
        at_once: int = 1,
        on_segment: Callable[[int, SpokenChunk], None] | None = None,
        language: str | None = None,
    ) -> None:
        self.model, self.voice, self.sampling, self.noise = model, voice.copy(), sampling, noise
        self.steps = model.spec.s3gen.cfm_steps if steps is None else steps
        self.texts, self.observer, self.cancel = texts, observer, cancel or CancelToken()
        self.on_segment = on_segment
        self.language, self.rules = model.language(language), model.rules(language)
        alone = on_segment is not None or isinstance(noise, PackageNoise)
        self.at_once = 1 if alone else min(at_once, len(texts))
        self._tell = Telling([len(text) for text in texts], _STAGE_START, observer, self.cancel)
        self._seconds: list[dict[str, float]] = [{} for _ in texts]
        self._ids = [self._text_ids(text) for text in texts]
        self.cancel.check()
        device = model.device
        self._prefix = model.prefix.of(
            model.t3, self.voice.speaker.to(device), self.voice.t3_prompt.to(device), exaggeration
        )

    def __iter__(self) -> Iterator[SpokenChunk]:
        # On a GPU the CPU has time: it marks a chunk while the next one is made. Not the first, which someone awaits.
        beside = self.model.device.type != "cpu" and self.on_segment is None
        with (
            decode.begun(self.model.t3, self._prefix, self.sampling, self.cancel, self.at_once) as decoding,
            ThreadPoolExecutor(1, thread_name_prefix="chatterbox-nb watermark") as marking,
        ):
            lines: list[Line] = []
            before: Future[SpokenChunk] | None = None
            for index in range(len(self.texts)):
                try:
                    marked = self._made(decoding, lines, index)
                finally:  # what is done is not lost if the next one fails
                    if before is not None:
                        yield before.result()
                        before = None
                if beside and index > 0:
                    before = marking.submit(marked)
                else:
                    yield marked()
            if before is not None:
                yield before.result()

    def _made(self, decoding: Decoder, lines: list[Line], index: int) -> Callable[[], SpokenChunk]:
        """A chunk, but for the watermark, which the call puts in."""
        segments = None
        if self.on_segment is not None:
            segments = Segments(self.model, self.voice, self.noise.for_chunk(index), self.steps)
        while index == len(lines) or lines[index].finish is None:
            self._advance(decoding, lines)
            if segments is not None and segments.due(len(lines[index].tokens)):
                decoding.rest()
                self._segment(index, lines[index], segments)
        if decoding.lines or len(lines) < len(self.texts):
            decoding.rest()
        else:
            decoding.end()
        return self._sound(index, lines[index], segments)

    def _text_ids(self, text: str) -> torch.Tensor:
        if set(filter(str.isalnum, text)) <= set(self.model.tokenizer.unspeakable(text, self.language)):
            raise TextError(f"{self.model.spec.name} can say nothing of '{text}'.")
        return self.model.text_ids(text, self.language)

    def _advance(self, decoding: Decoder, lines: list[Line]) -> None:
        """A token of each line; lines are begun while there is room for them beside the others."""
        rules, limit = self.rules, self.model.spec.max_tokens
        while len(lines) < len(self.texts) and len(decoding.lines) < self.at_once:
            index, ids = len(lines), self._ids[len(lines)]
            with timed(self._seconds[index], "tokens"):
                lines.append(decoding.begin(ids, self.noise.for_chunk(index), rules.budget(len(ids)), limit))
        working = list(decoding.lines)
        started = time.perf_counter()
        decoding.advance()
        share = (time.perf_counter() - started) / len(working)
        for index, line in enumerate(lines):
            if line in working:
                self._seconds[index]["tokens"] += share
                count = len(line.tokens)
                expected = max(1, round(rules.tokens_per_text_token * len(self._ids[index])))
                self._tell.audio[index] = count / TOKENS_PER_SECOND
                self._tell(index, "tokens", count, None, min(1.0, count / expected))

    def _sound(self, index: int, line: Line, segments: Segments | None) -> Callable[[], SpokenChunk]:
        """A chunk whose tokens are there, but for the watermark, which the call puts in."""
        spec, seconds = self.model.spec, self._seconds[index]
        decoded = line.decoded
        tokens = decode.audible(decoded.tokens, spec.s3gen.codes)
        self._tell.audio[index] = len(tokens) / TOKENS_PER_SECOND
        if segments is not None:
            self._segment(index, line, segments)
            self._tell.parts[index] = 1.0
            streamed = SpokenChunk(self.texts[index], tokens, segments.samples, decoded.finish, seconds)
            return lambda: streamed
        if not tokens:
            self._tell.parts[index] = 1.0
            empty = SpokenChunk(self.texts[index], (), np.zeros(0, np.float32), decoded.finish, seconds)
            return lambda: empty

        whole = sounded(
            self.model, self.voice, tokens + self.model.spec.closing_tokens, line.noise, self.steps,
            partial(self._tell, index), seconds, self.cancel, self.model.spec.cropped_tokens,
        )  # fmt: skip

        def marked() -> SpokenChunk:
            samples = whole()
            self._tell.parts[index] = 1.0
            return SpokenChunk(self.texts[index], tokens, samples, decoded.finish, seconds)

        return marked

    def _segment(self, index: int, line: Line, segments: Segments) -> None:
        """The next segment of a chunk, with what its tokens so far allow."""
        assert self.on_segment is not None
        tokens = decode.audible(tuple(line.tokens), self.model.spec.s3gen.codes)
        known = segments.tokens
        before = dict(self._seconds[index])
        samples = segments.more(tokens, line.finish is not None, self._seconds[index], self.cancel)
        self._tell(index, "tokens", len(line.tokens), None, 0.0)
        if not len(samples) and line.finish is None:
            return
        spent = {stage: seconds - before.get(stage, 0.0) for stage, seconds in self._seconds[index].items()}
        self.on_segment(index, SpokenChunk(self.texts[index], tokens[known:], samples, line.finish, spent))


def working_bytes(model: Model, texts: list[str], guided: bool, language: str | None = None) -> int:
    """What a take needs at the least, over the weights: the keys and values of its longest chunk."""
    dims, rules = model.spec.t3, model.rules(language)
    longest = len(model.text_ids(max(texts, key=len), language))  # in characters, so that one is tokenized and not all
    positions = dims.prefix_length + longest + dims.begins + min(rules.budget(longest), model.spec.max_tokens)
    values = 2 * dims.layers * dims.width * positions * (2 if guided else 1)
    halved = model.t3.compiled and model.plan.precision == "int8"
    return values * BYTES["float16" if halved else model.plan.compute]


def chunks_at_once(model: Model, texts: list[str], guided: bool, free: int | None, language: str | None = None) -> int:
    """How many chunks are decoded side by side: as many as pay, and as have room in the free memory."""
    if not (model.t3.compiled or model.t3.runner) or model.spec.t3.layer_parameters < _SMALLEST_PARAMETERS:
        return 1
    room = _MOST_AT_ONCE if free is None else int(_PART_OF_FREE * free // working_bytes(model, texts, guided, language))
    return max(1, min(_MOST_AT_ONCE, len(texts), room))

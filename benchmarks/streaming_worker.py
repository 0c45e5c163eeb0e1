"""What streaming measures of the demo voice: takes that came in segments beside the same takes in one piece.

Each function runs in a process of a pool, is given and gives plain data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import quality_worker
from benchmarks.quality_worker import EXAGGERATION, FP32
from chatterbox_nb.audio import Samples
from chatterbox_nb.engine import flow, segments
from chatterbox_nb.engine.model import Model
from chatterbox_nb.engine.noise import StageNoise
from chatterbox_nb.engine.pipeline import Speaker, SpokenChunk
from chatterbox_nb.engine.sampling import Sampling
from chatterbox_nb.engine.watermark import detect
from chatterbox_nb.events import CancelToken

CLOSELY = 4  # parts whose mels and marks are measured too, with the first seed
OTHER_SEED = 2000  # noise that no take has
LOUD = 30.0  # dB under a take's loudest frame: what is above is speech
MARKED_SECONDS = 0.5  # the shortest segment in which a mark can be read well
NEAR, AROUND = 0.005, 0.04  # seconds on each side of a join: where a click would be, and what it is held against
FRAME = 480  # samples of a mel's frame
_QUIET = 1e-4  # amplitude under which nothing is heard


def spoken(model: Model, seed: int, text: str, index: int, streamed: bool) -> tuple[list[SpokenChunk], SpokenChunk]:
    """Segments of a sentence, none where it is not streamed, and the whole; with the noise of the sentence's number."""
    found: list[SpokenChunk] = []
    speaker = Speaker(
        model, model.builtin_voice(), Sampling(), EXAGGERATION, _From(seed, index), [text],
        on_segment=(lambda _, segment: found.append(segment)) if streamed else None,
    )  # fmt: skip
    with torch.inference_mode():
        (chunk,) = speaker
    return found, chunk


class _From(StageNoise):
    """The noise of a sentence by itself, as it has it among the others."""

    def __init__(self, seed: int, index: int) -> None:
        super().__init__(seed, index)
        self.index = index

    def for_chunk(self, chunk: int) -> StageNoise:
        return StageNoise(self.seed, self.index + chunk)


def measure(seed: int, part: int, parts: int) -> list[dict[str, Any]]:
    """Every so many-th sentence: edits both ways, tokens, joins; with the first seed, mels and marks too."""
    model, found = quality_worker.loaded(FP32), []
    sentences = quality_worker.sentences()
    rate = model.spec.sample_rate
    for index in range(part, len(sentences), parts):
        sentence = sentences[index]
        _, once = spoken(model, seed, sentence.text, index, False)
        pieces, chunk = spoken(model, seed, sentence.text, index, True)
        whole, streamed = once.samples, np.concatenate([piece.samples for piece in pieces])
        runs = np.cumsum([len(piece.tokens) for piece in pieces]).tolist()
        figures: dict[str, Any] = {
            "index": index,
            "edits": [quality_worker.word_errors(sentence, wave, rate) for wave in (whole, streamed)],
            "same_tokens": once.tokens == chunk.tokens == sum((piece.tokens for piece in pieces), ()),
            "same_length": len(streamed) == len(whole),
            "segments": [round(len(piece.samples) / rate, 3) for piece in pieces],
            "work": round(work(runs, model.builtin_voice().prompt_mel.shape[1]), 3),
            "seconds": [sum(taken.seconds.values()) for taken in (once, chunk)],
            **joints(whole, streamed, [len(piece.samples) for piece in pieces], rate),
        }
        if seed == 0 and part < CLOSELY:
            marks = [piece.samples for piece in pieces if len(piece.samples) >= MARKED_SECONDS * rate]
            figures["marks"] = [round(detect(samples, rate), 3) for samples in marks]
            figures["mel"] = mels(model, seed, index, once.tokens)
        found.append(figures)
    return found


def mels(model: Model, seed: int, index: int, tokens: Sequence[int]) -> dict[str, float]:
    """Mean L1 of log mels in frames of speech, to the mel made in one piece: of segments, and of other noise."""
    voice, steps = model.builtin_voice(), model.spec.s3gen.cfm_steps
    found = torch.tensor([tokens])

    def made(noise: StageNoise, steps: int = steps) -> Tensor:
        return flow.tokens_to_mel(model.flow, found, voice, noise, steps)

    with torch.inference_mode():
        whole = made(StageNoise(seed, index))
        chunk = segments.Segments(model, voice, StageNoise(seed, index), steps)
        for count in range(len(tokens)):
            if chunk.due(count):
                chunk.more(tuple(tokens[:count]), False, {}, CancelToken())
        chunk.more(tuple(tokens), True, {}, CancelToken())
        others = {
            "segments": chunk.mel,
            "other noise": made(StageNoise(seed + OTHER_SEED, index)),
            "6 steps": made(StageNoise(seed, index), 6),
        }
    level = whole.exp().square().sum(1).log10()[0] * 10
    speech = level > level.max() - LOUD
    return {name: round(float((mel - whole)[:, :, speech].abs().mean()), 5) for name, mel in others.items()}


def joints(whole: Samples, streamed: Samples, lengths: Sequence[int], rate: int) -> dict[str, list[list[float]]]:
    """Jump, click and flux: at each join, at the same places of the take in one piece, and all through that."""
    at = [int(place) for place in np.cumsum(lengths)[:-1] if 0 < place < len(streamed)]
    margin = round(2 * AROUND * rate)
    inside = range(margin, len(whole) - margin, round(NEAR * rate))
    loudest = float(np.abs(whole).max())
    return {
        "joins": [look(streamed, place, rate) for place in at],
        "unjoined": [look(whole, place, rate) for place in at],
        "inside": [
            look(whole, place, rate) for place in inside if level(whole, place, rate) > loudest * 10 ** (-LOUD / 20)
        ],
    }


def level(wave: Samples, place: int, rate: int) -> float:
    """RMS around a place."""
    around = round(AROUND * rate)
    return float(np.sqrt(np.mean(wave[max(0, place - around) : place + around].astype(np.float64) ** 2)))


def look(wave: Samples, place: int, rate: int) -> list[float]:
    """Of a place between two samples: the step across it; its sharpest bend over the bends around; spectral flux.

    A bend is the second difference. In a quiet place a click shows in it and in the flux, in a loud one in the step.
    """
    near, around, frame = (round(seconds * rate) for seconds in (NEAR, AROUND, 2 * NEAR))
    bends = np.abs(np.diff(wave[max(0, place - around) : place + around].astype(np.float64), 2))
    middle = min(place, around) - 1
    sharpest = bends[max(0, middle - near) : middle + near].max()
    usual = np.sqrt(np.mean(bends**2))
    before, after = (_spectrum(wave[max(0, begin) : begin + frame], frame) for begin in (place - frame, place))
    step = abs(float(wave[place]) - float(wave[place - 1]))
    return [step, float(sharpest / max(usual, _QUIET)), float(np.mean(np.abs(after - before)))]


def _spectrum(samples: Samples, size: int) -> Samples:
    padded = np.pad(samples, (0, size - len(samples)))
    magnitude = np.abs(np.fft.rfft(padded * np.hanning(size)))
    return np.log10(np.maximum(magnitude, _QUIET * size))


def work(lengths: Sequence[int], prompt: int) -> float:
    """Frames that the flow makes for a take in segments, over those in one piece.

    Args:
        lengths: tokens of each run.
        prompt: frames of the voice's reference, which every run goes over.
    """
    return sum(prompt + 2 * count for count in lengths) / (prompt + 2 * lengths[-1])

"""Progress as one line: stage, tokens, seconds of audio, time left."""

from __future__ import annotations

import time
from html import escape

from chatterbox_nb.events import Progress
from chatterbox_nb.render import elements
from chatterbox_nb.render.units import seconds, size, whole_seconds

_WORDS = {
    "import": "Importing",
    "build": "Building the networks",
    "find": "Looking for the files of",
    "download": "Downloading",
    "check": "Checking the files",
    "weights": "Loading weights",
    "cache": "Keeping the int8 form on disk",
    "encoders": "Loading the encoders",
    "watermarker": "Loading the watermarker",
    "compile": "Compiling",
    "loaded": "Loaded",
    "unloaded": "Unloaded",
    "look": "Looking at",
    "voice": "Preparing voice",
    "tokens": "Speech tokens",
    "mel": "Mel spectrogram",
    "wave": "Waveform",
    "watermark": "Watermark",
    "spoken": "Spoken",
}


def line(progress: Progress | None, elapsed: float, left: float | None = None) -> str:
    """The line of text.

    Args:
        elapsed, left: seconds since the work was asked for, and until it is done, where that can be told.
    """
    if progress is None:
        return f"Waiting for the model, {seconds(elapsed)}"
    words = [_WORDS.get(progress.stage, progress.stage) + (f" {progress.detail}" if progress.detail else "")]
    if progress.stage in ("download", "weights") and progress.total:
        words.append(f"{size(progress.done)} of {size(progress.total)}")
    elif progress.stage == "tokens":
        words.append(f"{progress.done} tokens")
    elif progress.stage == "mel":
        words.append(f"step {progress.done} of {progress.total}")
    if progress.audio_seconds:
        words.append(f"{progress.audio_seconds:.1f} s of audio")
    if progress.chunks > 1 and progress.stage in ("tokens", "mel", "wave", "watermark"):
        words.append(f"chunk {progress.chunk + 1} of {progress.chunks}")
    words.append(f"{whole_seconds(left)} left" if left is not None else seconds(elapsed))
    return ", ".join(words)


def time_left(begun: float, reached: float, spent: float) -> float | None:
    """Seconds that the rest takes, when getting from the one fraction to the other took `spent`.

    None while that says little.
    """
    if reached - begun < 0.03 or reached >= 1:
        return None
    return spent * (1 - reached) / (reached - begun)


class Pace:
    """How fast a job goes, from one look at it to the next."""

    def __init__(self) -> None:
        self._begun: tuple[float, float] | None = None  # when a fraction was first told, and which

    def left(self, progress: Progress | None) -> float | None:
        """Seconds that the rest takes, or None while nobody can tell.

        Judged from where the fraction began: an import tells none, and weights begin again after a download.
        """
        fraction = progress.fraction if progress is not None else None
        if fraction is None:
            self._begun = None
            return None
        if self._begun is None or fraction < self._begun[1]:
            self._begun = time.perf_counter(), fraction
        return time_left(self._begun[1], fraction, time.perf_counter() - self._begun[0])


def html(progress: Progress | None, elapsed: float, left: float | None = None) -> str:
    fraction = progress.fraction if progress is not None and progress.fraction is not None else 0.0
    return elements.box(f"{elements.bar(fraction)} {escape(line(progress, elapsed, left))}")


def finished(text: str) -> str:
    """The line that stays when the work is done."""
    return elements.box(elements.muted(text))

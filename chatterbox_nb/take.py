"""What people hold: requests that can be replayed, and a take that remembers how it was made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from chatterbox_nb import audio
from chatterbox_nb.audio import Samples
from chatterbox_nb.errors import SettingError, nearest
from chatterbox_nb.shown import Shown

if TYPE_CHECKING:
    from chatterbox_nb.engine.conditioning import Voice


class Request(Protocol):
    """What a take has to know of how it was asked for, whatever was asked for."""

    @property
    def text(self) -> str:
        """What is said, or what it is, for people."""

    @property
    def seed(self) -> int: ...

    @property
    def voice(self) -> Voice | None: ...

    def options(self) -> dict[str, Any]:
        """All but the text and the tensors, as plain values."""


@dataclass(frozen=True)
class SpeechRequest:
    """Everything that decides how a text sounds, besides the model. `speak(request)` says it again.

    Args:
        text: any length.
        seed: of the noise.
        voice: resolved; None is the model's own.
        language: its code; None is the model's default.
        max_chunk: longest chunk in characters; None is the model's own.
        cfm_steps: Euler steps of the flow; None is the model's own.
        voice_seconds: how much of the voice the flow continues; None is all of it.
    """

    text: str
    seed: int
    voice: Voice | None = None
    exaggeration: float = 0.5
    cfg_weight: float = 0.5
    temperature: float = 0.8
    min_p: float = 0.05
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.2
    max_chunk: int | None = None
    cfm_steps: int | None = None
    voice_seconds: float | None = None
    language: str | None = None

    def options(self) -> dict[str, Any]:
        """All but the text and the voice's tensors, as plain values."""
        return {
            "seed": self.seed,
            "voice": self.voice.name if self.voice else "builtin",
            "language": self.language,
            "exaggeration": self.exaggeration,
            "cfg_weight": self.cfg_weight,
            "temperature": self.temperature,
            "min_p": self.min_p,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "repetition_penalty": self.repetition_penalty,
            "max_chunk": self.max_chunk,
            "cfm_steps": self.cfm_steps,
            "voice_seconds": self.voice_seconds,
        }


@dataclass(frozen=True)
class ConversionRequest:
    """Everything that decides how a clip sounds in another voice, besides the model. `convert(request)` does it again.

    Args:
        clip: where it came from: a file's name, "array", a take's text.
        samples: what is heard of it, float32 `[n]` at 16 kHz, read-only.
        sha256: of the samples, which stands for them where requests are compared.
        seed: of the noise.
        voice: resolved; None is the model's own.
        cfm_steps: Euler steps of the flow; None is the model's own.
        voice_seconds: how much of the voice the flow continues; None is all of it.
    """

    clip: str
    samples: Samples = field(repr=False, compare=False)
    sha256: str
    seed: int
    voice: Voice | None = None
    cfm_steps: int | None = None
    voice_seconds: float | None = None

    @property
    def text(self) -> str:
        return f"{self.clip}, in the voice of {self.voice.name if self.voice else 'builtin'}"

    def options(self) -> dict[str, Any]:
        """All but the samples and the voice's tensors, as plain values."""
        return {
            "seed": self.seed,
            "voice": self.voice.name if self.voice else "builtin",
            "clip": self.clip,
            "clip_sha256": self.sha256[:16],
            "cfm_steps": self.cfm_steps,
            "voice_seconds": self.voice_seconds,
        }


@dataclass(frozen=True)
class TakeChunk:
    """A chunk: its text, or which part of a clip it is; the second it starts at, its speech tokens, how they ended."""

    text: str
    start_seconds: float
    tokens: tuple[int, ...]
    finish: str


@dataclass(frozen=True, repr=False, eq=False)
class Take(Shown):
    """Speech, and how it was made.

    Args:
        request: a SpeechRequest or a ConversionRequest.
        samples: float32 `[n]` in [-1, 1], read-only, watermarked.
        sample_rate: Hz.
        finish: "stop" when every chunk ended by itself; "budget" or "limit" when one had to be ended; "cancelled".
        seconds: of work by stage.
        peak_bytes: highest growth of memory on its device while it was made (on a CPU: of the process), if monitored.
        warnings: what the listener should know.
        weights: SHA-256 of the model's weights.
    """

    request: Request
    samples: Samples
    sample_rate: int
    chunks: tuple[TakeChunk, ...]
    finish: str
    seconds: Mapping[str, float]
    peak_bytes: int | None
    warnings: tuple[str, ...]
    model: str
    precision: str
    device: str
    weights: str
    created: datetime

    @property
    def text(self) -> str:
        return self.request.text

    @property
    def duration(self) -> float:
        """Seconds of audio."""
        return len(self.samples) / self.sample_rate

    @property
    def real_time_factor(self) -> float:
        """Seconds of work for a second of audio: below 1 is faster than it is heard."""
        return sum(self.seconds.values()) / self.duration if self.duration else float("inf")

    @property
    def tokens(self) -> int:
        """Speech tokens of all chunks."""
        return sum(len(chunk.tokens) for chunk in self.chunks)

    def __len__(self) -> int:
        return len(self.samples)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        if copy is None:  # which numpy 1 never says and does not take
            return np.asarray(self.samples, dtype=dtype)
        return np.array(self.samples, dtype=dtype, copy=copy)

    @cached_property
    def mp3(self) -> bytes:
        """The take as MP3, at its own level."""
        return audio.encode(self.samples, self.sample_rate, "mp3")

    def tags(self) -> dict[str, str]:
        """Provenance, as it is written into files."""
        from chatterbox_nb import __version__

        comment = {
            "synthetic_speech": True,
            "watermark": "Perth",
            "model": self.model,
            "weights": self.weights[:16],
            "precision": self.precision,
            **self.request.options(),
            "text": self.text if len(self.text) <= 2000 else self.text[:1999] + "…",
        }
        return {
            "title": " ".join(self.text.split())[:80],
            "artist": f"Chatterbox ({self.model}), synthetic speech",
            "software": f"chatterbox-nb {__version__}",
            "date": self.created.date().isoformat(),
            "comment": json.dumps(comment, ensure_ascii=False),
        }

    def save(self, path: str | Path) -> Path:
        """Writes the take to a file, with its provenance in the tags; the ending says which kind.

        Args:
            path: ends in .wav, .flac, .mp3 or .ogg; folders are made.

        Raises:
            SettingError: another ending, a place that cannot be written to, or a take without sound.
        """
        path = Path(path).expanduser()
        kind = file_kind(path)
        if not len(self):
            raise SettingError(f"No sound came out, so {path.name} is not written. Try another seed.")
        data = audio.encode(self.samples, self.sample_rate, kind, self.tags())
        problem = ""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        except OSError as error:
            problem = error.strerror or str(error)
        if problem:
            raise SettingError(f"{path} cannot be written: {problem}.")
        return path


def file_kind(path: str | Path) -> str:
    """What kind of audio a file is to hold, by its ending.

    Raises:
        SettingError: it is none of those a take is saved as.
    """
    kind = Path(path).suffix.lower().lstrip(".")
    if kind not in audio.FORMATS:
        endings = ", ".join(f".{name}" for name in audio.FORMATS)
        raise SettingError(
            f"A take is saved as {endings}; '{Path(path).name}' ends in none of them.{nearest(kind, audio.FORMATS)}"
        )
    return kind


def now() -> datetime:
    return datetime.now(timezone.utc)

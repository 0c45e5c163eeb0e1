"""Audio in and out of arrays: read, resample, level, join, encode, tag.

Samples are float32 in [-1, 1]; one channel; rates in Hz. Knows nothing of models.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from chatterbox_nb.errors import SettingError, VoiceError, nearest

Samples = npt.NDArray[np.float32]

# File ending -> (libsndfile format, subtype). MP3 is what notebooks embed: small, and plays everywhere.
FORMATS = {
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "ogg": ("OGG", "VORBIS"),
}
# Reading stops here: a reference needs seconds, and ten hours of audio would fill the memory.
_LONGEST_READ_SECONDS = 600.0
_SILENCE_RMS = 10 ** (-60 / 20)  # -60 dB below full scale


@dataclass(frozen=True)
class Clip:
    """Recorded audio: float32 samples `[n]` in one channel, and their rate in Hz."""

    samples: Samples
    sample_rate: int

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.sample_rate


def read_clip(source: str | Path | tuple[Any, int]) -> Clip:
    """Reads a reference clip, of any rate and any number of channels.

    Args:
        source: a file that libsndfile reads (WAV, FLAC, MP3, OGG, AIFF, ...), or `(samples, sample_rate)` with
            samples `[n]`, `[n, channels]` or `[channels, n]`, floating point in [-1, 1] or integers at full scale.

    Raises:
        VoiceError: no such file, not audio, empty, silent, or not finite.
    """
    if isinstance(source, tuple):
        clip, name = _from_array(*source), "The array"
    else:
        path = Path(source).expanduser()
        clip, name = _from_file(path), str(path)
    if not len(clip.samples):
        raise VoiceError(f"{name} holds no samples.")
    if not np.isfinite(clip.samples).all():
        raise VoiceError(f"{name} holds NaN or infinite samples.")
    if (rms := float(np.sqrt(np.mean(np.square(clip.samples, dtype=np.float64))))) < _SILENCE_RMS:
        level = f"{20 * math.log10(rms):.0f} dB" if rms else "digital silence"
        raise VoiceError(f"{name} is silent ({level}); a voice needs speech above -60 dB.")
    return clip


def _from_file(path: Path) -> Clip:
    import soundfile

    if not path.exists():
        near = nearest(path.name, [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else [])
        raise VoiceError(f"There is no file {path}.{near}")
    if path.is_dir():
        raise VoiceError(f"{path} is a folder; a reference clip is one audio file.")
    reason = ""
    try:
        with soundfile.SoundFile(path) as file:
            frames = min(file.frames, int(_LONGEST_READ_SECONDS * file.samplerate))
            samples = file.read(frames, dtype="float32", always_2d=True)
            rate = file.samplerate
    except (soundfile.SoundFileError, RuntimeError, TypeError) as error:
        reason = str(error).rsplit(":", 1)[-1].strip()
    if reason:
        raise VoiceError(f"{path} cannot be read as audio ({reason}). WAV, FLAC, MP3, OGG and AIFF can.")
    return Clip(_one_channel(samples), rate)


def _from_array(samples: Any, sample_rate: int) -> Clip:
    array = np.asarray(samples)
    if array.ndim not in (1, 2) or array.dtype.kind not in "fiu":
        raise VoiceError(f"Samples must be numbers [n] or [n, channels]; these are {array.dtype} {list(array.shape)}.")
    if not 1_000 <= int(sample_rate) <= 384_000:
        raise VoiceError(f"A sample rate of {sample_rate} Hz is not audio; it is usually 16000 to 48000.")
    if array.dtype.kind in "iu":
        info = np.iinfo(array.dtype)
        middle = (info.max + info.min + 1) / 2
        array = (array.astype(np.float64) - middle) / (info.max - middle + 1)
    array = array.astype(np.float32)
    if array.ndim == 2 and array.shape[0] < array.shape[1]:
        array = array.T  # [channels, n], as torchaudio has it
    return Clip(_one_channel(array if array.ndim == 2 else array[:, None]), int(sample_rate))


def _one_channel(samples: npt.NDArray[np.float32]) -> Samples:
    """`[n, channels]` to `[n]` by the mean, as librosa does it."""
    return np.ascontiguousarray(samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1), dtype=np.float32)


def resample(samples: Samples, source_rate: int, target_rate: int) -> Samples:
    """`[n]` at one rate to `[ceil(n * target / source)]` at another; the numbers of `librosa.resample`."""
    import soxr

    if source_rate == target_rate:
        return samples
    wanted = math.ceil(len(samples) * target_rate / source_rate)
    out = soxr.resample(samples, source_rate, target_rate, quality="HQ")[:wanted]
    return np.pad(out, (0, wanted - len(out))).astype(np.float32, copy=False)


def join(pieces: Sequence[Samples], pauses_seconds: Sequence[float], sample_rate: int) -> tuple[Samples, list[float]]:
    """Joins pieces with silence after each.

    Returns:
        The samples, and the second at which each piece starts.
    """
    parts: list[Samples] = []
    starts: list[float] = []
    length = 0
    for piece, pause in zip(pieces, pauses_seconds, strict=True):
        starts.append(length / sample_rate)
        silence = np.zeros(round(pause * sample_rate), np.float32)
        parts += [piece, silence]
        length += len(piece) + len(silence)
    return (np.concatenate(parts) if parts else np.zeros(0, np.float32)), starts


def encode(samples: Samples, sample_rate: int, kind: str, tags: Mapping[str, str] | None = None) -> bytes:
    """Samples as the bytes of a file, at their own level: nothing is normalized.

    Args:
        samples: float32 `[n]` in [-1, 1].
        sample_rate: Hz.
        kind: a key of `FORMATS`.
        tags: libsndfile's names: title, artist, software, comment, date, copyright, license.

    Raises:
        SettingError: `kind` is none of `FORMATS`.
    """
    import soundfile

    if kind not in FORMATS:
        raise SettingError(f"Audio is saved as {', '.join(FORMATS)}, not '{kind}'.{nearest(kind, FORMATS)}")
    format_, subtype = FORMATS[kind]
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", sample_rate, 1, subtype=subtype, format=format_) as file:
        for name, value in (tags or {}).items():
            setattr(file, name, value)
        file.write(samples)
    return buffer.getvalue()


def read_tags(path: str | Path) -> dict[str, str]:
    """The tags that `encode` wrote."""
    import soundfile

    with soundfile.SoundFile(Path(path)) as file:
        return {name: value for name, value in file.copy_metadata().items() if value}

"""Audio in and out of arrays: read, resample, level, join, encode, tag.

Samples are float32 in [-1, 1]; one channel; rates in Hz. Knows nothing of models.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
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
# The tags that survive in every kind of file -> their ID3 frames: libsndfile's own are Latin-1, so MP3 gets ours.
TAGS = {
    "title": "TIT2", "artist": "TPE1", "software": "TSSE", "date": "TDRC", "copyright": "TCOP", "comment": "COMM",
}  # fmt: skip
# Reading stops here: a reference needs seconds, and ten hours of audio would fill the memory.
_LONGEST_READ_SECONDS = 600.0
_SILENCE_RMS = 10 ** (-60 / 20)  # -60 dB below full scale
_BLOCK = 16_384  # samples a write: libsndfile's Vorbis puts a write on the stack, and minutes of audio overflow it


@dataclass(frozen=True)
class Clip:
    """Recorded audio: float32 samples `[n]` in one channel, and their rate in Hz."""

    samples: Samples
    sample_rate: int

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.sample_rate


def read_clip(source: str | Path | tuple[Any, int], longest_seconds: float = _LONGEST_READ_SECONDS) -> Clip:
    """Reads a clip, of any rate and any number of channels.

    Args:
        source: a file that libsndfile reads (WAV, FLAC, MP3, OGG, AIFF, ...), or `(samples, sample_rate)` with
            samples `[n]`, `[n, channels]` or `[channels, n]`, floating point in [-1, 1] or integers at full scale.
        longest_seconds: of a file, where reading stops.

    Raises:
        VoiceError: no such file, not audio, empty, silent, or not finite.
    """
    if isinstance(source, tuple):
        if len(source) != 2:
            raise VoiceError(f"An array is given as (samples, sample_rate), in two parts; this has {len(source)}.")
        clip, name = _from_array(*source), "The array"
    else:
        path = Path(source).expanduser()
        clip, name = _from_file(path, longest_seconds), str(path)
    if not len(clip.samples):
        raise VoiceError(f"{name} holds no samples.")
    if not np.isfinite(clip.samples).all():
        raise VoiceError(f"{name} holds NaN or infinite samples.")
    if (rms := float(np.sqrt(np.mean(np.square(clip.samples, dtype=np.float64))))) < _SILENCE_RMS:
        level = f"{20 * math.log10(rms):.0f} dB" if rms else "digital silence"
        raise VoiceError(f"{name} is silent ({level}); a clip needs speech above -60 dB.")
    return clip


def there_is(path: Path) -> bool:
    """Whether there is such a file or folder; False, and no error, for a name too long to be one."""
    with suppress(OSError):
        return path.exists()
    return False


def _from_file(path: Path, longest_seconds: float) -> Clip:
    import soundfile

    if not there_is(path):
        others: list[str] = []
        with suppress(OSError):  # a folder that may not be listed
            others = [other.name for other in path.parent.iterdir()]
        raise VoiceError(f"There is no file {path}.{nearest(path.name, others)}")
    if path.is_dir():
        raise VoiceError(f"{path} is a folder; a clip is one audio file.")
    reason = ""
    try:
        with soundfile.SoundFile(path) as file:
            frames = min(file.frames, int(longest_seconds * file.samplerate))
            samples = file.read(frames, dtype="float32", always_2d=True)
            rate = file.samplerate
    except (soundfile.SoundFileError, RuntimeError, TypeError) as error:
        reason = str(error).rsplit(":", 1)[-1].strip(" .")
    if reason:
        raise VoiceError(f"{path} cannot be read as audio ({reason}). WAV, FLAC, MP3, OGG and AIFF can.")
    return Clip(_one_channel(samples), rate)


def _from_array(samples: Any, sample_rate: Any) -> Clip:
    array, rate = _as_array(samples), _as_rate(sample_rate)
    if array.ndim not in (1, 2) or array.dtype.kind not in "fiu":
        raise VoiceError(f"Samples must be numbers [n] or [n, channels]; these are {array.dtype} {list(array.shape)}.")
    if not array.size:
        return Clip(np.zeros(0, np.float32), rate)
    if array.dtype.kind in "iu":
        info = np.iinfo(array.dtype)
        middle = (info.max + info.min + 1) / 2
        array = (array.astype(np.float64) - middle) / (info.max - middle + 1)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused as that
        array = array.astype(np.float32)
    if array.ndim == 2 and array.shape[0] < array.shape[1]:
        array = array.T  # [channels, n], as torchaudio has it
    return Clip(_one_channel(array if array.ndim == 2 else array[:, None]), rate)


def _as_array(samples: Any) -> npt.NDArray[Any]:
    if hasattr(samples, "detach"):
        samples = samples.detach().cpu()  # a tensor, of any device
    problem = ""
    try:
        return np.asarray(samples)
    except (TypeError, ValueError) as error:
        problem = str(error)
    raise VoiceError(f"Samples must be numbers [n] or [n, channels] ({problem}).")


def _as_rate(sample_rate: Any) -> int:
    try:
        rate = int(sample_rate)
    except (TypeError, ValueError, OverflowError):
        rate = 0
    if 1_000 <= rate <= 384_000:
        return rate
    if isinstance(sample_rate, (int, float, str)):
        raise VoiceError(f"A sample rate of {sample_rate} Hz is not audio; it is usually 16000 to 48000.")
    raise VoiceError(f"A sample rate is a number, not {type(sample_rate).__name__}: give (samples, sample_rate).")


def _one_channel(samples: npt.NDArray[np.float32]) -> Samples:
    """`[n, channels]` to `[n]` by the mean, as librosa does it."""
    return np.ascontiguousarray(samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1), dtype=np.float32)


def resample(samples: Samples, source_rate: int, target_rate: int) -> Samples:
    """`[n]` at one rate to `[ceil(n * (target / source))]` at another: what `librosa.resample` gives, bit for bit.

    The quotient is rounded before it is multiplied, as there: 441 samples at 44.1 kHz are 241 at 24 kHz.
    """
    import soxr

    if source_rate == target_rate:
        return samples
    wanted = math.ceil(len(samples) * (target_rate / source_rate))
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
        tags: names from `TAGS`; those without a value are left out.

    Raises:
        SettingError: `kind` is none of `FORMATS`, or a tag none of `TAGS`.
    """
    import soundfile

    if kind not in FORMATS:
        raise SettingError(f"Audio is saved as {', '.join(FORMATS)}, not '{kind}'.{nearest(kind, FORMATS)}")
    tags = {name: value for name, value in (tags or {}).items() if value}
    for name in tags:
        if name not in TAGS:
            raise SettingError(f"There is no tag '{name}'; there are {', '.join(TAGS)}.{nearest(name, TAGS)}")
    format_, subtype = FORMATS[kind]
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", sample_rate, 1, subtype=subtype, format=format_) as file:
        for name, value in tags.items() if kind != "mp3" else ():
            setattr(file, name, value)
        for start in range(0, len(samples), _BLOCK):
            file.write(samples[start : start + _BLOCK])
    return (_id3(tags) if kind == "mp3" and tags else b"") + buffer.getvalue()


def _id3(tags: Mapping[str, str]) -> bytes:
    """An ID3v2.4 tag in UTF-8 (id3.org/id3v2.4.0-structure), to stand before an MP3."""

    def size(count: int) -> bytes:
        return bytes(count >> shift & 0x7F for shift in (21, 14, 7, 0))

    frames = b""
    for name, value in tags.items():
        language = b"eng\0" if name == "comment" else b""
        body = b"\x03" + language + value.encode()
        frames += TAGS[name].encode() + size(len(body)) + b"\0\0" + body
    return b"ID3\x04\0\0" + size(len(frames)) + frames


def read_tags(path: str | Path) -> dict[str, str]:
    """The tags that `encode` wrote."""
    import soundfile

    with soundfile.SoundFile(Path(path)) as file:
        tags = {name: value for name, value in file.copy_metadata().items() if value}
        if file.format == "WAV" and "comment" not in tags and (comment := _wav_comment(Path(path).read_bytes())):
            tags["comment"] = comment
        return tags


def _wav_comment(data: bytes) -> str:
    """The comment in a WAV file: libsndfile writes one of any length, but reads none above 2 kB."""
    at = 12  # behind RIFF, the size, WAVE
    while at + 8 <= len(data):
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if name == b"ICMT":
            return data[at + 8 : at + 8 + size].rstrip(b"\0").decode(errors="replace")
        at += 12 if name == b"LIST" else 8 + size + size % 2  # into a list, over all else
    return ""

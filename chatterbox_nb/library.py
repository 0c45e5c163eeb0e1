"""Voices: from a clip, from the model, from the library on disk.

The library keeps the clip itself, as FLAC, so that a voice works with every model; what a model makes of it is kept
beside it, one small file for each model's weights, so that its encoders need not be read again.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatterbox_nb import audio, manager, settings
from chatterbox_nb.audio import Clip
from chatterbox_nb.errors import VoiceError, nearest
from chatterbox_nb.events import Progress

if TYPE_CHECKING:
    from chatterbox_nb.engine.conditioning import Encoders, Voice
    from chatterbox_nb.engine.model import Model
    from chatterbox_nb.jobs import Job

_NAME = re.compile(r"[\w][\w -]{0,63}")
_LONGEST_KEPT_SECONDS = 60.0
_PREPARED = 8  # voices kept in memory, each a few hundred kB

# Prepared voices by (weights, clip): a cell that names a clip again does not read the encoders again.
_prepared: OrderedDict[tuple[str, str], Voice] = OrderedDict()


class VoiceLibrary:
    """Voices by name, in a folder (`VOICE_LIBRARY_DIR`).

    >>> tts.voices.add("grandma", "grandma.wav")
    >>> tts.speak("Hello.", voice="grandma")
    """

    @property
    def folder(self) -> Path:
        return settings.value_of("voice_dir")

    def add(self, name: str, clip: str | Path | tuple[Any, int]) -> None:
        """Keeps a clip under a name; an older one of that name is replaced.

        Args:
            name: letters, digits, spaces, `_` and `-`.
            clip: an audio file, or `(samples, sample_rate)`.

        Raises:
            VoiceError: the name or the clip cannot be used.
        """
        if not _NAME.fullmatch(name) or name == "builtin":
            raise VoiceError(f"'{name}' cannot name a voice: use letters, digits, spaces, _ and -, and not 'builtin'.")
        read = audio.read_clip(clip)
        kept = read.samples[: int(_LONGEST_KEPT_SECONDS * read.sample_rate)]
        data = audio.encode(kept, read.sample_rate, "flac", {"title": name})
        if name in self:
            self.remove(name)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{name}.flac").write_bytes(data)
        manager.get().changed()

    def list(self) -> list[str]:
        """The names, in order."""
        return sorted(path.stem for path in self.folder.glob("*.flac")) if self.folder.is_dir() else []

    def path(self, name: str) -> Path:
        """The clip of a name.

        Raises:
            VoiceError: no such voice.
        """
        if name not in self:
            have = self.list()
            listed = f"there are {', '.join(have)}" if have else "the library is empty"
            raise VoiceError(
                f"There is no voice '{name}'; {listed}.{nearest(name, have)} Add one: tts.voices.add(name, clip)"
            )
        return self.folder / f"{name}.flac"

    def remove(self, name: str) -> None:
        """Forgets a voice. Raises VoiceError when there is none of that name."""
        path = self.path(name)
        for prepared in self.folder.glob(f"{name}.*.safetensors"):
            prepared.unlink()
        path.unlink()
        manager.get().changed()

    def __getitem__(self, name: str) -> Voice:
        """The voice, prepared for the loaded model."""
        shared = manager.get()
        shared.loaded()
        return shared.submit("preparing a voice", lambda job: resolve(shared.loaded(), name, job), kind="voice").wait()

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self.list()

    def __iter__(self) -> Iterator[str]:
        return iter(self.list())

    def __len__(self) -> int:
        return len(self.list())

    def __repr__(self) -> str:
        return f"VoiceLibrary({', '.join(self.list()) or 'empty'}; {self.folder})"


voices = VoiceLibrary()


def resolve(model: Model, voice: Any, job: Job[Any], encoders: Callable[[], Encoders] | None = None) -> Voice:
    """What a caller named as a voice, prepared for a model. Runs on the model thread.

    Args:
        voice: a Voice, a name of the library, "builtin", an audio file, `(samples, sample_rate)`, or None for the
            model's own.
        encoders: gives what reads a clip, where the caller reads one too; None is the model's `read_encoders`.

    Raises:
        VoiceError: it cannot be used.
    """
    from chatterbox_nb.engine.conditioning import Voice

    read = model.read_encoders if encoders is None else encoders
    if isinstance(voice, Voice):
        return _check_fits(voice, model)
    if voice is None or voice == "builtin":
        return model.builtin_voice()
    if isinstance(voice, str) and voice in voices:
        path = voices.path(voice)
        return _prepare(model, audio.read_clip(path), voice, job, voices.folder, read)
    if isinstance(voice, (str, Path)):
        path = _as_path(voice) if isinstance(voice, str) else voice
        return _prepare(model, audio.read_clip(path), path.name, job, None, read)
    if isinstance(voice, tuple) and len(voice) == 2:
        return _prepare(model, audio.read_clip(voice), "array", job, None, read)
    raise VoiceError(f"A voice is a name, a file, (samples, sample_rate) or a Voice, not {type(voice).__name__}.")


def _as_path(voice: str) -> Path:
    path = Path(voice).expanduser()
    if not audio.there_is(path) and not path.suffix and path.name == voice:
        voices.path(voice)  # a bare word was meant as a name: the library's error helps more
    return path


def _check_fits(voice: Voice, model: Model) -> Voice:
    widths = voice.speaker.shape[1], model.spec.t3.speaker_width
    if widths[0] != widths[1]:
        raise VoiceError(
            f"{voice.name} was prepared for another model: its embedding has {widths[0]} values, {model.spec.name} "
            f"wants {widths[1]}. Give the clip itself."
        )
    return voice


def _prepare(
    model: Model, clip: Clip, name: str, job: Job[Any], folder: Path | None, encoders: Callable[[], Encoders]
) -> Voice:
    from chatterbox_nb.engine import conditioning

    warned = conditioning.check_clip(clip, model.spec.voice, name)
    digest = hashlib.sha256(clip.samples.tobytes() + str(clip.sample_rate).encode()).hexdigest()
    key = model.report.weights, digest
    if key in _prepared:
        _prepared.move_to_end(key)
        return replace(_prepared[key], name=name, warnings=warned)
    kept = folder / f"{name}.{key[0][:8]}{key[1][:8]}.safetensors" if folder else None
    found = conditioning.read_voice(kept, name, model.spec) if kept else None
    if found is None:
        job.observe(Progress("voice", detail=name))
        job.cancel_token.check()
        found = conditioning.prepare(clip, encoders(), model.spec, name)
        if kept:
            conditioning.write_voice(kept, found)
    found = replace(found, warnings=warned)
    _prepared[key] = found
    while len(_prepared) > _PREPARED:
        _prepared.popitem(last=False)
    return found

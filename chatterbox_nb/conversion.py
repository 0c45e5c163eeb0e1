"""What people call to have a clip in another voice: `convert`. Clips are checked here, before any work starts."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatterbox_nb import library, making, manager, settings
from chatterbox_nb.audio import read_clip, resample
from chatterbox_nb.errors import SettingError, VoiceError
from chatterbox_nb.events import CancelToken, Observer, Progress
from chatterbox_nb.jobs import Job
from chatterbox_nb.take import ConversionRequest, Take
from chatterbox_nb.usage import PeakMeter

if TYPE_CHECKING:
    from chatterbox_nb.engine.conditioning import Voice
    from chatterbox_nb.engine.conversion import Conversion
    from chatterbox_nb.engine.model import Model

_OPTIONS = ("cfm_steps", "voice_seconds")
_OTHER_OPTIONS = ("effort",)
_SHORTEST_SECONDS = 0.1  # shorter, and its watermark cannot be read
_LONGEST_SECONDS = 1800.0  # its sound is as much as the history of takes keeps
_NAME_LENGTH = 60  # of a take that is converted: so much of its text


def convert(
    audio: Any,
    voice: Any = None,
    seed: int | None = None,
    *,
    observer: Observer | None = None,
    cancel: CancelToken | None = None,
    wait: bool = True,
    **options: Any,
) -> Take:
    """Says what a clip says in another voice, as fast and with the same melody; or a request again.

    Any loaded model can: its T3 is not asked. A clip above 24 s is cut where it is quiet and made piece by piece.

    Args:
        audio: a file, `(samples, sample_rate)`, or a Take; .1 s to 30 minutes. Or a `take.request`, to have it again.
        voice: a name of the library, an audio file, `(samples, sample_rate)`, a Voice; None is the model's own.
        seed: 0 to 2⁶³ - 1; None draws one, which the take remembers.
        observer: told of progress, on the model thread.
        cancel: stops it within a flow step; the pieces that are finished are in the Cancelled's `take`.
        wait: False raises Busy when the model is at work.
        options: effort, cfm_steps, voice_seconds, as of `speak`.

    Returns:
        The take.

    Raises:
        NotLoaded, VoiceError, SettingError, Busy, Cancelled, EngineError, OutOfMemory.
    """
    return submit(audio, voice, seed, observer=observer, cancel=cancel, wait=wait, **options).wait()


def submit(
    audio: Any,
    voice: Any = None,
    seed: int | None = None,
    *,
    observer: Observer | None = None,
    cancel: CancelToken | None = None,
    wait: bool = True,
    **options: Any,
) -> Job[Take]:
    """Like `convert`, without waiting: returns the Job."""
    shared = manager.get()
    model = shared.loaded()
    if isinstance(audio, ConversionRequest):
        if voice is not None or seed is not None or options:
            raise SettingError("A request is converted as it is. To change it: dataclasses.replace(request, seed=...)")
        request, voice = audio, audio.voice
    else:
        values = making.read_options(options, _OPTIONS, _OTHER_OPTIONS, model.spec)
        voice = voice if voice is not None else settings.value_of("voice")
        request = _request(audio, making.read_seed(seed), values)
    keeping = making.keeping()

    def work(job: Job[Take]) -> Take:
        return _take(shared.loaded(), request, voice, job, keeping)

    return shared.submit("converting a clip", work, observer, cancel, wait, kind="take")


def _request(clip: Any, seed: int, values: dict[str, Any]) -> ConversionRequest:
    """The clip as it is heard, at 16 kHz. Raises VoiceError."""
    from chatterbox_nb.engine.conditioning import S3_RATE

    source: Any = clip
    if isinstance(clip, Take):
        name, source = " ".join(clip.text.split())[:_NAME_LENGTH], (clip.samples, clip.sample_rate)
    elif isinstance(clip, (str, Path)):
        name = Path(clip).name
    elif isinstance(clip, tuple) and len(clip) == 2:
        name = "array"
    else:
        raise VoiceError(f"A clip is a file, (samples, sample_rate) or a Take, not {type(clip).__name__}.")
    read = read_clip(source, _LONGEST_SECONDS + 1)
    if read.seconds < _SHORTEST_SECONDS:
        raise VoiceError(
            f"{name} is {read.seconds:.3f} s long; a clip to convert has at least {_SHORTEST_SECONDS:g} s."
        )
    if read.seconds > _LONGEST_SECONDS:
        raise VoiceError(
            f"{name} is longer than {_LONGEST_SECONDS / 60:g} minutes, which is the most for one take. "
            "Convert it in parts: tts.convert((samples[start:end], sample_rate))"
        )
    samples = resample(read.samples, read.sample_rate, S3_RATE).copy()
    samples.setflags(write=False)
    return ConversionRequest(name, samples, hashlib.sha256(samples.tobytes()).hexdigest(), seed, **values)


def _take(model: Model, asked: ConversionRequest, voice: Any, job: Job[Take], keeping: making.Keeping) -> Take:
    from chatterbox_nb.engine.conversion import Conversion, working_bytes
    from chatterbox_nb.engine.noise import StageNoise

    tell = manager.get().teller(job)
    job.device, job.needs = model.plan.device, model.parked_bytes
    job.cure = "Try %tts_load --precision int8, or less of the voice: --voice-seconds 3"
    with PeakMeter(model.plan.device, active=keeping.monitored) as meter:
        converting = Conversion(model, asked.samples, StageNoise(asked.seed), asked.cfm_steps, tell, job.cancel_token)
        # The encoders are gone again before the flow needs memory.
        found = _heard(model, converting, voice, job)
        request = replace(asked, voice=found)
        short = found.shortened(request.voice_seconds)
        job.needs = working_bytes(model, converting.pieces, short)
        compose = making.Composer(model, request, [0.0] * len(converting.pieces), meter)
        made, stopped = making.collect(converting.sound(short))
    return making.finish(made, len(converting.pieces), stopped, compose, keeping, tell)


def _heard(model: Model, converting: Conversion, voice: Any, job: Job[Take]) -> Voice:
    """The voice, prepared, and the clip's tokens found: what reads clips is read once for both."""
    encoders = cache(model.read_encoders)
    found = library.resolve(model, voice, job, encoders)
    manager.get().teller(job)(Progress("encoders"))
    job.cancel_token.check()
    converting.hear(encoders().tokenizer)
    return found

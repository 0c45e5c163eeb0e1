"""What people call: `load`, `speak`, `stream`. Arguments are checked here; the work is done on the model thread."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatterbox_nb import library, making, manager, settings, usage
from chatterbox_nb import text as texts
from chatterbox_nb.errors import SettingError, TextError
from chatterbox_nb.events import CancelToken, Observer
from chatterbox_nb.jobs import Job
from chatterbox_nb.take import SpeechRequest, Take
from chatterbox_nb.usage import MemoryReading, PeakMeter

if TYPE_CHECKING:
    from chatterbox_nb.checkpoint.spec import ModelSpec
    from chatterbox_nb.engine.model import Model
    from chatterbox_nb.engine.pipeline import SpokenChunk
    from chatterbox_nb.engine.report import LoadReport

_OPTIONS = (
    "exaggeration", "cfg_weight", "temperature", "min_p", "top_p", "top_k", "repetition_penalty", "max_chunk",
    "cfm_steps", "voice_seconds",
)  # fmt: skip
_DRAWN = ("cfg_weight", "temperature", "min_p", "top_p", "top_k", "repetition_penalty")  # options of a draw
_OTHER_OPTIONS = ("effort", "language")


def load(
    model: str | None = None,
    precision: str | None = None,
    device: str | None = None,
    source: str | Path | None = None,
    kernel: str | None = None,
    int8_off: Sequence[str] | str | None = None,
    observer: Observer | None = None,
    wait: bool = True,
) -> LoadReport:
    """Loads a model into this kernel, or switches to it.

    Args:
        model: a name of the catalog: "demo", "english".
        precision: "auto", "fp32", "fp16", "bf16" or "int8".
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        source: a folder or a hub repo `owner/name`; None is the model's own.
        kernel: what computes T3's step: "auto", "fused", "plain"; for int8 also "int8pack", "dynamic".
        int8_off: rows that int8 leaves as they are: "flow.linear", or several.
        observer: told of progress, on the model thread.
        wait: False raises Busy when the model is at work.

    Returns:
        What was loaded, why so, and the memory it takes.

    Raises:
        CheckpointError, PrecisionError, SettingError, OutOfMemory, Busy, Cancelled.
    """
    return manager.get().load(model, precision, device, source, kernel, int8_off, observer, wait=wait).wait()


def unload() -> None:
    """Drops the model and gives its memory back."""
    manager.get().unload().wait()


def info() -> manager.ModelInfo:
    """What is loaded. Raises NotLoaded."""
    return manager.get().info()


def memory() -> MemoryReading:
    """A reading of the device and of this process, in bytes."""
    return manager.get().memory()


def speak(
    text: str | SpeechRequest,
    voice: Any = None,
    seed: int | None = None,
    *,
    observer: Observer | None = None,
    cancel: CancelToken | None = None,
    wait: bool = True,
    **options: Any,
) -> Take:
    """Speaks a text, or a request again.

    Args:
        text: any length; it is cut at sentence ends. Or a `take.request`, to hear it again.
        voice: a name of the library, an audio file, `(samples, sample_rate)`, a Voice; None is the model's own.
        seed: 0 to 2⁶³ - 1; None draws one, which the take remembers.
        observer: told of progress, on the model thread.
        cancel: stops it within a token or a flow step; what is finished is in the Cancelled's `take`.
        wait: False raises Busy when the model is at work.
        options: exaggeration, cfg_weight, temperature, min_p, top_p, top_k, repetition_penalty, max_chunk;
            language, its code ("fr") or English name, for a model that has several;
            effort, "best", "balanced" or "fast": less work, and what docs/effort.md says it costs. An effort is what
            these two are where neither the call nor a setting says them: cfm_steps, Euler steps of the flow, 1 to
            100; voice_seconds, how much of the voice's clip the flow reads, from .5, the end of it.

    Returns:
        The take.

    Raises:
        NotLoaded, TextError, VoiceError, SettingError, Busy, Cancelled, EngineError, OutOfMemory.
    """
    return submit(text, voice, seed, observer=observer, cancel=cancel, wait=wait, **options).wait()


def submit(
    text: str | SpeechRequest,
    voice: Any = None,
    seed: int | None = None,
    *,
    observer: Observer | None = None,
    cancel: CancelToken | None = None,
    wait: bool = True,
    on_chunk: Callable[[Take], None] | None = None,
    on_segment: Callable[[Take], None] | None = None,
    **options: Any,
) -> Job[Take]:
    """Like `speak`, without waiting: returns the Job.

    Args:
        on_chunk: gets a Take of each chunk, on the model thread.
        on_segment: gets a Take of each segment of each chunk instead, while its tokens are still coming.
    """
    shared = manager.get()
    asked = _Asked(shared.loaded(), text, voice, seed, options)

    def work(job: Job[Take]) -> Take:
        return _take(shared.loaded(), asked, job, on_chunk, on_segment)

    return shared.submit("speaking", work, observer, cancel, wait, kind="take")


def stream(
    text: str | SpeechRequest, voice: Any = None, seed: int | None = None, *, segments: bool = False, **options: Any
) -> Iterator[Take]:
    """Speaks a text and yields a Take for each chunk as soon as it is ready. Ending the loop early stops the work.

    Args:
        segments: yields segments of chunks, which sound while their tokens are still coming: the first after about a
            second of speech, each about twice as long as the one before. The words and tokens are the same, it takes
            more work, and docs/streaming.md says how the sound differs.

    Other args and errors as of `speak`.
    """
    ready: queue.SimpleQueue[Take | None] = queue.SimpleQueue()
    told: Any = {"on_segment" if segments else "on_chunk": ready.put}
    job = submit(text, voice, seed, **told, **options)
    job.when_done(lambda: ready.put(None))
    return _pieces(job, ready)


def _pieces(job: Job[Take], ready: queue.SimpleQueue[Take | None]) -> Iterator[Take]:
    try:
        while (piece := ready.get()) is not None:
            yield piece
        job.result()
    finally:
        if not job.done:
            job.cancel()


class _Asked:
    """What a caller asked for, checked before any work starts."""

    def __init__(
        self, model: Model, asked: str | SpeechRequest, voice: Any, seed: int | None, options: dict[str, Any]
    ) -> None:
        if isinstance(asked, SpeechRequest):
            if voice is not None or seed is not None or options:
                raise SettingError("A request is spoken as it is. To change it: dataclasses.replace(request, seed=...)")
            self.voice: Any = asked.voice
            self.request = asked
        else:
            if not isinstance(asked, str):
                raise TextError(f"Text is a str, not {type(asked).__name__}.")
            language = model.language(_language(options.get("language"), model))
            values = making.read_options(options, _OPTIONS, _OTHER_OPTIONS, model.spec)
            self.voice = voice if voice is not None else settings.value_of("voice")
            self.request = SpeechRequest(asked, making.read_seed(seed), language=language, **values)
        self.request, self.ignored = _heeded(self.request, model.spec)
        limit = settings.value_of("max_total")
        if len(self.request.text) > limit:
            raise TextError(f"The text has {len(self.request.text):,} characters; MAX_TOTAL_LENGTH allows {limit:,}.")
        self.keeping = making.keeping()
        rules = model.rules(self.request.language)
        self.chunks = texts.chunks(self.request.text, rules, self.request.max_chunk)


def _heeded(request: SpeechRequest, spec: ModelSpec) -> tuple[SpeechRequest, tuple[str, ...]]:
    """A request with what the model ignores at the model's own values, and the names of what was asked otherwise."""
    own = {name: spec.defaults.get(name, getattr(SpeechRequest, name)) for name in spec.ignores}
    ignored = tuple(name for name, value in own.items() if getattr(request, name) != value)
    return replace(request, **{name: own[name] for name in ignored}), ignored


def _language(asked: Any, model: Model) -> str | None:
    """The language that is asked for: by the call, or by a setting, which is for models that have several."""
    if asked is not None or len(model.spec.languages) > 1:
        found: str | None = settings.value_of("language", asked)
        return found
    return None


def _take(
    model: Model,
    asked: _Asked,
    job: Job[Take],
    on_chunk: Callable[[Take], None] | None,
    on_segment: Callable[[Take], None] | None,
) -> Take:
    from chatterbox_nb.engine.noise import StageNoise
    from chatterbox_nb.engine.pipeline import Speaker, chunks_at_once, working_bytes
    from chatterbox_nb.engine.sampling import Sampling

    tell = manager.get().teller(job)
    job.device, job.needs = model.plan.device, model.parked_bytes
    job.cure = "Try %tts_load --precision int8, or a shorter text (MAX_CHUNK_LENGTH)."
    with PeakMeter(model.plan.device, active=asked.keeping.monitored) as meter:
        voice = library.resolve(model, asked.voice, job)
        request = replace(asked.request, voice=voice)
        pieces, language = [chunk.text for chunk in asked.chunks], request.language
        job.needs = working_bytes(model, pieces, request.cfg_weight > 0, language)
        drawn = Sampling.of(model.spec, **{name: getattr(request, name) for name in _DRAWN})
        noise = StageNoise(request.seed)
        compose = making.Composer(
            model,
            request,
            [chunk.pause_seconds for chunk in asked.chunks],
            meter,
            partial(_warnings, model, request, asked.ignored),
        )
        early = on_chunk is not None or on_segment is not None
        free = usage.read(model.plan.device).allocatable

        def chunks() -> Iterator[SpokenChunk]:
            yield from Speaker(
                model, voice.shortened(request.voice_seconds), drawn, request.exaggeration, noise, pieces,
                tell, job.cancel_token, steps=request.cfm_steps,
                at_once=1 if early else chunks_at_once(model, pieces, request.cfg_weight > 0, free, language),
                on_segment=None if on_segment is None else lambda index, part: on_segment(compose([part], index)),
                language=language,
            )  # fmt: skip

        tell_chunk = None if on_chunk is None else lambda index, chunk: on_chunk(compose([chunk], index))
        spoken, stopped = making.collect(chunks(), tell_chunk)
    return making.finish(spoken, len(pieces), stopped, compose, asked.keeping, tell)


def _warnings(
    model: Model, request: SpeechRequest, ignored: tuple[str, ...], spoken: list[SpokenChunk], first: int
) -> list[str]:
    """What the listener should know of chunks, of which the first has this index."""
    language = model.language(request.language)
    found = [f"{model.spec.name} has no {', '.join(ignored)}: what was asked of it is ignored."] if ignored else []
    found += model.tokenizer.warnings(request.text, language)
    ruled = texts.apply_rules(request.text, model.rules(language))
    if skipped := model.tokenizer.unspeakable(ruled, language):
        listed = " ".join(skipped[:20])
        found.append(f"{model.spec.name} cannot say these characters, they were skipped: {listed}")
    for index, chunk in enumerate(spoken, first + 1):
        if chunk.finish is None:
            continue
        if not chunk.tokens:
            found.append(f"Chunk {index} came out empty: '{chunk.text}'. Try another seed.")
        elif chunk.finish != "stop":
            seconds = len(chunk.samples) / model.spec.sample_rate
            found.append(
                f"Chunk {index} did not end by itself and was cut at {seconds:.0f} s ({chunk.finish}). "
                "Try another seed."
            )
    return found

"""A loaded model: its networks on their device, and how they came there.

`prepare` builds the modules on the meta device, plans, and checks all that can be checked before memory is taken;
`finish` fills them (`weights.py`). `load` is both.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from chatterbox_nb import events, languages
from chatterbox_nb.checkpoint import content, reference
from chatterbox_nb.checkpoint.cache import QuantizedCache
from chatterbox_nb.checkpoint.inventory import inventory
from chatterbox_nb.checkpoint.source import Files
from chatterbox_nb.checkpoint.spec import ModelSpec
from chatterbox_nb.engine import assembly, compiling, conditioning, weights
from chatterbox_nb.engine.conditioning import Encoders, Voice
from chatterbox_nb.engine.decode import KeptPrefix
from chatterbox_nb.engine.gpu_flow import Solver
from chatterbox_nb.engine.graphs import Recorder
from chatterbox_nb.engine.nets.t3 import T3
from chatterbox_nb.engine.report import LoadReport, measure
from chatterbox_nb.engine.store import Store
from chatterbox_nb.engine.tokens import TextTokenizer, tokenizer_of
from chatterbox_nb.engine.watermark import Watermarker
from chatterbox_nb.errors import OutOfMemory, PrecisionError, VoiceError, cure
from chatterbox_nb.events import CancelToken, Observer, Progress
from chatterbox_nb.precision.plan import (
    OFF_BY_DEFAULT,
    DeviceFacts,
    Plan,
    TensorInfo,
    choose_precision,
    emulation,
    plan,
)
from chatterbox_nb.text import TextRules
from chatterbox_nb.usage import PeakMeter


@dataclass
class Model:
    """A loaded model. Used by one thread at a time."""

    spec: ModelSpec
    files: Files
    plan: Plan
    tensors: tuple[TensorInfo, ...]
    t3: T3
    flow: Any  # the package's CausalMaskedDiffWithXvec
    vocoder: Any  # the package's HiFTGenerator
    tokenizer: TextTokenizer
    watermarker: Watermarker
    builtin: Voice | None
    encoders: Encoders | None  # where they are kept between voices
    recorder: Recorder
    report: LoadReport
    prefix: KeptPrefix = field(default_factory=KeptPrefix)

    @property
    def device(self) -> torch.device:
        return torch.device(self.plan.device)

    def modules(self) -> dict[str, nn.Module]:
        """What stays in memory."""
        kept = self.encoders.modules() if self.encoders else {}
        return {"t3": self.t3, "flow": self.flow, "vocoder": self.vocoder, **kept}

    def rules(self, language: str | None = None) -> TextRules:
        """What a text in a language needs; None is the model's default."""
        return replace(languages.rules_of(self.spec.text, self.language(language)), tags=self.tokenizer.tags)

    def language(self, asked: str | None = None) -> str:
        """The code of a language that the model speaks, as `languages.find` reads it; None is its default."""
        own = self.spec.text.language
        return own if asked is None else languages.find(asked, self.spec.languages, self.spec.name)

    def text_ids(self, text: str, language: str | None = None) -> Tensor:
        """Text ids `[S]` of a chunk, start and stop included where the model has them."""
        ids = self.tokenizer.encode(text, self.language(language))
        if not self.spec.t3.gpt2:
            ids = [self.spec.t3.start_text, *ids, self.spec.t3.stop_text]
        return torch.tensor(ids, device=self.device)

    def builtin_voice(self) -> Voice:
        if self.builtin is None:
            raise VoiceError(f"{self.spec.name} comes without a voice of its own. Name a clip: --voice clip.wav")
        return self.builtin

    def read_encoders(self) -> Encoders:
        """The networks that read a clip, on the CPU. Drop them after use: they are kept only where the plan says so."""
        if self.encoders is not None:
            return self.encoders
        return assembly.read_encoders(self.spec, self.files, self.tensors, self.plan)[0]

    @property
    def reason(self) -> str:
        """Why this precision and kernel, and what of it turned out not to work here."""
        runner = self.t3.runner
        found = (
            ("no CUDA graphs", self.recorder.problem),
            ("no tensor cores for chunks side by side", runner.problem if runner else ""),
        )
        return "; ".join([self.plan.reason, *(f"{what} ({problem})" for what, problem in found if problem)])

    def rest(self) -> None:
        """Gives back what takes leave for the next one; it is made again then."""
        self.prefix.drop()
        if self.flow.solver is not None:
            self.flow.solver.rest()

    @property
    def parked_bytes(self) -> int:
        """What the encoders take while a voice is prepared, where they are not kept."""
        return sum(row.bytes for row in self.plan.rows if row.placement == "on demand")


class _Phases:
    """Tells an observer which phase a load is in, and keeps the seconds of each."""

    def __init__(self, observer: Observer, cancel: CancelToken | None) -> None:
        self.observer, self.cancel = observer, cancel
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str, detail: str = "") -> Iterator[None]:
        if self.cancel is not None:
            self.cancel.check()
        self.observer(Progress(stage, detail=detail))
        started = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started


@dataclass
class Prepared:
    """A model that was checked and planned, and takes no memory yet. Finish it once.

    What it shares with models that are loaded is held from here on, whatever becomes of them.
    """

    spec: ModelSpec
    files: Files
    device: DeviceFacts
    plan: Plan
    tensors: tuple[TensorInfo, ...]
    built: reference.Modules
    tokenizer: TextTokenizer
    builtin: Voice | None
    cache: QuantizedCache | None
    store: Store
    known: weights.Known
    phase: _Phases
    kernel: str = "auto"  # as it was asked for

    @property
    def shared_bytes(self) -> int:
        """Bytes of its components that are in memory already."""
        return weights.bytes_of(self.plan, self.known.found)

    @property
    def added_bytes(self) -> int:
        """Bytes of the tensors that `finish` makes."""
        return self.plan.expected_bytes - self.shared_bytes

    def check_room(self, free: int | None) -> None:
        """Raises OutOfMemory when the weights alone are more than is free.

        Args:
            free: bytes that it may have: what is free, and what it shares.
        """
        if free is None or self.plan.expected_bytes < free:
            return
        raise OutOfMemory(
            f"{self.spec.name} at {self.plan.precision} needs {self.plan.expected_bytes / 1e9:.2f} GB, "
            f"{free / 1e9:.2f} GB is free on {self.device.name}. {cure(self.plan.precision, self.spec.name)}"
        )


def load(spec: ModelSpec, files: Files, precision: str, device: DeviceFacts, *arguments: Any, **options: Any) -> Model:
    """Loads a model: `prepare`, a look at the free memory, `finish`.

    Args and errors: theirs.
    """
    prepared = prepare(spec, files, precision, device, *arguments, **options)
    free = device.free_bytes
    prepared.check_room(None if free is None else free + prepared.shared_bytes)
    return finish(prepared)


def prepare(
    spec: ModelSpec,
    files: Files,
    precision: str,
    device: DeviceFacts,
    kernel: str = "auto",
    why: str = "",
    observer: Observer = events.ignore,
    cancel: CancelToken | None = None,
    *,
    off: Sequence[str] = OFF_BY_DEFAULT,
    compute: str = "auto",
    keep_encoders: bool = False,
    cache: QuantizedCache | None = None,
    store: Store | None = None,
) -> Prepared:
    """Plans a model and checks its files.

    Args:
        files: where its files are (`checkpoint.source.find`).
        precision: auto, fp32, fp16, bf16 or int8.
        device: where it is to run.
        kernel: auto, fused, plain; for int8 also int8pack or dynamic.
        why: how the precision was chosen.
        off: rows that int8 leaves as they are.
        compute: the dtype that int8 computes in; auto is the device's.
        keep_encoders: what reads a clip stays in memory.
        cache: where the quantized form is kept; None reads the checkpoint and keeps nothing.
        store: components that are in memory, which this model may share; None shares nothing.

    Raises:
        CheckpointError, PrecisionError, Cancelled.
    """
    phase, store = _Phases(observer, cancel), Store() if store is None else store
    if device.kind == "cpu" and not device.unfused and not compiling.fits(spec.t3):
        device = replace(device, unfused="the model's sizes are not multiples of 16")
    with phase("import", "Chatterbox"):
        reference.import_package()
    with phase("build"):
        built = reference.build(spec)
        tensors = inventory(spec, built)
        if precision == "auto":
            precision, reason = choose_precision(tensors, device)
            why = f"auto, {reason}"
        planned = plan(tensors, precision, device, kernel, why, off, compute, keep_encoders)
    with phase("check"):
        cache = cache if precision == "int8" and files.origin != "embedded" else None  # the embedded one is tiny
        known = weights.look(spec, files, tensors, planned, store, cache, cancel)
        tokenizer = tokenizer_of(spec, files)
        builtin = conditioning.read_builtin(files.path("voice")) if files.has("voice") else None
    return Prepared(
        spec, files, device, planned, tensors, built, tokenizer, builtin, cache, store, known, phase, kernel
    )


def finish(prepared: Prepared) -> Model:
    """Fills the modules of a prepared model.

    Raises:
        CheckpointError, PrecisionError, Cancelled: and nothing stays in memory.
    """
    spec, planned, phase = prepared.spec, prepared.plan, prepared.phase
    warnings, shared = list(prepared.files.warnings), tuple(prepared.known.found)
    if slow := emulation(planned, prepared.device):
        warnings.append(slow)
    with PeakMeter() as meter:
        modules, fills, contents, how = weights.come_in(prepared, warnings)
        net: Any = modules["t3"]
        assembly.place_on_host(net, planned)
        encoders = None
        if planned.keeps_encoders:
            with phase("encoders"):
                encoders, more = assembly.read_encoders(spec, prepared.files, prepared.tensors, planned)
                fills |= more
        with phase("watermarker"):
            watermarker = Watermarker()
            watermarker.warm_up(spec.sample_rate)
        recorder = _recorder(modules, planned)
        if planned.kernel == "fused":
            with phase("compile", "T3's step"):
                planned = _with_step(prepared, modules, recorder)
    everything = {**modules, **(encoders.modules() if encoders else {})}
    rows = measure(planned, prepared.tensors, everything, fills)
    assembly.check_converted(rows)
    report = LoadReport(
        model=spec.name,
        title=spec.title,
        source=prepared.files.origin,
        plan=planned,
        rows=rows,
        shipped_bytes=planned.shipped_bytes,
        own_fp32_bytes=_bytes_at("fp32", prepared),
        own_fp16_bytes=_bytes_at("fp16", prepared),
        process_growth_bytes=meter.end - meter.start,
        process_peak_bytes=meter.peak - meter.start,
        watermarker_bytes=watermarker.bytes,
        weights=content.of_model(contents),
        cache=how,
        shared=shared,
        seconds=phase.seconds,
        warnings=tuple(warnings),
    )
    resident: Any = modules
    return Model(
        spec,
        prepared.files,
        planned,
        prepared.tensors,
        **resident,
        tokenizer=prepared.tokenizer,
        watermarker=watermarker,
        builtin=prepared.builtin,
        encoders=encoders,
        recorder=recorder,
        report=report,
    )


def _recorder(net: dict[str, Any], planned: Plan) -> Recorder:
    """What records this model's graphs; those of a component that is shared are there, and so is their recorder."""
    recorded = net["t3"].runner or net["flow"].solver
    recorder: Recorder = recorded.recorder if recorded else Recorder(torch.device(planned.device))
    if recorder.records and net["flow"].solver is None:
        net["flow"].solver = Solver(recorder)
    return recorder


def _with_step(prepared: Prepared, net: dict[str, Any], recorder: Recorder) -> Plan:
    """The fused step, ready to be used; the plan, without it where it does not work on this GPU.

    Raises:
        PrecisionError: it does not work, on a CPU, or was asked for.
    """
    planned = prepared.plan
    if prepared.device.kind == "cpu":
        compiling.warm_up(net["t3"], net["flow"].decoder.estimator)
        return planned
    if net["t3"].runner is not None:  # shared, and checked when it came in
        return planned
    from chatterbox_nb.engine import gpu_check
    from chatterbox_nb.engine.gpu_decode import Runner

    runner = Runner(net["t3"], recorder)
    problem = gpu_check.problem(net["t3"], runner.step)
    if not problem:
        net["t3"].runner = runner
        return planned
    if prepared.kernel == "fused":
        raise PrecisionError(f"Kernel 'fused' does not work on {planned.device}: {problem}. Load with --kernel plain.")
    return assembly.without_fused(planned, problem)


def _bytes_at(precision: str, prepared: Prepared) -> int:
    """What this model takes in memory at another precision, in the same placement."""
    keeps = prepared.plan.keeps_encoders
    return plan(prepared.tensors, precision, prepared.device, keep_encoders=keeps).expected_bytes

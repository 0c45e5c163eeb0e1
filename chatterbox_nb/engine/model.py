"""A loaded model: its networks on their device, and how they came there.

`load` builds the modules on the meta device, checks the files, converts by the plan and fills.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from chatterbox_nb import events
from chatterbox_nb.checkpoint import loader, reference
from chatterbox_nb.checkpoint.catalog import ModelSpec
from chatterbox_nb.checkpoint.inventory import inventory
from chatterbox_nb.checkpoint.loader import Fill
from chatterbox_nb.checkpoint.source import Files
from chatterbox_nb.checkpoint.tensorfile import TensorFile
from chatterbox_nb.engine import conditioning, flow, vocoder
from chatterbox_nb.engine.conditioning import Encoders, Voice
from chatterbox_nb.engine.nets import t3 as t3_net
from chatterbox_nb.engine.nets.t3 import T3
from chatterbox_nb.engine.report import LoadReport, measure
from chatterbox_nb.engine.tokens import TextTokenizer
from chatterbox_nb.engine.watermark import Watermarker
from chatterbox_nb.errors import OutOfMemory, PrecisionError, VoiceError
from chatterbox_nb.events import CancelToken, Observer, Progress
from chatterbox_nb.precision import kernels, layers
from chatterbox_nb.precision.plan import DeviceFacts, Plan, TensorInfo, plan, storage_of
from chatterbox_nb.usage import PeakMeter

_TENSOR_FILES = ("t3", "s3gen", "voice_encoder")
# Which file each component that stays in memory comes from.
_RESIDENT = {"t3": "t3", "flow": "s3gen", "vocoder": "s3gen"}
_PLANNED_ONLY = ("fp16", "bf16")  # a plan tells what they would take; the modules are not cast yet


@dataclass
class Model:
    """A loaded model. Used by one thread at a time."""

    spec: ModelSpec
    files: Files
    plan: Plan
    t3: T3
    flow: Any  # the package's CausalMaskedDiffWithXvec
    vocoder: Any  # the package's HiFTGenerator
    tokenizer: TextTokenizer
    watermarker: Watermarker
    builtin: Voice | None
    report: LoadReport

    @property
    def device(self) -> torch.device:
        return torch.device(self.plan.device)

    def modules(self) -> dict[str, nn.Module]:
        return {"t3": self.t3, "flow": self.flow, "vocoder": self.vocoder}

    def text_ids(self, text: str) -> Tensor:
        """Text ids `[S]` of a chunk, start and stop included."""
        ids = [self.spec.t3.start_text, *self.tokenizer.encode(text), self.spec.t3.stop_text]
        return torch.tensor(ids, device=self.device)

    def builtin_voice(self) -> Voice:
        if self.builtin is None:
            raise VoiceError(f"{self.spec.name} comes without a voice of its own. Name a clip: --voice clip.wav")
        return self.builtin

    def read_encoders(self) -> Encoders:
        """The networks that read a clip, in float32 on the CPU: drop them after use."""
        modules = reference.build(self.spec)
        s3gen: Any = modules.s3gen
        with TensorFile(self.files.path("s3gen")) as file:
            absent = {name.removeprefix("tokenizer.") for name in self.spec.optional if name not in file.entries}
            tokenizer = _read(s3gen.tokenizer, file, "tokenizer.", absent)
            speaker = _read(s3gen.speaker_encoder, file, "speaker_encoder.")
        with TensorFile(self.files.path("voice_encoder")) as file:
            voice = _read(modules.voice_encoder, file, "", file.entries.keys() & set(self.spec.unused))
        conditioning.own_constants(tokenizer, absent)
        return Encoders(tokenizer, speaker, voice)


def _read(module: nn.Module, file: TensorFile, prefix: str, without: Iterable[str] = ()) -> nn.Module:
    """Fills a module from a file, without the parameters that the file lacks or inference never reads."""
    for name in without:
        setattr(module, name, None)
    loader.load(module, file, loader.plain_fills(module, prefix), torch.device("cpu"))
    return module


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
        self.seconds[stage] = time.perf_counter() - started


def load(
    spec: ModelSpec,
    files: Files,
    precision: str,
    device: DeviceFacts,
    kernel: str = "auto",
    why: str = "",
    observer: Observer = events.ignore,
    cancel: CancelToken | None = None,
) -> Model:
    """Loads a model.

    Args:
        files: where its files are (`checkpoint.source.find`).
        precision: fp32 or int8.
        device: where it is to run.
        kernel: auto, plain, int8pack or dynamic.
        why: how the precision was chosen.

    Raises:
        CheckpointError, PrecisionError, Cancelled: and nothing stays in memory.
    """
    if precision in _PLANNED_ONLY:
        raise PrecisionError(f"{precision} is planned and not built yet; choose fp32 or int8.")
    phase = _Phases(observer, cancel)
    with phase("import", "Chatterbox"):
        reference.import_package()
    with phase("build"):
        built = reference.build(spec)
        tensors = inventory(spec, built)
        planned = plan(tensors, precision, device, kernel, why)
        _check_room(spec, planned, device)
    digest = hashlib.sha256()
    with ExitStack() as stack:
        with phase("check"):
            opened = {role: stack.enter_context(TensorFile(files.path(role), digest.update)) for role in _TENSOR_FILES}
            for role, file in opened.items():
                name = spec.file(role).name
                loader.check_file(file, [tensor for tensor in tensors if tensor.file == name], spec.optional)
            tokenizer = TextTokenizer(files.path("tokenizer"), spec.t3.text_vocab)
            builtin = conditioning.read_builtin(files.path("voice")) if files.has("voice") else None
        meter = stack.enter_context(PeakMeter())
        with phase("weights"):
            modules = _assemble(spec, built)
            fills = _convert(modules, spec, tensors, planned)
            _fill(modules, fills, opened, planned, observer, cancel)
            vocoder.own_constants(modules["vocoder"], spec.sample_rate, planned.device)
        with phase("watermarker"):
            watermarker = Watermarker()
    report = LoadReport(
        model=spec.name,
        title=spec.title,
        source=files.origin,
        plan=planned,
        rows=measure(planned, tensors, modules, fills),
        shipped_bytes=planned.shipped_bytes,
        own_fp32_bytes=plan(tensors, "fp32", device).expected_bytes,
        own_fp16_bytes=plan(tensors, "fp16", device).expected_bytes,
        process_growth_bytes=meter.end - meter.start,
        process_peak_bytes=meter.peak - meter.start,
        watermarker_bytes=watermarker.bytes,
        weights=digest.hexdigest(),
        seconds=phase.seconds,
        warnings=files.warnings,
    )
    resident: Any = modules
    return Model(
        spec, files, planned, **resident, tokenizer=tokenizer, watermarker=watermarker, builtin=builtin, report=report
    )


def _check_room(spec: ModelSpec, planned: Plan, device: DeviceFacts) -> None:
    if device.free_bytes is None or planned.expected_bytes < device.free_bytes:
        return
    mend = "Close other programs or notebooks."
    if planned.precision != "int8":
        mend = f"Try %tts_load {spec.name} --precision int8."
    raise OutOfMemory(
        f"{spec.name} at {planned.precision} needs {planned.expected_bytes / 1e9:.2f} GB, "
        f"{device.free_bytes / 1e9:.2f} GB is free on {device.name}. {mend}"
    )


def _assemble(spec: ModelSpec, built: reference.Modules) -> dict[str, nn.Module]:
    """The modules that stay in memory, on the meta device: ours for T3, the package's for the rest."""
    s3gen: Any = built.s3gen
    with torch.device("meta"):
        t3 = T3(spec.t3, built.t3.cond_enc).eval()  # type: ignore[arg-type]
    conditioning.own_attention(t3.conditioning_encoder)
    loader.fold_weight_norms(s3gen.mel2wav)
    vocoder.own_upsampling(s3gen.mel2wav)
    flow.own_constants(s3gen.flow)
    return {"t3": t3, "flow": s3gen.flow, "vocoder": s3gen.mel2wav}


def _fills(component: str, module: nn.Module, spec: ModelSpec) -> list[Fill]:
    if component == "t3":
        return t3_net.fills(spec.t3, module.conditioning_encoder)  # type: ignore[arg-type]
    return loader.plain_fills(module, {"flow": "flow.", "vocoder": "mel2wav."}[component])


def _convert(
    modules: Mapping[str, nn.Module], spec: ModelSpec, tensors: Iterable[TensorInfo], planned: Plan
) -> dict[str, list[Fill]]:
    """Puts quantized layers where the plan wants them, and says how every parameter is filled."""
    kinds = {tensor.name: tensor.kind for tensor in tensors}
    fast, plain = kernels.get(planned.kernel or "plain"), kernels.get("plain")
    fills = {}
    for component, module in modules.items():
        fills[component] = _fills(component, module, spec)
        stored = {
            fill.target.removesuffix(".weight"): storage_of(component, kinds[fill.sources[-1]], planned.precision)
            for fill in fills[component]
        }
        if "int8" in stored.values():

            def kernel_of(name: str, component: str = component) -> kernels.Kernel:
                return fast if component == "t3" and name.startswith(t3_net.DECODED) else plain

            layers.convert(module, stored, kernel_of)
    return fills


def _fill(
    modules: Mapping[str, nn.Module],
    fills: Mapping[str, list[Fill]],
    opened: Mapping[str, TensorFile],
    planned: Plan,
    observer: Observer,
    cancel: CancelToken | None,
) -> None:
    total = sum(
        opened[_RESIDENT[component]].entries[source].length
        for component, listed in fills.items()
        for fill in listed
        for source in fill.sources
    )
    done = 0
    for component, module in modules.items():
        file = opened[_RESIDENT[component]]

        def on_fill(fill: Fill, file: TensorFile = file, component: str = component) -> None:
            nonlocal done
            done += sum(file.entries[source].length for source in fill.sources)
            observer(Progress("weights", done, total, fraction=done / total, detail=component))

        loader.load(module, file, fills[component], torch.device(planned.device), on_fill, cancel)

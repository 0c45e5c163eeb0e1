"""The one shared model of this kernel: load, switch, unload, info.

Magics, panels and Python code share it; all work on it is a job of its thread (`jobs.py`).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatterbox_nb import settings, usage
from chatterbox_nb.checkpoint import catalog
from chatterbox_nb.engine.store import Store
from chatterbox_nb.errors import NotLoaded
from chatterbox_nb.events import CancelToken, Observer, Progress
from chatterbox_nb.jobs import Job, ModelThread, in_one_line
from chatterbox_nb.shown import Shown
from chatterbox_nb.usage import MemoryReading

if TYPE_CHECKING:
    from chatterbox_nb.checkpoint.source import Files
    from chatterbox_nb.checkpoint.spec import ModelSpec
    from chatterbox_nb.choices import Outlook
    from chatterbox_nb.engine.model import Model, Prepared
    from chatterbox_nb.engine.report import LoadReport
    from chatterbox_nb.precision.plan import DeviceFacts

# A model of fewer parameters than this is slower with every further thread (one thread keeps 100 times the speed of
# two when the machine is busy).
_ONE_THREAD_PARAMETERS = 50_000_000
_LOADING = 1.1  # what a load takes for a moment, in parts of what stays


@dataclass(frozen=True, repr=False)
class ModelInfo(Shown):
    """What is loaded.

    Args:
        precision: fp32, fp16, bf16, int8.
        quantization: "int8" or "none".
        dtype: of T3's activations.
        kernel: what computes T3's step at each token; empty where that is torch alone.
        bytes_by_component: of the tensors in memory.
        reason: why this precision and kernel.
        int8_off: rows that int8 leaves as they are.
        verified: whether the project has run on this kind of hardware.
    """

    model: str
    title: str
    precision: str
    quantization: str
    dtype: str
    device: str
    kernel: str
    bytes_by_component: Mapping[str, int]
    source: str
    weights: str
    reason: str
    int8_off: tuple[str, ...]
    verified: bool

    @property
    def bytes(self) -> int:
        return sum(self.bytes_by_component.values())


@dataclass(frozen=True)
class Asked:
    """What a load was asked for, checked as far as it can be without a model."""

    model: str
    precision: str
    why: str
    automatic: bool  # the precision is `auto`'s choice
    device: str
    source: str | Path | None
    kernel: str
    off: tuple[str, ...]
    keep_encoders: bool
    downloads: Path | None
    cache: Path | None


class Manager(ModelThread):
    """Holds at most one model. Use `get()`; there is one for each kernel."""

    def __init__(self) -> None:
        super().__init__(after_failure=self._rest)
        self.store = Store()  # what the next model may share with this one
        self.model: Model | None = None
        self._key: tuple[Any, ...] | None = None
        self._asked: Asked | None = None
        self._peak_bytes: int | None = None
        self._takes = 0

    def _rest(self) -> None:
        """After a failure: gives back all but the model itself."""
        if self.model is not None:
            self.model.rest()
        usage.release(self.device)

    @property
    def device(self) -> str:
        return self.model.plan.device if self.model else "cpu"

    @property
    def automatic(self) -> bool:
        """Whether `auto` chose the precision of the model that is loaded."""
        return self._asked is not None and self._asked.automatic

    def loaded(self) -> Model:
        """The model.

        Raises:
            NotLoaded: there is none.
        """
        if self.model is None:
            raise NotLoaded("No model is loaded. Load one first: %tts_load demo, or tts.load('demo')")
        return self.model

    def load(
        self,
        model: str | None = None,
        precision: str | None = None,
        device: str | None = None,
        source: str | Path | None = None,
        kernel: str | None = None,
        int8_off: Sequence[str] | str | None = None,
        observer: Observer | None = None,
        cancel: CancelToken | None = None,
        wait: bool = True,
    ) -> Job[LoadReport]:
        """Loads a model, or switches to it. What is loaded already stays as it is; a load that fails changes nothing.

        Args: see `chatterbox_nb.load`.
        """
        name = settings.value_of("model", model)
        catalog.spec(name)  # an unknown name is refused before torch is imported
        wanted, why = settings.precision_asked(precision)
        asked = Asked(
            model=name,
            precision=wanted,
            why=why,
            automatic=wanted == "auto",
            device=settings.value_of("device", device),
            source=source,
            kernel=settings.value_of("kernel", kernel),
            off=settings.value_of("int8_off", int8_off),
            keep_encoders=settings.value_of("keep_encoders"),
            downloads=settings.value_of("model_dir"),
            cache=settings.value_of("cache_dir") if settings.value_of("cache") else None,
        )
        return self.submit(f"loading {name}", lambda job: self._load(job, asked), observer, cancel, wait, kind="load")

    def _load(self, job: Job[Any], asked: Asked) -> LoadReport:
        from chatterbox_nb.checkpoint import source as sources
        from chatterbox_nb.engine import model as engine
        from chatterbox_nb.errors import cure

        tell = self.teller(job)
        tell(Progress("find", detail=asked.model))
        spec, files = sources.find(asked.model, asked.source, asked.downloads, observer=tell, cancel=job.cancel_token)
        facts = self._facts(asked.device)
        job.device = facts.name
        asked = self._resolved(asked, spec, facts)
        if self.model is not None and self._key == _key(asked, spec, files, facts):
            planned = replace(self.model.plan, why=asked.why)
            self.model.plan, self.model.report = planned, replace(self.model.report, plan=planned)
            return self.model.report
        prepared = self._prepare(asked, spec, files, facts, tell, job.cancel_token)
        asked = replace(asked, precision=prepared.plan.precision)
        job.needs, job.cure = prepared.added_bytes, cure(prepared.plan.precision, spec.name)
        prepared.check_room(facts.free_bytes)
        before = self._asked if self.model is not None and not self._fits_beside(prepared, facts) else None
        if before is not None:
            self._drop()
        failure: BaseException | None = None
        try:
            fresh = engine.finish(prepared)
        except BaseException as error:
            failure = in_one_line(error, job)
        if failure is not None:
            kept = prepared.known.found  # of the old model: it need not be loaded again
            del prepared
            if before is not None:
                self._restore(before, tell, failure)
            del kept
            raise failure
        self._take_on(fresh, asked, _key(asked, spec, files, facts))
        tell(Progress("loaded", detail=spec.name))
        return fresh.report

    def _prepare(
        self,
        asked: Asked,
        spec: ModelSpec,
        files: Files,
        facts: DeviceFacts,
        tell: Observer,
        cancel: CancelToken | None,
    ) -> Prepared:
        from chatterbox_nb.checkpoint.cache import QuantizedCache
        from chatterbox_nb.engine import model as engine

        return engine.prepare(
            spec, files, asked.precision, facts, asked.kernel, asked.why, tell, cancel, off=asked.off,
            keep_encoders=asked.keep_encoders, cache=QuantizedCache(asked.cache) if asked.cache else None,
            store=self.store,
        )  # fmt: skip

    def _facts(self, device: str, wake: bool = True) -> DeviceFacts:
        """A device with the memory that is free for another model: what the one that is loaded has counts as free.

        Args:
            wake: a load is about to need the device.
        """
        from chatterbox_nb.precision import device as devices

        name = devices.resolve(device)
        if wake:
            devices.wake(name)
        found = devices.facts(name)
        if found.free_bytes is None:
            return found
        return replace(found, free_bytes=found.free_bytes + self._bytes_on(name))

    def _resolved(self, asked: Asked, spec: ModelSpec, facts: DeviceFacts) -> Asked:
        """With `auto` resolved, where the loaded model's tensors are those of the one that is asked for.

        What `auto` chose before stays chosen: it fits, since it is there.
        """
        from chatterbox_nb.precision.plan import choose_precision

        if not asked.automatic or self.model is None or self._asked is None or self.model.spec != spec:
            return asked
        if self._asked.automatic and self.device == facts.name:
            return replace(asked, precision=self._asked.precision, why=self.model.plan.why)
        precision, because = choose_precision(self.model.tensors, facts)
        return replace(asked, precision=precision, why=f"auto, {because}")

    def _fits_beside(self, prepared: Prepared, facts: DeviceFacts) -> bool:
        """Whether what a model does not share with the loaded one fits while that is still there."""
        there = self._bytes_on(facts.name)
        return facts.free_bytes is None or _LOADING * prepared.added_bytes < facts.free_bytes - there

    def _restore(self, before: Asked, tell: Observer, failure: BaseException) -> None:
        """Loads again what was dropped for a load that failed, and adds to the failure what came of it."""
        from chatterbox_nb.checkpoint import source as sources
        from chatterbox_nb.engine import model as engine

        usage.release(self.device)
        tell(Progress("find", detail=f"{before.model}, which was loaded before"))
        told = f"{before.model} at {before.precision} is loaded again."
        try:
            spec, files = sources.find(before.model, before.source, before.downloads)
            facts = self._facts(before.device)
            restored = engine.finish(self._prepare(before, spec, files, facts, tell, None))
            self._take_on(restored, before, _key(before, spec, files, facts))
        except BaseException as error:
            told = f"{before.model}, which was loaded before, could not be loaded again ({type(error).__name__})."
        failure.args = (f"{failure} {told}", *failure.args[1:])

    def _take_on(self, fresh: Model, asked: Asked, key: tuple[Any, ...]) -> None:
        self.model, self._key, self._asked = fresh, key, asked
        self._use_threads(fresh)
        self._peak_bytes = usage.process_bytes()
        usage.release(self.device)

    def look(self, model: str, device: str = "auto", source: str | Path | None = None) -> Job[Outlook]:
        """What a model would be at each precision on a device, by its plan: nothing is loaded. `outlook` as a job.

        Args: see `chatterbox_nb.load`.
        """

        def work(job: Job[Outlook]) -> Outlook:
            self.teller(job)(Progress("look", detail=model))
            return self.outlook(model, device, source)

        return self.submit(f"looking at {model}", work, kind="look")

    def outlook(self, model: str, device: str = "auto", source: str | Path | None = None) -> Outlook:
        """The same at once, on the thread that calls: for what was looked at before (`choices.known`)."""
        from chatterbox_nb import choices

        return choices.outlook(model, source, self._facts(device, wake=False))

    def _bytes_on(self, device: str) -> int:
        """What the loaded model has on a device, which another one may have instead."""
        return self.model.report.bytes if self.model is not None and self.device == device else 0

    def unload(self, wait: bool = True) -> Job[int]:
        """Drops the model and gives its memory back. The result is the bytes its tensors had."""

        def work(job: Job[int]) -> int:
            freed = self.model.report.bytes if self.model else 0
            self._drop()
            self.teller(job)(Progress("unloaded"))
            return freed

        return self.submit("unloading", work, wait=wait, kind="unload")

    def _drop(self) -> None:
        device = self.device
        self.model = self._key = self._asked = None
        usage.release(device)

    def _use_threads(self, model: Model) -> None:
        """Sets torch's threads for the model thread alone.

        `torch.set_num_threads` sets them for the calling thread and as the default of threads to come; a short-lived
        thread puts that default back.
        """
        import torch

        from chatterbox_nb.precision.layers import tensors_of

        parameters = sum(
            tensor.numel() for module in model.modules().values() for tensor in tensors_of(module).values()
        )
        host = _host_threads()
        wanted = 1 if parameters < _ONE_THREAD_PARAMETERS else host
        if wanted != torch.get_num_threads():
            torch.set_num_threads(wanted)
            restore = threading.Thread(target=torch.set_num_threads, args=(host,))
            restore.start()
            restore.join()

    def took(self, peak_bytes: int | None, cleanup_every: int, clear_every: int) -> None:
        """A take tells that it is done, its peak of memory, and after how many takes memory is given back."""
        self._peak_bytes = peak_bytes
        self._takes += 1
        if cleanup_every and self._takes % cleanup_every == 0:
            usage.collect()
        else:
            usage.trim()
        if clear_every and self._takes % clear_every == 0:
            usage.empty_cache(self.device)

    def info(self) -> ModelInfo:
        """What is loaded. Raises NotLoaded."""
        from chatterbox_nb.precision import device as devices

        model = self.loaded()
        plan = model.plan
        return ModelInfo(
            model=model.spec.name,
            title=model.spec.title,
            precision=plan.precision,
            quantization="int8" if plan.precision == "int8" else "none",
            dtype=plan.compute,
            device=plan.device,
            kernel=plan.kernel,
            bytes_by_component={name: size for name, size in model.report.bytes_by_component.items() if size},
            source=model.files.origin,
            weights=model.report.weights,
            reason=model.reason,
            int8_off=plan.off,
            verified=devices.facts(plan.device).verified,
        )

    def memory(self) -> MemoryReading:
        """A reading of the device the model is on, or of the CPU."""
        model = self.model
        tensors = model.report.bytes if model else 0
        return usage.read(self.device, tensors, self._peak_bytes)


_MANAGER = Manager()


def get() -> Manager:
    """The manager of this kernel."""
    return _MANAGER


def _host_threads() -> int:
    """The threads torch would give a new thread of the host."""
    import torch

    found: list[int] = []
    asking = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    asking.start()
    asking.join()
    return found[0]


def _key(asked: Asked, spec: ModelSpec, files: Files, facts: DeviceFacts) -> tuple[Any, ...]:
    """What has to be equal for a model not to be loaded again."""
    return spec, files.stamp, asked.precision, facts.name, asked.kernel, asked.off, asked.keep_encoders

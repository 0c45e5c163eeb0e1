"""The one shared model of this kernel: load, switch, unload, info.

Magics, panels and Python code share it; all work on it is a job of its thread (`jobs.py`).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatterbox_nb import settings, usage
from chatterbox_nb.checkpoint import catalog
from chatterbox_nb.errors import NotLoaded
from chatterbox_nb.events import CancelToken, Observer, Progress
from chatterbox_nb.jobs import Job, ModelThread
from chatterbox_nb.shown import Shown
from chatterbox_nb.usage import MemoryReading

if TYPE_CHECKING:
    from chatterbox_nb.engine.model import Model
    from chatterbox_nb.engine.report import LoadReport

# A model of fewer parameters than this is slower with every further thread (one thread keeps 100 times the speed of
# two when the machine is busy).
_ONE_THREAD_PARAMETERS = 50_000_000


@dataclass(frozen=True, repr=False)
class ModelInfo(Shown):
    """What is loaded.

    Args:
        precision: fp32, int8.
        quantization: "int8" or "none".
        dtype: of T3's activations.
        kernel: what multiplies int8 in the decode loop; empty without int8.
        bytes_by_component: of the tensors in memory.
        reason: why this precision and kernel.
        verified: whether this kind of device was run by the project.
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
    verified: bool

    @property
    def bytes(self) -> int:
        return sum(self.bytes_by_component.values())


class Manager(ModelThread):
    """Holds at most one model. Use `get()`; there is one for each kernel."""

    def __init__(self) -> None:
        super().__init__(after_failure=lambda: usage.release(self.device))
        self.model: Model | None = None
        self._key: tuple[Any, ...] | None = None
        self._peak_bytes: int | None = None

    @property
    def device(self) -> str:
        return self.model.plan.device if self.model else "cpu"

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
        where = settings.value_of("device", device)
        kernel = settings.value_of("kernel", kernel)
        cache = settings.value_of("model_dir")

        def work(job: Job[LoadReport]) -> LoadReport:
            return self._load(job, name, wanted, why, where, source, kernel, cache)

        return self.submit(f"loading {name}", work, observer, cancel, wait)

    def _load(
        self,
        job: Job[Any],
        name: str,
        precision: str,
        why: str,
        where: str,
        source: Any,
        kernel: str,
        cache: Path | None,
    ) -> LoadReport:
        from chatterbox_nb.checkpoint import source as sources
        from chatterbox_nb.engine import model as engine
        from chatterbox_nb.precision import device as devices

        tell = self.teller(job)
        tell(Progress("find", detail=name))
        spec, files = sources.find(name, source, cache, observer=tell, cancel=job.cancel_token)
        facts = devices.facts(devices.resolve(where))
        if precision == "auto":
            precision, because = devices.automatic_precision(facts)
            why = f"auto, {because}"
        key = (spec, files.stamp, precision, facts.name, kernel)
        if self.model is not None and key == self._key:
            planned = replace(self.model.plan, why=why)
            self.model.plan, self.model.report = planned, replace(self.model.report, plan=planned)
            return self.model.report
        if self.model is not None and not _fits_beside(files.paths, facts.free_bytes):
            self._drop()
        fresh = engine.load(spec, files, precision, facts, kernel, why, tell, job.cancel_token)
        self.model, self._key = fresh, key
        self._use_threads(fresh)
        self._peak_bytes = usage.process_bytes()
        usage.release(self.device)
        tell(Progress("loaded", detail=spec.name))
        return fresh.report

    def unload(self, wait: bool = True) -> Job[int]:
        """Drops the model and gives its memory back. The result is the bytes its tensors had."""

        def work(job: Job[int]) -> int:
            freed = self.model.report.bytes if self.model else 0
            self._drop()
            self.teller(job)(Progress("unloaded"))
            return freed

        return self.submit("unloading", work, wait=wait)

    def _drop(self) -> None:
        device = self.device
        self.model = self._key = None
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

    def took(self, peak_bytes: int) -> None:
        """A take tells its peak of process memory."""
        self._peak_bytes = peak_bytes

    def info(self) -> ModelInfo:
        """What is loaded. Raises NotLoaded."""
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
            reason=plan.reason,
            verified=plan.device == "cpu",
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


def _fits_beside(paths: Mapping[str, Path], free: int | None) -> bool:
    """Whether a second model fits while the first is still there, at most as large as its files."""
    return free is None or sum(path.stat().st_size for path in paths.values()) < free

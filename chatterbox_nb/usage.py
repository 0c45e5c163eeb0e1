"""Memory, read and given back.

Readings are in bytes. Reading never creates a CUDA context and never empties a cache.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

from chatterbox_nb.shown import Shown


@dataclass(frozen=True, repr=False)
class MemoryReading(Shown):
    """Memory at one moment, in bytes; None where the device does not tell.

    Args:
        device: "cpu", "cuda:0", "mps".
        process: resident memory of this process.
        allocated: held by tensors on the device (on a CPU: by the loaded model's tensors).
        reserved: held by the device's allocator.
        peak: highest `allocated` since the model was loaded (on a CPU: highest `process` of the last load or take).
        device_used: used on the device by every process (on a CPU: in the machine).
        device_total: size of the device's memory (on a CPU: of the machine's).
    """

    device: str
    process: int
    allocated: int | None = None
    reserved: int | None = None
    peak: int | None = None
    device_used: int | None = None
    device_total: int | None = None

    @property
    def device_free(self) -> int | None:
        if self.device_total is None or self.device_used is None:
            return None
        return self.device_total - self.device_used


def process_bytes() -> int:
    """Resident memory of this process."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def read(device: str = "cpu", tensors: int | None = None, peak: int | None = None) -> MemoryReading:
    """A reading of the device and of this process.

    Args:
        device: as torch writes it.
        tensors, peak: on a CPU, the bytes of the loaded tensors and the last peak, which only their owner knows.
    """
    import psutil

    process = process_bytes()
    torch = sys.modules.get("torch")
    if device.startswith("cuda") and torch is not None and torch.cuda.is_initialized():
        free, total = torch.cuda.mem_get_info(device)
        return MemoryReading(
            device,
            process,
            allocated=torch.cuda.memory_allocated(device),
            reserved=torch.cuda.memory_reserved(device),
            peak=torch.cuda.max_memory_allocated(device),
            device_used=total - free,
            device_total=total,
        )
    if device.startswith("mps") and torch is not None:
        total = torch.mps.recommended_max_memory()
        driver = torch.mps.driver_allocated_memory()
        return MemoryReading(device, process, torch.mps.current_allocated_memory(), driver, peak, driver, total)
    if device != "cpu":
        return MemoryReading(device, process, peak=peak)  # the machine's memory is not this device's
    machine = psutil.virtual_memory()
    return MemoryReading(
        device,
        process,
        allocated=tensors,
        peak=peak,
        device_used=int(machine.total - machine.available),
        device_total=int(machine.total),
    )


def free_bytes(device: str) -> int | None:
    """What is left on the device for a model, or None where nobody can tell."""
    return read(device).device_free


def release(device: str = "cpu") -> None:
    """Gives unused memory back: Python's, the device allocator's, the C library's."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and device.startswith("cuda") and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if torch is not None and device.startswith("mps"):
        torch.mps.empty_cache()
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # musl has no malloc_trim
            ctypes.CDLL("libc.so.6").malloc_trim(0)


class PeakMeter:
    """The highest resident memory of this process while the block runs, sampled on a thread of its own.

    with PeakMeter() as meter: work()
    meter.peak   # bytes;  meter.start, meter.end  # bytes when the block was entered and left
    """

    def __init__(self, interval_seconds: float = 0.02) -> None:
        self.interval_seconds = interval_seconds
        self.start = self.peak = self.end = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> PeakMeter:
        self._stop.clear()
        self.start = self.peak = process_bytes()
        self._thread = threading.Thread(target=self._sample, name="chatterbox-nb peak meter", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self.end = process_bytes()
        self.peak = max(self.peak, self.end)

    def _sample(self) -> None:
        while not self._stop.wait(self.interval_seconds):
            self.peak = max(self.peak, process_bytes())

"""Memory, read and given back.

Readings are in bytes. Reading never creates a CUDA context and never empties a cache.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from types import TracebackType
from typing import Any

from chatterbox_nb.shown import Shown


@dataclass(frozen=True, repr=False)
class MemoryReading(Shown):
    """Memory at one moment, in bytes; None where the device does not tell.

    Args:
        device: "cpu", "cuda:0", "mps".
        process: resident memory of this process.
        allocated: held by tensors on the device (on a CPU: by the loaded model's tensors).
        reserved: held by the device's allocator.
        peak: highest `allocated` of this process (on a CPU, and on MPS: of the last load or take).
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

    @property
    def others(self) -> int | None:
        """What is used, but not by this process: by other processes, and on a GPU by its drivers' contexts."""
        ours = self.process if self.device == "cpu" else self.reserved
        return None if self.device_used is None or ours is None else max(0, self.device_used - ours)

    @property
    def allocatable(self) -> int | None:
        """Free memory, and what the device's allocator holds without using it."""
        if self.device_free is None:
            return None
        return self.device_free + (self.reserved - self.allocated if self.reserved and self.allocated else 0)


def process_bytes() -> int:
    """Resident memory of this process."""
    return int(_process(os.getpid()).memory_info().rss)


@cache
def _process(number: int) -> Any:
    """psutil's view of a process, which takes longer to make than to read."""
    import psutil

    return psutil.Process(number)


def read(device: str = "cpu", tensors: int | None = None, peak: int | None = None) -> MemoryReading:
    """A reading of the device and of this process.

    Args:
        device: as torch writes it.
        tensors, peak: on a CPU, the bytes of the loaded tensors and the last peak, which only their owner knows.
    """
    import psutil

    process = process_bytes()
    torch = sys.modules.get("torch")
    if device.startswith("cuda") and torch is not None and _has_context(torch, device):
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


def _has_context(torch: Any, device: str) -> bool:
    """Whether this process has a CUDA context on that device; asking for its memory would make one, of 300 MB."""
    index = int(device.partition(":")[2] or 0)
    return bool(torch.cuda.is_initialized() and torch._C._cuda_hasPrimaryContext(index))


def release(device: str = "cpu") -> None:
    """Gives unused memory back: Python's, the C library's, the device allocator's."""
    collect()
    empty_cache(device)


def collect() -> None:
    """Gives back what Python and the C library hold without using it."""
    gc.collect()
    trim()


def trim() -> None:
    """Gives back what the C library holds without using it: in a millisecond; collecting takes a third of a second."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # musl has no malloc_trim
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def empty_cache(device: str) -> None:
    """Gives back what the device's allocator holds without using it."""
    torch = sys.modules.get("torch")
    if torch is not None and device.startswith("cuda") and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if torch is not None and device.startswith("mps"):
        torch.mps.empty_cache()


class PeakMeter:
    """The most memory in use while the block runs, sampled on a thread of its own.

    with PeakMeter() as meter: work()
    meter.peak   # bytes;  meter.start, meter.end  # bytes when the block was entered and left

    Args:
        device: on a GPU, bytes allocated on it are sampled; on a CPU, resident memory of this process.
        active: False measures nothing, and all three stay 0.
    """

    def __init__(self, device: str = "cpu", interval_seconds: float = 0.02, active: bool = True) -> None:
        self.device, self.interval_seconds, self.active = device, interval_seconds, active
        self.start = self.peak = self.end = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def growth(self) -> int | None:
        """How far memory rose over its start; None when nothing was measured."""
        return max(0, self.peak - self.start) if self.active else None

    def __enter__(self) -> PeakMeter:
        if self.active:
            self._stop.clear()
            self.start = self.peak = self._now()
            self._thread = threading.Thread(target=self._sample, name="chatterbox-nb peak meter", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self.end = self._now()
            self.peak = max(self.peak, self.end)

    def _now(self) -> int:
        torch = sys.modules.get("torch")
        if self.device.startswith("cuda") and torch is not None and _has_context(torch, self.device):
            return int(torch.cuda.memory_allocated(self.device))
        if self.device.startswith("mps") and torch is not None:
            return int(torch.mps.current_allocated_memory())
        return process_bytes()

    def _sample(self) -> None:
        while not self._stop.wait(self.interval_seconds):
            self.peak = max(self.peak, self._now())

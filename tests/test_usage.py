"""Memory is read without side effects, and peaks are seen."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import FrozenInstanceError

import numpy as np
import psutil
import pytest
import torch

from chatterbox_nb import usage
from chatterbox_nb.usage import MemoryReading, PeakMeter

MB = 10**6


def test_a_reading_on_a_cpu_is_of_the_process_and_the_machine() -> None:
    reading = usage.read("cpu", tensors=123, peak=456)
    machine = psutil.virtual_memory()
    assert (reading.device, reading.allocated, reading.peak) == ("cpu", 123, 456)
    assert reading.device_total == machine.total
    assert reading.device_used is not None
    assert 0 < reading.process <= reading.device_used < machine.total


def test_the_owner_may_know_nothing_of_tensors_and_peaks() -> None:
    reading = usage.read("cpu")
    assert reading.allocated is None
    assert reading.peak is None


@pytest.mark.usefixtures("trimmed")
def test_the_process_is_this_one() -> None:
    """A hundred megabytes more, written so that they are resident, are in the reading."""
    before = usage.process_bytes()
    held = np.ones(100 * MB, np.uint8)
    assert usage.process_bytes() - before > 80 * MB
    del held


def test_free_is_what_is_neither_used_nor_unknown() -> None:
    assert MemoryReading("cpu", 1, device_used=30, device_total=100).device_free == 70
    assert MemoryReading("cuda:0", 1, device_used=30).device_free is None
    assert MemoryReading("cuda:0", 1, device_total=100).device_free is None


def test_free_memory_of_a_cpu_is_the_machines() -> None:
    free = usage.read("cpu").allocatable
    assert free is not None
    assert 0 < free < psutil.virtual_memory().total


def test_without_a_cuda_context_a_gpu_is_unknown_and_none_is_made() -> None:
    """The machine's memory is not the GPU's."""
    if torch.cuda.is_initialized():
        pytest.skip("this process has a CUDA context already")
    reading = usage.read("cuda:0")
    assert (reading.device, reading.device_total, reading.device_free) == ("cuda:0", None, None)
    assert usage.read("cuda:0").allocatable is None
    assert not torch.cuda.is_initialized()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_reading_on_a_gpu_counts_its_tensors() -> None:
    held = torch.zeros(100 * MB, dtype=torch.uint8, device="cuda:0")
    reading = usage.read("cuda:0")
    assert reading.allocated is not None
    assert reading.reserved is not None
    assert reading.peak is not None
    assert 100 * MB <= reading.allocated <= reading.reserved
    assert reading.peak >= reading.allocated
    assert (reading.device_free or 0) > 0
    del held


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> dict[int, tuple[int, int]]:
    """There is no GPU here: torch's functions answer as of one with a context on device 1. Free and total bytes."""
    asked: dict[int, tuple[int, int]] = {}

    def mem_get_info(device: str) -> tuple[int, int]:
        asked[int(device[-1])] = (300 * MB, 1000 * MB)
        return asked[int(device[-1])]

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch._C, "_cuda_hasPrimaryContext", lambda index: index == 1, raising=False)
    monkeypatch.setattr(torch.cuda, "mem_get_info", mem_get_info)
    for name, value in (("memory_allocated", 400), ("memory_reserved", 500), ("max_memory_allocated", 450)):
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value * MB)
    return asked


def test_a_gpus_numbers_are_torchs_and_the_drivers(gpu: dict[int, tuple[int, int]]) -> None:
    reading = usage.read("cuda:1")
    assert (reading.allocated, reading.reserved, reading.peak) == (400 * MB, 500 * MB, 450 * MB)
    assert (reading.device_used, reading.device_total, reading.device_free) == (700 * MB, 1000 * MB, 300 * MB)
    assert reading.allocatable == 400 * MB  # what torch holds and does not use can be had, too
    assert reading.process > 0


def test_a_gpu_without_a_context_of_ours_is_not_asked(gpu: dict[int, tuple[int, int]]) -> None:
    """To ask for its memory would make one, of 300 MB: torch may have been used on another GPU only."""
    assert usage.read("cuda:0").device_total is None
    assert usage.read("cuda").device_total is None
    assert gpu == {}


def test_reading_empties_no_cache(gpu: dict[int, tuple[int, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    emptied: list[str] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append("cuda"))
    usage.read("cuda:1")
    assert emptied == []
    usage.empty_cache("cuda:1")
    assert emptied == ["cuda"]


def test_a_meter_on_a_gpu_measures_what_is_allocated_there(
    gpu: dict[int, tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    levels = iter([100, 300])
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: next(levels) * MB)
    with PeakMeter("cuda:1", interval_seconds=3600) as meter:
        pass
    assert (meter.start, meter.end, meter.growth) == (100 * MB, 300 * MB, 200 * MB)


def test_mps_tells_its_own_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("recommended_max_memory", 1000), ("driver_allocated_memory", 600), ("current_allocated_memory", 400),
    ):  # fmt: skip
        monkeypatch.setattr(torch.mps, name, lambda value=value: value * MB)
    reading = usage.read("mps")
    assert (reading.allocated, reading.reserved, reading.device_total) == (400 * MB, 600 * MB, 1000 * MB)
    assert reading.allocatable == 600 * MB


def test_a_meter_that_is_switched_off_measures_nothing() -> None:
    with PeakMeter(active=False) as meter:
        assert not [thread for thread in threading.enumerate() if "peak meter" in thread.name]
    assert (meter.start, meter.peak, meter.end, meter.growth) == (0, 0, 0, None)


def test_a_reading_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        usage.read("cpu").process = 0  # type: ignore[misc]


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_releasing_does_not_raise_and_loads_no_gpu(device: str) -> None:
    initialized = torch.cuda.is_initialized()
    usage.release(device)
    assert torch.cuda.is_initialized() == initialized


def test_releasing_collects_what_only_cycles_keep_alive() -> None:
    """As a traceback keeps a model alive after a failed load."""
    import weakref

    class Node:
        other: Node

    one, other = Node(), Node()
    one.other, other.other = other, one
    gone = weakref.ref(one)
    del one, other
    usage.release()
    assert gone() is None


@pytest.fixture
def trimmed() -> None:
    """What other tests freed goes back to the system; what is taken next might else be found there, unseen."""
    usage.release()


def wait_until_seen(meter: PeakMeter, bytes_: int) -> None:
    """Lets the sampling thread run until it has seen that much, half a minute at most."""
    for _ in range(3000):
        if meter.peak >= bytes_:
            return
        time.sleep(0.01)


@pytest.mark.usefixtures("trimmed")
def test_a_peak_inside_the_block_is_seen_after_it_was_freed() -> None:
    with PeakMeter(interval_seconds=0.005) as meter:
        held = np.ones(100 * MB, np.uint8)
        wait_until_seen(meter, meter.start + 80 * MB)
        del held
        usage.release()
    assert meter.peak - meter.start > 80 * MB
    assert meter.peak - meter.end > 80 * MB, "it was freed before the block was left"


@pytest.mark.usefixtures("trimmed")
def test_without_any_sample_in_between_start_and_end_are_measured() -> None:
    with PeakMeter(interval_seconds=3600) as meter:
        held = np.ones(100 * MB, np.uint8)
    assert meter.end - meter.start > 80 * MB
    assert meter.peak == max(meter.start, meter.end)
    del held


def test_an_error_leaves_the_block_and_no_thread_stays() -> None:
    with pytest.raises(KeyError), PeakMeter() as meter:
        raise KeyError
    assert meter.end > 0
    assert not [thread for thread in threading.enumerate() if "peak meter" in thread.name]


@pytest.mark.usefixtures("trimmed")
def test_a_meter_can_be_used_again() -> None:
    meter = PeakMeter(interval_seconds=0.005)
    with meter:
        pass
    with meter:
        held = np.ones(100 * MB, np.uint8)
        wait_until_seen(meter, meter.start + 80 * MB)
        del held
        usage.release()
    assert meter.peak - meter.start > 80 * MB


def test_importing_and_reading_does_not_import_torch() -> None:
    code = (
        "import sys; from chatterbox_nb import usage; "
        "usage.read('cpu'); usage.read('cuda:0'); usage.read('mps'); usage.release('cuda:0'); "
        "print(sorted({'torch', 'IPython', 'chatterbox'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ), check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")

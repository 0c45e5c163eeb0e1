"""The device a model is put on: which there are, and what a plan needs to know of one."""

from __future__ import annotations

import platform

import torch

from chatterbox_nb import usage
from chatterbox_nb.errors import PrecisionError, nearest
from chatterbox_nb.precision.plan import DeviceFacts


def available() -> list[str]:
    """The devices of this machine, as torch writes them, the fastest first."""
    found = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    if torch.backends.mps.is_available():
        found.append("mps")
    return [*found, "cpu"]


def resolve(asked: str = "auto") -> str:
    """The device that a name means.

    Raises:
        PrecisionError: this machine has no such device; the message lists those it has.
    """
    have = available()
    asked = asked.strip().lower()
    if asked == "auto":
        return have[0]
    name = "cuda:0" if asked == "cuda" else asked
    if name not in have:
        raise PrecisionError(f"This machine has no device '{asked}'; it has {', '.join(have)}.{nearest(asked, have)}")
    return name


def facts(name: str) -> DeviceFacts:
    """What a plan needs to know of a device. Reading it creates no CUDA context."""
    if name.startswith("cuda"):
        properties = torch.cuda.get_device_properties(name)
        return DeviceFacts(
            name, platform.machine(), f"{properties.major}.{properties.minor}", total_bytes=properties.total_memory
        )
    reading = usage.read(name)
    if name == "mps":
        return DeviceFacts(name, platform.machine(), total_bytes=reading.device_total, free_bytes=reading.device_free)
    return DeviceFacts(
        name,
        platform.machine(),
        torch.backends.cpu.get_cpu_capability(),
        vnni=bool(torch.cpu._is_vnni_supported()),
        total_bytes=reading.device_total,
        free_bytes=reading.device_free,
    )


def automatic_precision(device: DeviceFacts) -> tuple[str, str]:
    """What `auto` means on a device, and why."""
    if device.kind == "cpu":
        return "int8", "on a CPU int8 is the smallest and the fastest"
    return "fp32", f"on {device.kind} only fp32 and int8 are built yet, and fp32 is the faster of them"

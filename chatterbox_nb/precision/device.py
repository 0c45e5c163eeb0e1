"""The device a model is put on: which there are, and what a plan needs to know of one."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from chatterbox_nb import usage
from chatterbox_nb.errors import PrecisionError, nearest
from chatterbox_nb.precision.kernels.fused import lacking
from chatterbox_nb.precision.plan import X86, DeviceFacts


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


def processor() -> str:
    """What the processor is called, and how many cores of it there are."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file() and (found := re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE)):
        name = found[1].strip()
    return f"{name}, {os.cpu_count()} cores"


def wake(name: str) -> None:
    """Makes a CUDA context where there is none: a load is about to need it, and free memory can be read with it."""
    if name.startswith("cuda"):
        torch.zeros(1, device=name)


def facts(name: str) -> DeviceFacts:
    """What a plan needs to know of a device. Creates no CUDA context: without one its free memory is not known."""
    reading = usage.read(name)
    found = DeviceFacts(name, platform.machine(), total_bytes=reading.device_total, free_bytes=reading.allocatable)
    if found.kind == "cuda":
        properties = torch.cuda.get_device_properties(name)
        capability = f"{properties.major}.{properties.minor}"
        unfused = without_triton((properties.major, properties.minor))
        return replace(found, capability=capability, total_bytes=properties.total_memory, unfused=unfused)
    if found.kind == "cpu":
        capability, vnni = torch.backends.cpu.get_cpu_capability(), bool(torch.cpu._is_vnni_supported())
        unfused = lacking(capability) if found.machine.lower() in X86 else found.unfused
        bf16, fp16 = multiplies_bf16(), multiplies_fp16()
        return replace(found, capability=capability, vnni=vnni, bf16=bf16, fp16=fp16, unfused=unfused)
    return found


def without_triton(capability: tuple[int, int]) -> str:
    """Why Triton's kernels cannot run on a GPU of this capability, as far as is known beforehand; empty where not."""
    if torch.version.hip is not None:
        return "its kernels are not tested on ROCm"
    if capability < (7, 5):
        return "its kernels are for capability 7.5 and higher"
    return "" if importlib.util.find_spec("triton") else "Triton is not installed"


def multiplies_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 in one instruction, AVX512_BF16 or AMX. Others emulate it, slowly."""
    cpu: Any = torch.cpu
    checks = (getattr(cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check() for check in checks if check is not None)


def multiplies_fp16() -> bool:
    """Whether this CPU multiplies float16 in one instruction, AVX512_FP16. Others emulate it, slowly."""
    from llvmlite import binding

    return bool(binding.get_host_cpu_features().get("avx512fp16"))

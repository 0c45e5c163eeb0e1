"""Which kernel computes T3's step on a device, and why. Pure data and a pure function, as the plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chatterbox_nb.errors import PrecisionError, nearest

if TYPE_CHECKING:
    from chatterbox_nb.precision.plan import DeviceFacts

X86 = ("x86_64", "amd64")


def choose_kernel(precision: str, device: DeviceFacts, asked: str = "auto") -> tuple[str, str]:
    """What computes T3's step at each token, and why.

    `fused` is a step of our own at any precision: on a CPU one compiled function for all layers, int8 weights times
    activations of 16 bits; on CUDA five Triton kernels a layer. Without it torch multiplies a layer at a time, and int8
    has kernels for few rows: `int8pack` with bfloat16 activations; `dynamic`, which quantizes the activations too;
    `plain`, which dequantizes and runs everywhere. Of the other precisions that kernel has no name.
    """
    machine = device.machine.lower()
    x86 = device.kind == "cpu" and machine in X86
    cuda = device.kind == "cuda"
    arm = device.kind == "cpu" and machine in ("aarch64", "arm64")
    available = {
        "fused": (x86 or cuda) and not device.unfused,
        "plain": True,
        "int8pack": (x86 and device.capability in ("AVX2", "AVX512")) or arm or device.kind == "mps",
        "dynamic": x86 and device.vnni,
    }
    if asked == "auto":
        if available["fused"]:
            return "fused", f"T3's {'step is five kernels a layer' if cuda else 'layers are one compiled step'}"
        without = f", not by one compiled step ({device.unfused})" if x86 or cuda else ""
        if precision != "int8":
            return "", f"T3's layers are multiplied by torch{without}" if cuda else ""
        if available["int8pack"]:
            where = device.capability if x86 else machine if arm else device.kind
            return "int8pack", f"weights in int8 are multiplied by int8pack ({where}){without}"
        return (
            "plain",
            f"no faster int8 kernel for {device.kind} {device.machine} {device.capability}".rstrip() + without,
        )
    if asked not in available:
        raise PrecisionError(
            f"'{asked}' is not a kernel; choose auto, {', '.join(available)}.{nearest(asked, available)}"
        )
    if precision != "int8" and asked not in ("fused", "plain"):
        raise PrecisionError(f"Kernel '{asked}' multiplies int8, not {precision}. Try --precision int8.")
    if not available[asked]:
        have = ", ".join(name for name, there in available.items() if there)
        why = f" ({device.unfused})" if asked == "fused" else ""
        raise PrecisionError(
            f"Kernel '{asked}' does not run on this {device.kind} ({device.machine} {device.capability}){why}. "
            f"Here: {have}."
        )
    return asked if precision == "int8" or asked == "fused" else "", f"kernel {asked} was asked for"

"""The fast multiply for each kind of device, and the plain one they are checked against.

A kernel is a class with a `name`, two limits, and three methods: `pack(weight, scale)` makes what it multiplies with,
once after a load, `unpack` gives the plain weights back, and `multiply(x, packed, bias)` gives
`x @ dequantized.T + bias`. More rows than `max_rows` go to `plain`, and so does a layer whose K is not a multiple of
`multiple_of`: its `kernel.name` says so. Rows of `x` never influence each other.
"""

from __future__ import annotations

import platform
from typing import Protocol

import torch
from torch import Tensor

from chatterbox_nb.precision.plan import DeviceFacts

Packed = tuple[Tensor, ...]


class Kernel(Protocol):
    name: str
    max_rows: int
    multiple_of: int

    def pack(self, weight: Tensor, scale: Tensor) -> Packed:
        """int8 `[N, K]` and float32 `[N]` as this kernel multiplies them; the first element holds the weights."""

    def unpack(self, packed: Packed) -> tuple[Tensor, Tensor]:
        """The same int8 `[N, K]` and float32 `[N]` again, bit for bit."""

    def multiply(self, x: Tensor, packed: Packed, bias: Tensor | None) -> Tensor:
        """`[M, K]` to `[M, N]` in the dtype of `x`."""


def get(name: str, device: DeviceFacts | None = None) -> Kernel:
    """The kernel of that name, as `plan.choose_kernel` chose it, for a device; None is this machine's CPU."""
    from chatterbox_nb.precision.kernels import fused, packed, plain, x86

    kind = device.kind if device else "cpu"
    machine = (device.machine if device else platform.machine()).lower()
    kernels: dict[str, type[Kernel]] = {"plain": plain.Plain, "int8pack": x86.Int8Pack, "dynamic": x86.Dynamic}
    if name == "fused":
        return fused.Fused(bf16=device is not None and device.bf16)
    if name == "int8pack" and kind == "mps":
        return packed.Int8PackMps()
    if name == "int8pack" and machine in ("aarch64", "arm64"):
        return packed.Int8PackArm()
    return kernels[name]()


def dequantize(weight: Tensor, scale: Tensor, dtype: torch.dtype, axis: int = 0) -> Tensor:
    """int8 weights and one float32 scale for each index of `axis`, as numbers of `dtype`."""
    shape = [1] * weight.ndim
    shape[axis] = -1
    return (weight.to(scale.dtype) * scale.view(shape)).to(dtype)

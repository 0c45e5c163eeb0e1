"""Memory in huge pages, for what is read from end to end at every token.

A virtual machine looks up every 4 kB page in two tables; with pages of 2 MB a CPU here reads a third faster. Linux
gives them to whom asks; elsewhere, or when it has none to give, this is ordinary memory.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import Tensor, nn

# Below this, nothing is gained.
_SMALLEST = 2 << 20


def empty(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A tensor of the CPU, with what happens to be there (zeros, where it is new memory)."""
    count = math.prod(shape) * dtype.itemsize
    if count < _SMALLEST or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(*shape, dtype=dtype)
    memory = mmap.mmap(-1, count, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    prefer(memory)
    return torch.frombuffer(memory, dtype=torch.uint8).view(dtype).view(*shape)


def prefer(memory: mmap.mmap) -> None:
    """Asks for huge pages; a kernel without them is no error."""
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):
            memory.madvise(mmap.MADV_HUGEPAGE)


def place(module: nn.Module) -> None:
    """Moves a module's large tensors, which hold nothing yet, to huge pages."""
    for layer in module.modules():
        for name, parameter in layer._parameters.items():
            if parameter is not None and parameter.nbytes >= _SMALLEST:
                layer._parameters[name] = nn.Parameter(empty(parameter.shape, parameter.dtype), requires_grad=False)
        for name, buffer in layer._buffers.items():
            if buffer is not None and buffer.nbytes >= _SMALLEST:
                layer._buffers[name] = empty(buffer.shape, buffer.dtype)

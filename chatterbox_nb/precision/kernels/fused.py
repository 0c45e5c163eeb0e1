"""int8 on an x86 CPU, where a compiled step (`engine/nets/step.py`) multiplies at each token: here are the many rows.

The weights stay as they are, so that several processes can map one file. A text's rows are multiplied in bfloat16
where the CPU has it, with weights that bfloat16 holds exactly; elsewhere they are dequantized.
"""

from __future__ import annotations

import importlib.util
import sys

import torch
import torch.nn.functional as F
from torch import Tensor

from chatterbox_nb.precision.kernels import Packed
from chatterbox_nb.precision.kernels.plain import Plain


def lacking(capability: str) -> str:
    """Why the compiled step cannot run on an x86 CPU; empty where it can.

    Args:
        capability: the vector instructions torch uses.
    """
    if capability not in ("AVX2", "AVX512"):
        return f"the processor has no AVX2 ({capability})"
    missing = [name for name in ("numba", "llvmlite") if importlib.util.find_spec(name) is None]
    return f"{missing[0]} is not installed" if missing else ""


_BLOCK = 1 << 21  # numbers that are turned into bfloat16 at a time


class Fused(Plain):
    """As `plain`; in bfloat16 where the CPU multiplies it."""

    name = "fused"
    max_rows = sys.maxsize

    def __init__(self, bf16: bool) -> None:
        self._bf16 = bf16
        self._block = torch.empty(0, dtype=torch.bfloat16)  # one for every layer; new memory costs more than the work

    def multiply(self, x: Tensor, packed: Packed, bias: Tensor | None) -> Tensor:
        if not self._bf16:
            return super().multiply(x, packed, bias)
        weight, scale = packed
        N, K = weight.shape
        if not len(self._block):
            self._block = torch.empty(_BLOCK, dtype=torch.bfloat16)
        rows, few = x.to(torch.bfloat16), max(1, _BLOCK // K)
        y = torch.empty(len(x), N)
        for start in range(0, N, few):
            stop = min(N, start + few)
            block = self._block[: (stop - start) * K].view(-1, K).copy_(weight[start:stop])
            y[:, start:stop] = F.linear(rows, block)
        y *= scale
        if bias is not None:
            y += bias
        return y.to(x.dtype)

"""int8 on an ARM CPU and on MPS, a few rows at a time: `torch._weight_int8pack_mm` with float32 activations.

Its sums before scaling can pass float16's largest number, so activations are float32 whatever the model computes in,
and the float32 scales are applied to its result. Tested on the x86 operator of the same schema; unverified on hardware.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from chatterbox_nb.precision.kernels import Packed


class Int8PackArm:
    """Takes any number of output rows."""

    name = "int8pack"
    max_rows = 6
    multiple_of = 32  # of K: the operator reads it in blocks
    row_multiple = 1

    def __init__(self) -> None:
        self._ones = torch.ones(0)  # one for every layer; grown to the widest

    def pack(self, weight: Tensor, scale: Tensor) -> Packed:
        missing = -len(scale) % self.row_multiple
        if missing:
            weight = F.pad(weight, (0, 0, 0, missing))
        if len(weight) > len(self._ones):
            self._ones = torch.ones(len(weight), device=weight.device)
        return weight, scale

    def unpack(self, packed: Packed) -> tuple[Tensor, Tensor]:
        weight, scale = packed
        return weight[: len(scale)], scale

    def multiply(self, x: Tensor, packed: Packed, bias: Tensor | None) -> Tensor:
        weight, scale = packed
        rows = x.to(torch.float32, copy=True, memory_format=torch.contiguous_format)  # aligned, whatever `x` views
        y = torch._weight_int8pack_mm(rows, weight, self._ones[: len(weight)])[:, : len(scale)] * scale
        if bias is not None:
            y += bias
        return y.to(x.dtype)


class Int8PackMps(Int8PackArm):
    """Wants K and N in multiples of 32: heads of 8194 and 6563 rows are padded with zeros to 8224 and 6592."""

    row_multiple = 32

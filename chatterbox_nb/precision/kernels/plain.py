"""Dequantize and multiply: the reference, and the path for many rows and for devices without a kernel."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from chatterbox_nb.precision.kernels import Packed, dequantize


class Plain:
    name = "plain"
    max_rows = 0
    multiple_of = 1

    def pack(self, weight: Tensor, scale: Tensor) -> Packed:
        return weight, scale

    def unpack(self, packed: Packed) -> tuple[Tensor, Tensor]:
        return packed[0], packed[1]

    def multiply(self, x: Tensor, packed: Packed, bias: Tensor | None) -> Tensor:
        weight, scale = packed
        return F.linear(x, dequantize(weight, scale, x.dtype), None if bias is None else bias.to(x.dtype))

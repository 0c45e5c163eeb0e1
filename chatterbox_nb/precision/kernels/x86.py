"""int8 on an x86 CPU, a few rows at a time.

Both kernels read each weight once as one byte, so a step is bound by memory bandwidth at a quarter of fp32's bytes.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from chatterbox_nb.precision.kernels import Packed


class Int8Pack:
    """int8 weights, bfloat16 activations, float32 sums: `torch._weight_int8pack_mm`.

    The operator wants its scales in bfloat16 too, which would put up to 0.2 % on every row; it is given ones, and the
    float32 scales are applied to its result. It is slower than `plain` above a few rows.

    It reads K in aligned blocks of 16 and checks neither: with another K it would read past the end.
    """

    name = "int8pack"
    max_rows = 6
    multiple_of = 16

    def __init__(self) -> None:
        self._ones = torch.ones(0, dtype=torch.bfloat16)  # one for every layer; grown to the widest

    def pack(self, weight: Tensor, scale: Tensor) -> Packed:
        if len(scale) > len(self._ones):
            self._ones = torch.ones(len(scale), dtype=torch.bfloat16)
        return weight, scale

    def unpack(self, packed: Packed) -> tuple[Tensor, Tensor]:
        return packed[0], packed[1]

    def multiply(self, x: Tensor, packed: Packed, bias: Tensor | None) -> Tensor:
        weight, scale = packed
        rows = x.to(torch.bfloat16, copy=True, memory_format=torch.contiguous_format)  # aligned, whatever `x` views
        y = torch._weight_int8pack_mm(rows, weight, self._ones[: len(scale)]) * scale
        if bias is not None:
            y += bias
        return y.to(x.dtype)


class Dynamic:
    """int8 weights and int8 activations, int32 sums: oneDNN through `torch.ops.onednn.qlinear_pointwise`.

    `quantized.linear_dynamic` takes one range for all rows, so that a loud row coarsens a quiet one. Here each row
    of `x` is scaled by its own largest value and shifted to 0..255 around 128, which the operator is told as a
    fixed zero point: rows cannot touch each other. Weights live in oneDNN's own layout, and only there.
    """

    name = "dynamic"
    max_rows = sys.maxsize
    multiple_of = 1

    def __init__(self) -> None:
        self._zeros = torch.zeros(0, dtype=torch.int32)  # likewise

    def pack(self, weight: Tensor, scale: Tensor) -> Packed:
        if len(scale) > len(self._zeros):
            self._zeros = torch.zeros(len(scale), dtype=torch.int32)
        return torch.ops.onednn.qlinear_prepack(weight, None), scale

    def unpack(self, packed: Packed) -> tuple[Tensor, Tensor]:
        return packed[0].to_dense().t().contiguous(), packed[1]

    def multiply(self, x: Tensor, packed: Packed, bias: Tensor | None) -> Tensor:
        weight, scale = packed
        step = x.abs().amax(1, keepdim=True).float().clamp_min_(torch.finfo(torch.float32).tiny) / 127
        rows = (x / step).round_().add_(128).to(torch.uint8)
        y = torch.ops.onednn.qlinear_pointwise(
            rows, 1.0, 128, weight, scale, self._zeros[: len(scale)], None, 1.0, 0, torch.float32, "none", [], ""
        )
        y *= step
        if bias is not None:
            y += bias
        return y.to(x.dtype)

"""Layers made ready for one call: in the dtype they are multiplied in, over `[B, T, C]`, int8 dequantized once.

A flow multiplies the same weights at each of its steps with a thousand rows. So a call makes what it multiplies with
once, and when it ends that is gone: between calls only the stored form is in memory.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chatterbox_nb.precision import device
from chatterbox_nb.precision.kernels import dequantize
from chatterbox_nb.precision.layers import Int8Linear, Int8Weight

# On a CPU torch's attention reads queries in blocks of 256 from 768 on, and of 64 below. In float32 that is so much
# faster that it pays to add queries whose answers nobody reads; in half precision it does not.
_LARGE_BLOCKS, _WORTH_PADDING = 768, 640
# Rows that weights are packed for; any number can be multiplied.
_ROWS = 1024


class Matrix:
    """A linear layer, or a causal convolution of stride 1, as one matrix.

    In bfloat16 on a CPU that multiplies it, weights are packed as oneDNN wants them, and what follows a product is
    done as it is written: a quarter faster than one after the other.

    Args:
        layer: nn.Linear, nn.Conv1d, or either stored in int8.
        dtype: what it is multiplied in.
    """

    def __init__(self, layer: Any, dtype: torch.dtype) -> None:
        weight = _weight(layer, dtype)
        self.taps = weight.shape[2] if weight.ndim == 3 else 1
        if weight.ndim == 3:  # [D, C, taps] as [D, taps * C]
            weight = weight.transpose(1, 2).reshape(len(weight), -1)
        self.packed = dtype == torch.bfloat16 and weight.device.type == "cpu" and _packs()
        self.weight: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS) if self.packed else weight
        self.bias: Tensor | None = None if layer.bias is None else layer.bias.to(dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """`[B, T, C]` to `[B, T, D]`; a convolution reads a frame and those before it, zeros before the first."""
        if self.taps > 1:
            frames = x.shape[1]
            padded = F.pad(x, (0, 0, self.taps - 1, 0))
            x = torch.cat([padded[:, tap : tap + frames] for tap in range(self.taps)], dim=-1)
        if self.packed:
            return self._packed(x, "none", "")
        return F.linear(x, self.weight, self.bias)

    def gelu(self, x: Tensor) -> Tensor:
        """The GELU of a product."""
        return self._packed(x, "gelu", "none") if self.packed else F.gelu(self(x))

    def added(self, x: Tensor, total: Tensor) -> Tensor:
        """A product and `total`, which is used up."""
        if self.packed:
            found: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, total, self.weight, self.bias, "add")
            return found
        return total.add_(self(x))

    def _packed(self, x: Tensor, then: str, how: str) -> Tensor:
        found: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, then, [], how)
        return found


@cache
def _packs() -> bool:
    """Whether torch has oneDNN's products with packed weights, and the processor multiplies bfloat16."""
    ops = torch.ops.mkldnn
    try:
        return torch.backends.mkldnn.is_available() and device.multiplies_bf16() and bool(ops._linear_pointwise.binary)
    except AttributeError:
        return False


def _weight(layer: Any, dtype: torch.dtype) -> Tensor:
    if isinstance(layer, Int8Linear):
        return dequantize(*layer.plain(), dtype)
    if isinstance(layer, Int8Weight):
        return dequantize(layer.weight_int8, layer.weight_scale, dtype, layer.weight_axis)
    weight: Tensor = layer.weight
    return weight.to(dtype)


class Ready:
    """The matrices of a module's layers, for one call.

    Args:
        module: as it is stored.
        dtype: what it computes in.
        tiled: whether attention in bfloat16 is that of `tiled.py`.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype, tiled: bool = False) -> None:
        self._tiled = tiled and dtype == torch.bfloat16
        self.mask: Tensor | None = None  # added to attention's scores: `[1, 1, 1, T]`
        kinds = (nn.Linear, nn.Conv1d, Int8Linear)
        self._matrices: dict[nn.Module, Matrix] = {
            layer: Matrix(layer, dtype) for layer in module.modules() if isinstance(layer, kinds)
        }

    def __call__(self, layer: nn.Module, x: Tensor) -> Tensor:
        """What a layer of the module makes of `[B, T, C]`."""
        return self._matrices[layer](x)

    def gelu(self, layer: nn.Module, x: Tensor) -> Tensor:
        """The GELU of it."""
        return self._matrices[layer].gelu(x)

    def added(self, layer: nn.Module, x: Tensor, total: Tensor) -> Tensor:
        """It and `total`, which is used up."""
        return self._matrices[layer].added(x, total)

    def attention(self, qkv: Tensor, heads: int) -> Tensor:
        """Every frame to every frame: queries, keys and values `[B, T, 3 * H * D]` to `[B, T, H * D]`."""
        rows, frames, inner = qkv.shape
        if self._tiled:
            from chatterbox_nb.engine.nets import tiled

            if tiled.fits(frames, inner // (3 * heads)):
                return tiled.attention(qkv, heads)
        query, key, value = qkv.view(rows, frames, 3, heads, -1).permute(2, 0, 3, 1, 4)
        return attention(query, key, value, self.mask).transpose(1, 2).reshape(rows, frames, -1)


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """torch's, all `[B, H, T, D]`, and so is the answer."""
    frames = query.shape[2]
    if query.dtype == torch.float32 and query.device.type == "cpu" and _WORTH_PADDING <= frames < _LARGE_BLOCKS:
        query = F.pad(query, (0, 0, 0, _LARGE_BLOCKS - frames))
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)[:, :, :frames]

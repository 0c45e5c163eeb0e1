"""The quantized layers, and the two verbs: `quantize` a tensor, `convert` a module.

int8, one float32 scale an output row (an entry of an embedding, an output channel of a convolution), symmetric, round
to nearest: plain tensors under plain names, `weight_int8` and `weight_scale`. Biases stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from chatterbox_nb.errors import PrecisionError, TensorError
from chatterbox_nb.precision.kernels import Kernel, Packed, dequantize
from chatterbox_nb.precision.kernels.plain import Plain

# Quantizing works through a tensor in blocks of this many elements, so that it needs no second large tensor.
_BLOCK = 1 << 20
_SMALLEST_SCALE = torch.finfo(torch.float32).tiny
_PLAIN: Kernel = Plain()


def quantize(weight: Tensor, axis: int = 0) -> tuple[Tensor, Tensor]:
    """Symmetric round-to-nearest int8 with one scale for each index of `axis`.

    Args:
        weight: float, any shape.
        axis: the axis that keeps its own scales.

    Returns:
        int8 of the same shape in -127..127, and float32 scales `[weight.shape[axis]]`. A row of zeros has scale 1, and
        so has one whose scale float32 could not hold at full precision (numbers below 1.5e-36): it becomes zeros.

    Raises:
        TensorError: a number is NaN or infinite. Rounding would hide it.
    """
    rows = weight.transpose(0, axis).reshape(weight.shape[axis], -1)
    quantized = torch.empty(rows.shape, dtype=torch.int8, device=weight.device)
    scale = torch.empty(len(rows), dtype=torch.float32, device=weight.device)
    step = max(1, _BLOCK // max(1, rows.shape[1]))
    for start in range(0, len(rows), step):
        block = rows[start : start + step].float()
        largest = block.abs().amax(1)
        if not bool(torch.isfinite(largest).all()):
            row = start + int(torch.isfinite(largest).logical_not().nonzero()[0])
            raise TensorError(
                f"A tensor {list(weight.shape)} holds NaN or infinite numbers (first: index {row} of axis {axis}) "
                "and cannot be stored in int8. Delete the file and load again."
            )
        block_scale = largest / 127
        block_scale = torch.where(block_scale >= _SMALLEST_SCALE, block_scale, torch.ones_like(block_scale))
        scale[start : start + step] = block_scale
        quantized[start : start + step] = (block / block_scale[:, None]).round_().clamp_(-127, 127).to(torch.int8)
    shape = list(weight.shape)
    shape[0], shape[axis] = shape[axis], shape[0]
    return quantized.view(shape).transpose(0, axis).contiguous(), scale


class Int8Linear(nn.Module):
    """A linear layer with int8 weights, multiplied by a kernel when the rows are few.

    `kernel` is the one that was given, or `plain` where that one cannot multiply matrices of this width.
    """

    weight_int8: Tensor | None
    weight_scale: Tensor
    packed: Packed | None
    transposed = False  # the checkpoint stores it as `[K, N]`, as GPT-2's Conv1D does

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool,
        kernel: Kernel,
        device: Any = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.register_buffer("weight_int8", torch.empty(out_features, in_features, dtype=torch.int8, device=device))
        self.register_buffer("weight_scale", torch.empty(out_features, dtype=torch.float32, device=device))
        empty = torch.empty(out_features, device=device, dtype=dtype)
        self.bias = nn.Parameter(empty, requires_grad=False) if bias else None
        self.kernel = kernel if in_features % kernel.multiple_of == 0 else _PLAIN
        self.packed = None

    def finish(self) -> None:
        """Makes what the kernel multiplies with. A kernel with a layout of its own replaces the plain weights."""
        assert self.weight_int8 is not None, "packed already"
        self.packed = self.kernel.pack(self.weight_int8, self.weight_scale)
        if self.packed[0] is not self.weight_int8:
            self.weight_int8 = None

    def plain(self) -> tuple[Tensor, Tensor]:
        """int8 `[N, K]` and float32 `[N]`."""
        if self.packed is not None:
            return self.kernel.unpack(self.packed)
        assert self.weight_int8 is not None, "neither packed nor plain"
        return self.weight_int8, self.weight_scale

    def forward(self, x: Tensor) -> Tensor:
        if self.packed is None:
            self.finish()
        assert self.packed is not None
        rows = x.reshape(-1, self.in_features)
        if len(rows) <= self.kernel.max_rows:
            y = self.kernel.multiply(rows, self.packed, self.bias)
        else:
            y = _PLAIN.multiply(rows, self.plain(), self.bias)
        return y.view(*x.shape[:-1], self.out_features)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "weight_int8"] = self.plain()[0]

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        if prefix + "weight_int8" in state_dict:
            if self.weight_int8 is None:
                self.weight_int8 = torch.empty(self.out_features, self.in_features, dtype=torch.int8)
            self.packed = None
        super()._load_from_state_dict(state_dict, prefix, *rest)


class Int8Embedding(nn.Module):
    """An embedding table stored in int8, one scale an entry; only the entries that are read are dequantized."""

    weight_int8: Tensor
    weight_scale: Tensor

    def __init__(self, entries: int, width: int, device: Any = None, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.register_buffer("weight_int8", torch.empty(entries, width, dtype=torch.int8, device=device))
        self.register_buffer("weight_scale", torch.empty(entries, dtype=torch.float32, device=device))
        self.dtype = dtype

    def forward(self, ids: Tensor) -> Tensor:
        # Not plain indexing: there -1 would be the last entry, and no error.
        entries = torch.nn.functional.embedding(ids, self.weight_int8)
        return (entries * self.weight_scale[ids].unsqueeze(-1)).to(self.dtype)


class Int8Weight:
    """Mixed into any class whose forward reads `self.weight`: it is stored in int8 and dequantized for each call."""

    weight_axis: int
    weight_dtype: torch.dtype
    weight_int8: Tensor
    weight_scale: Tensor

    @property
    def weight(self) -> Tensor:
        return dequantize(self.weight_int8, self.weight_scale, self.weight_dtype, self.weight_axis)


class Int8Recurrent(nn.Module):
    """An LSTM or a GRU of one direction with int8 weights; one layer is dequantized at a time. Biases stay as they are.

    Args:
        recurrent: without weights; gives sizes and names.
    """

    def __init__(self, recurrent: nn.RNNBase) -> None:
        super().__init__()
        self.mode, self.layers, self.hidden = recurrent.mode, recurrent.num_layers, recurrent.hidden_size
        self.batch_first = recurrent.batch_first
        for name, parameter in recurrent.named_parameters():
            if name.startswith("weight"):
                empty = torch.empty(parameter.shape, dtype=torch.int8, device=parameter.device)
                self.register_buffer(f"{name}_int8", empty)
                self.register_buffer(f"{name}_scale", torch.empty(len(parameter), device=parameter.device))
            else:
                self.register_parameter(name, nn.Parameter(torch.empty_like(parameter), requires_grad=False))

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """As of `nn.LSTM` and `nn.GRU`, from a state of zeros."""
        assert state is None, "it begins with zeros"
        start = x.new_zeros(1, x.shape[0 if self.batch_first else 1], self.hidden)
        hidden, cells = [], []
        for layer in range(self.layers):
            weights = [
                dequantize(
                    getattr(self, f"weight_{of}_l{layer}_int8"), getattr(self, f"weight_{of}_l{layer}_scale"), x.dtype
                )
                for of in ("ih", "hh")
            ]
            biases = [
                getattr(self, f"bias_{of}_l{layer}") for of in ("ih", "hh") if hasattr(self, f"bias_{of}_l{layer}")
            ]
            rest = ([*weights, *biases], bool(biases), 1, 0.0, False, False, self.batch_first)
            if self.mode == "LSTM":
                x, last, cell = torch._VF.lstm(x, (start, start), *rest)
                cells.append(cell)
            else:
                x, last = torch._VF.gru(x, start, *rest)
            hidden.append(last)
        return x, (torch.cat(hidden), torch.cat(cells)) if cells else torch.cat(hidden)


@cache
def _stored_class(layer: Any) -> type[nn.Module]:
    return type(f"Int8{layer.__name__}", (Int8Weight, layer), {})


def _store_convolution(layer: Any, dtype: torch.dtype) -> nn.Module:
    """Turns a convolution, of whatever subclass, into one whose weight is stored in int8."""
    weight = layer.weight
    axis = 1 if isinstance(layer, _ConvTransposeNd) else 0
    del layer.weight
    layer.__class__ = _stored_class(layer.__class__)
    layer.weight_axis, layer.weight_dtype = axis, dtype
    layer.register_buffer("weight_int8", torch.empty(weight.shape, dtype=torch.int8, device=weight.device))
    layer.register_buffer("weight_scale", torch.empty(weight.shape[axis], dtype=torch.float32, device=weight.device))
    return layer


def is_conv1d(layer: nn.Module) -> bool:
    """GPT-2's linear layer, `transformers.pytorch_utils.Conv1D`: its weight is `[in, out]`, and it is no nn.Linear."""
    return type(layer).__name__ == "Conv1D" and hasattr(layer, "nf")


def _quantized(layer: Any, kernel: Callable[[], Kernel], dtype: torch.dtype) -> nn.Module | None:
    """An empty int8 layer of the same shape, or None for what stays as it is."""
    if isinstance(layer, _ConvNd):
        return _store_convolution(layer, dtype)
    if isinstance(layer, nn.Linear):
        bias = layer.bias is not None
        return Int8Linear(layer.in_features, layer.out_features, bias, kernel(), layer.weight.device, dtype)
    if isinstance(layer, nn.Embedding):
        return Int8Embedding(layer.num_embeddings, layer.embedding_dim, layer.weight.device, dtype)
    if is_conv1d(layer):
        inputs, outputs = layer.weight.shape
        linear = Int8Linear(inputs, outputs, True, kernel(), layer.weight.device, dtype)
        linear.transposed = True
        return linear
    if isinstance(layer, (nn.LSTM, nn.GRU)) and not layer.bidirectional and not layer.proj_size:
        return Int8Recurrent(layer)
    return None


def convert(
    module: nn.Module,
    storage: Mapping[str, str],
    kernel: Callable[[str], Kernel],
    dtype: torch.dtype = torch.float32,
) -> int:
    """Replaces the layers that are to be stored in int8 by empty quantized ones of the same shape.

    Args:
        module: built without weights; its children are replaced in place.
        storage: a layer's dotted name → how its weight is stored.
        kernel: a linear layer's dotted name → what multiplies it.
        dtype: what the module computes in.

    Returns:
        How many layers were converted.

    Raises:
        PrecisionError: nothing was converted. What has no int8 form stays as it is; a load counts it.
    """
    converted = 0
    for name, layer in list(module.named_modules()):
        if storage.get(name) != "int8":
            continue
        new = _quantized(layer, partial(kernel, name), dtype)
        if new is None:
            continue
        converted += 1
        if new is not layer:
            parent, _, child = name.rpartition(".")
            setattr(module.get_submodule(parent), child, new)
    if not converted:
        raise PrecisionError(f"int8 was asked for, and nothing in {type(module).__name__} could be converted.")
    return converted


def finish(module: nn.Module) -> None:
    """After its weights are there: makes what the kernels of its layers multiply with."""
    for layer in module.modules():
        if isinstance(layer, Int8Linear):
            layer.finish()


def is_int8(layer: nn.Module) -> bool:
    return isinstance(layer, (Int8Linear, Int8Embedding, Int8Weight, Int8Recurrent))


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Every tensor a module holds in memory, by dotted name: parameters, buffers, packed weights."""
    found = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    for name, layer in module.named_modules():
        if isinstance(layer, Int8Linear) and layer.packed is not None:
            found[f"{name}.weight_int8"] = layer.packed[0]
    return found


def device_of(layer: nn.Module) -> torch.device:
    """Where a layer's tensors are."""
    return next(iter(tensors_of(layer).values())).device


def bytes_of(module: nn.Module) -> int:
    """Bytes of every tensor a module holds."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors_of(module).values())

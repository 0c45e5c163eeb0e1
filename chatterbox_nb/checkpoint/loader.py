"""Weights come in one tensor at a time: read, quantized or cast, placed.

Modules are built on the meta device, without weights, and converted by the plan there. Their tensors are then made on
the target device and filled from the file in the file's order, so that memory peaks one tensor above what stays.
Everything is checked against the inventory before the first byte is read: nothing half-loaded is left behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from chatterbox_nb.checkpoint.tensorfile import Entry, TensorFile
from chatterbox_nb.errors import TensorError, nearest
from chatterbox_nb.events import CancelToken
from chatterbox_nb.precision import huge
from chatterbox_nb.precision.layers import Int8Linear, Int8Weight, finish, is_int8, quantize
from chatterbox_nb.precision.plan import TensorInfo

_GAIN, _DIRECTION = ".parametrizations.weight.original0", ".parametrizations.weight.original1"


@dataclass(frozen=True)
class Fill:
    """How one stretch of a module's parameter is filled.

    Args:
        target: the parameter's dotted name in the module.
        sources: the published names it is made of: one, or a weight norm's gain and direction.
        rows: the stretch of its first axis, from and to, for matrices that are fused from several.
        transposed: the file has it as `[in, out]`, as GPT-2's `Conv1D` does.
    """

    target: str
    sources: tuple[str, ...]
    rows: tuple[int, int] | None = None
    transposed: bool = False

    @property
    def index(self) -> slice:
        return slice(*self.rows) if self.rows else slice(None)


def plain_fills(module: nn.Module, prefix: str) -> list[Fill]:
    """Fills for a borrowed module: its own names behind a prefix, weight norms folded.

    Weight norms must have been removed already (`fold_weight_norms`), which `module.weight_normed` remembers.
    """
    folded = getattr(module, "weight_normed", ())
    found = []
    for name in module.state_dict():
        layer, _, last = name.rpartition(".")
        if last.endswith("_scale") or last == "num_batches_tracked":
            continue
        name = name.removesuffix("_int8")
        if last in ("weight", "weight_int8") and layer in folded:
            found.append(Fill(name, (prefix + layer + _GAIN, prefix + layer + _DIRECTION)))
        else:
            found.append(Fill(name, (prefix + name,)))
    return found


def fold_weight_norms(module: nn.Module) -> None:
    """Removes weight norms from a module on the meta device and remembers where they were.

    The package recomputes them on every call. Its own `remove_weight_norm` raises: it is written for the older hooks.
    """
    from torch.nn.utils import parametrize

    names = [name for name, layer in module.named_modules() if parametrize.is_parametrized(layer, "weight")]
    for name in names:
        parametrize.remove_parametrizations(module.get_submodule(name), "weight")
    module.weight_normed = tuple(names)  # type: ignore[assignment]


def check_file(file: TensorFile, tensors: Iterable[TensorInfo], optional: Iterable[str]) -> None:
    """Holds a file's names and shapes against the inventory, before anything is read.

    Raises:
        TensorError: unknown, missing, misshapen or transposed tensors, the first ones named.
    """
    wanted = {tensor.name: tensor for tensor in tensors}
    unknown = sorted(file.entries.keys() - wanted.keys())
    missing = sorted(wanted.keys() - file.entries.keys() - set(optional))
    wrong = [
        _misshapen(name, file.entries[name], tensor.shape)
        for name, tensor in wanted.items()
        if name in file.entries and file.entries[name].shape != tensor.shape
    ]
    kinds = [
        f"'{name}' holds {str(file.entries[name].dtype).removeprefix('torch.')}"
        for name, tensor in wanted.items()
        if name in file.entries and file.entries[name].dtype.is_floating_point != (tensor.kind != "counter")
    ]
    # To look for what is near takes long in a file of thousands: it is done for those that are shown.
    near = {name: nearest(name, missing) for name in unknown[:3]}
    for what, found in (
        ("tensors nobody knows", [f"'{name}'{near.get(name, '')}" for name in unknown]),
        ("missing tensors", [f"'{name}'" for name in missing]),
        ("tensors of another shape", wrong),
        ("tensors of another type", kinds),
    ):
        if found:
            more = f" and {len(found) - 3} more" if len(found) > 3 else ""
            raise TensorError(
                f"{file.path} is not the checkpoint this model expects: {len(found)} {what}: "
                f"{', '.join(found[:3])}{more}. "
                "Name the right model or folder, or delete the file and load again."
            )


def _misshapen(name: str, entry: Entry, wanted: tuple[int, ...]) -> str:
    hint = " (transposed)" if entry.shape == wanted[::-1] else ""
    return f"'{name}' is {list(entry.shape)}, not {list(wanted)}{hint}"


def load(
    module: nn.Module,
    file: TensorFile,
    fills: Iterable[Fill],
    device: torch.device,
    on_fill: Callable[[Fill], None] = lambda fill: None,
    cancel: CancelToken | None = None,
) -> None:
    """Makes a module's tensors on the device and fills each from the file.

    Args:
        module: on the meta device, converted by the plan.
        file: checked by `check_file`.
        fills: how; parameters that no fill names are an error, unless the module computed them itself.
        on_fill: told after each.
        cancel: checked between tensors.

    Raises:
        TensorError: a parameter of the module is left without values.
    """
    fills = list(fills)
    _check_complete(module, fills)
    module.to_empty(device=device)
    if device.type == "cpu":
        huge.place(module)
    module.requires_grad_(False)
    order = {name: entry.offset for name, entry in file.entries.items()}
    for fill in sorted(fills, key=lambda fill: order[fill.sources[-1]]):
        if cancel is not None:
            cancel.check()
        layer, _, last = fill.target.rpartition(".")
        problem = ""
        try:
            _put(module.get_submodule(layer), last, _value(file, fill), fill.index)
        except TensorError as error:
            problem = str(error)
        if problem:
            raise TensorError(f"{file.path}, '{fill.sources[-1]}': {problem}")
        on_fill(fill)
    finish(module)


def _value(file: TensorFile, fill: Fill) -> Tensor:
    parts = [file.read(name) for name in fill.sources]
    if len(parts) == 1:
        return parts[0].t() if fill.transposed else parts[0]
    gain, direction = (part.float() for part in parts)
    return torch._weight_norm(direction, gain, 0)


def _put(layer: nn.Module, name: str, value: Tensor, rows: slice) -> None:
    if is_int8(layer) and hasattr(layer, f"{name}_int8"):
        transposed = isinstance(layer, Int8Linear) and layer.transposed
        axis = layer.weight_axis if isinstance(layer, Int8Weight) else 0
        quantized, scale = quantize(value.t() if transposed else value, axis)
        getattr(layer, f"{name}_int8")[rows].copy_(quantized)
        getattr(layer, f"{name}_scale")[rows].copy_(scale)
    else:
        target: Tensor = getattr(layer, name)
        cast = value.to(target.device, target.dtype)
        if target.dtype == torch.float16 and bool((cast.isinf() & value.to(target.device).isfinite()).any()):
            raise TensorError("it holds numbers beyond 65504, fp16's largest. Try --precision bf16, fp32 or int8.")
        target.data[rows if target.ndim else ...] = cast


def _check_complete(module: nn.Module, fills: Iterable[Fill]) -> None:
    """Every stored tensor of the module must be filled, each row once."""
    stretches: dict[str, list[Fill]] = {}
    for fill in fills:
        stretches.setdefault(fill.target, []).append(fill)
    for name, tensor in module.state_dict().items():
        if name.endswith(("_scale", "num_batches_tracked")):
            continue
        rows, end = tensor.shape[0] if tensor.ndim else 1, 0
        for start, stop in sorted(fill.rows or (0, rows) for fill in stretches.get(name.removesuffix("_int8"), [])):
            if start < end:
                raise TensorError(f"'{name}' of {type(module).__name__} is filled twice.")
            if start > end:
                break
            end = stop
        if end != rows:
            raise TensorError(f"'{name}' of {type(module).__name__} is left without values.")

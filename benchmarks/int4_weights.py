"""int4 for an experiment: weights rounded to four bits, put back as numbers, in the demo voice at int8. No kernel.

Symmetric, a group of inputs of one output row having one float16 scale; either rounded to nearest under the group's
largest, or with the scale of the least squared error among some ("clipped": the largest may be cut off). What is not
int4 stays int8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from benchmarks import quality_sound, quality_worker, teacher
from benchmarks.quality_worker import FP32, Configuration
from chatterbox_nb.checkpoint.spec import T3Dims
from chatterbox_nb.engine.model import Model
from chatterbox_nb.precision.kernels import dequantize
from chatterbox_nb.precision.layers import Int8Linear

INT8 = Configuration("int8, plain", "int8", "plain")
SCALES = 48  # that are tried for a group, half of them negative
_PARTS = torch.linspace(0.6, 8 / 7, SCALES // 2)  # of the scale that lets the largest be -8; at the end it is 7


@dataclass(frozen=True)
class Rounding:
    """How a matrix is made int4.

    Args:
        group: inputs that share a scale; 0 is a whole row.
        clipped: the scale is searched.
    """

    group: int
    clipped: bool

    @property
    def name(self) -> str:
        groups = f"groups of {self.group}" if self.group else "a row"
        return groups + (", clipped" if self.clipped else "")

    def bytes(self, rows: int, columns: int) -> int:
        """Of a matrix: half a byte a weight, two a scale."""
        groups = -(-columns // self.group) if self.group else 1
        return (rows * columns + 1) // 2 + 2 * rows * groups


def rounded(weight: Tensor, rounding: Rounding) -> Tensor:
    """A matrix `[N, K]` as its int4 form is read; the last group of a row may be shorter."""
    groups = weight.float().split(rounding.group or weight.shape[1], dim=1)
    return torch.cat([_clipped(group) if rounding.clipped else _nearest(group) for group in groups], dim=1)


def _nearest(group: Tensor) -> Tensor:
    scale = _stored(group.abs().amax(1, keepdim=True) / 7)
    return (group / scale).round().clamp(-7, 7) * scale


def _clipped(group: Tensor) -> Tensor:
    """The scale of the least squared error, of either sign: of -8 to 7 the one side reaches farther."""
    largest = group.abs().amax(1, keepdim=True) / 8
    best, least = torch.zeros_like(group), torch.full_like(largest, torch.inf)
    for part in [*_PARTS, *-_PARTS]:
        scale = _stored(largest * part)
        found = (group / scale).round().clamp(-8, 7) * scale
        error = (found - group).square().sum(1, keepdim=True)
        best, least = torch.where(error < least, found, best), torch.minimum(error, least)
    return best


def _stored(scale: Tensor) -> Tensor:
    """As float16 holds it; 1 where that is zero."""
    held = scale.half().float()
    return torch.where(held == 0, torch.ones_like(held), held)


# Of T3


@dataclass(frozen=True)
class Piece:
    """One published matrix of a layer of T3: rows of one of ours."""

    name: str
    module: str
    first: int
    rows: int
    columns: int

    @property
    def kind(self) -> str:
        return self.name.partition(" ")[2]

    @property
    def int8_bytes(self) -> int:
        return self.rows * self.columns + 4 * self.rows


def pieces(dims: T3Dims) -> list[Piece]:
    """All that T3's layers multiply with: seven a layer."""
    width, ffn = dims.width, dims.ffn
    found = []
    for layer in range(dims.layers):
        where = f"layers.{layer}"
        found += [Piece(f"{layer} {n}", f"{where}.attention.qkv", i * width, width, width) for i, n in enumerate("qkv")]
        found.append(Piece(f"{layer} out", f"{where}.attention.out", 0, width, width))
        found += [
            Piece(f"{layer} {name}", f"{where}.ffn.gate_up", index * ffn, ffn, width)
            for index, name in enumerate(("gate", "up"))
        ]
        found.append(Piece(f"{layer} down", f"{where}.ffn.down", 0, width, ffn))
    return found


@dataclass(frozen=True)
class Choice:
    """What of the demo voice is int4, and how; the rest is int8.

    Args:
        taken: names of pieces of T3.
        flow: the flow's linear layers too.
    """

    name: str
    rounding: Rounding
    taken: tuple[str, ...]
    flow: bool = False


def load(choice: Choice) -> Model:
    """The demo voice with what is int4 as plain layers of the numbers that int4 holds."""
    model = quality_worker.load(INT8)
    put_into_t3(model, choice.rounding, choice.taken)
    if choice.flow:
        true = quality_worker.loaded(FP32).flow
        for name, layer in list(model.flow.named_modules()):
            if isinstance(layer, Int8Linear):
                weight = rounded(true.get_submodule(name).weight, choice.rounding)
                _replace(model.flow, name, weight.to(getattr(torch, model.plan.flow_compute)), layer.bias)
    return model


def put_into_t3(model: Model, rounding: Rounding, taken: Sequence[str]) -> None:
    """Lets pieces of T3 be int4, and all other pieces int8, whatever they were."""
    true = quality_worker.loaded(FP32).t3.backbone
    int8 = quality_worker.loaded(INT8).t3.backbone
    for module in dict.fromkeys(piece.module for piece in pieces(model.spec.t3)):
        weight = dequantize(*int8.get_submodule(module).plain(), torch.float32)
        for piece in pieces(model.spec.t3):
            if piece.module == module and piece.name in taken:
                rows = slice(piece.first, piece.first + piece.rows)
                weight[rows] = rounded(true.get_submodule(module).weight[rows], rounding)
        _replace(model.t3.backbone, module, weight, None)


def _replace(of: nn.Module, name: str, weight: Tensor, bias: Tensor | None) -> None:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach(), requires_grad=False)
    parent, _, child = name.rpartition(".")
    setattr(of.get_submodule(parent), child, layer)


# In a process of a pool


@lru_cache(maxsize=2)
def _loaded(choice: Choice) -> Model:
    return load(choice)


def cross_entropy(choice: Choice) -> list[float]:
    """Of each held-out utterance."""
    return [round(loss, 6) for loss in teacher.losses(_loaded(choice)).tolist()]


def takes(choice: Choice, seed: int) -> list[int]:
    """Edits of each sentence."""
    return quality_worker.takes_of(_loaded(choice), seed)[1]


def moved(choice: Choice) -> dict[str, float]:
    return quality_sound.moved_by(_loaded(choice))


def likeness(choice: Choice) -> dict[str, list[float]]:
    return quality_sound.likeness_of(_loaded(choice))


def chosen(rounding: Rounding, fp32: list[float], int8: list[float], limit: float) -> dict[str, object]:
    """What each piece alone costs over int8, and which are taken, the cheapest for a byte first, within a limit.

    Args:
        fp32, int8: losses of each utterance.
        limit: of what all that is int4 and int8 may cost over fp32.
    """
    model = quality_worker.load(INT8)

    def cost(taken: Sequence[str], over: list[float]) -> float:
        put_into_t3(model, rounding, taken)
        return float((teacher.losses(model) - torch.tensor(over)).mean())

    alone = {piece: cost([piece.name], int8) for piece in pieces(model.spec.t3)}
    order = [piece.name for piece in cheapest_first(alone, rounding)]
    within = most(len(order), lambda count: cost(order[:count], fp32) <= limit)
    return {"alone": {piece.name: round(one, 6) for piece, one in alone.items()}, "taken": order[:within]}


def cheapest_first(alone: Mapping[Piece, float], rounding: Rounding) -> list[Piece]:
    """Pieces by what each costs for a byte that it saves."""

    def price(piece: Piece) -> float:
        return alone[piece] / (piece.int8_bytes - rounding.bytes(piece.rows, piece.columns))

    return sorted(alone, key=price)


def most(count: int, fits: Callable[[int], bool]) -> int:
    """How many of so many fit, the more the worse: by halves."""
    low, high = 0, count
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low

"""Faults planted in int8 layers, to see that the rulers of quality see them.

A fault changes the layers of a component that is loaded with kernel `plain`, and says how many it changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from chatterbox_nb.precision.kernels import dequantize
from chatterbox_nb.precision.layers import Int8Linear, Int8Weight, quantize

OUTLIER = 50.0  # times the largest activation that there is


def scales_of_the_wrong_axis(module: nn.Module) -> int:
    """Quantizes square layers by input, and lets them be read by output."""
    broken = 0
    for weight, scale, axis in _square(module):
        quantized, wrong = quantize(dequantize(weight, scale, scale.dtype, axis), 1 - axis)
        weight.copy_(quantized)
        scale.copy_(wrong)
        broken += 1
    return broken


def transposed_weights(module: nn.Module) -> int:
    """Exchanges input and output of square layers, as of a layout that was taken for another."""
    broken = 0
    for weight, _, _ in _square(module):
        weight.copy_(weight.transpose(0, 1).clone())
        broken += 1
    return broken


def int2(module: nn.Module) -> int:
    """Rounds weights to -2..1 with a scale a row."""
    broken = 0
    for weight, scale, axis in _int8(module):
        shape = [1] * weight.ndim
        shape[axis] = -1
        others = [other for other in range(weight.ndim) if other != axis]
        step = (weight.float().abs().amax(others) / 2).clamp_(min=0.5)
        weight.copy_((weight / step.view(shape)).round_().clamp_(-2, 1))
        scale.mul_(step)
        broken += 1
    return broken


def activations_per_tensor(module: nn.Module) -> int:
    """Rounds what linear layers are given to 8 bits of one range for all rows, as wide as one outlier would make it.

    The outlier itself stays away, so that what is seen is only what it does to all others. In layers that are called:
    the flow's encoder; its estimator multiplies with matrices of its own.
    """

    def rounded(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        step = given[0].abs().amax() * OUTLIER / 127
        return ((given[0] / step).round() * step, *given[1:])

    linear = [layer for layer in module.modules() if isinstance(layer, Int8Linear)]
    for layer in linear:
        layer.register_forward_pre_hook(rounded)
    return len(linear)


def _int8(module: nn.Module) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Weight, scale and the axis of the scale, of int8 layers with the kernel `plain`."""
    for layer in module.modules():
        if isinstance(layer, Int8Linear):
            yield (*layer.plain(), 0)
        elif isinstance(layer, Int8Weight):
            yield layer.weight_int8, layer.weight_scale, layer.weight_axis


def _square(module: nn.Module) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Those with as many inputs as outputs."""
    return ((weight, scale, axis) for weight, scale, axis in _int8(module) if weight.shape[0] == weight.shape[1])


@dataclass(frozen=True)
class Fault:
    """What is done to a module, and the components in which it can be done."""

    plant: Callable[[nn.Module], int]
    components: tuple[str, ...] = ("t3", "flow", "vocoder")


PLANT: Mapping[str, Fault] = {
    "wrong scales": Fault(scales_of_the_wrong_axis),
    "transposed weights": Fault(transposed_weights),
    "activations per tensor": Fault(activations_per_tensor, ("t3", "flow")),  # the vocoder has convolutions only
    "int2": Fault(int2),
}

"""Faults planted in int8 layers, to see that the rulers of quality see them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from torch import Tensor, nn

from chatterbox_nb.precision.layers import Int8Linear, Int8Weight, quantize


def scales_of_the_wrong_axis(module: nn.Module) -> int:
    """Quantizes square layers by input, and lets them be read by output; how many."""
    broken = 0
    for weight, scale, axis in _square(module):
        shape = [1] * weight.ndim
        shape[axis] = -1
        quantized, wrong = quantize(weight * scale.view(shape), 1 - axis)
        weight.copy_(quantized)
        scale.copy_(wrong)
        broken += 1
    return broken


def transposed_weights(module: nn.Module) -> int:
    """Exchanges input and output of square layers, as of a layout that was taken for another; how many."""
    broken = 0
    for weight, _, _ in _square(module):
        weight.copy_(weight.transpose(0, 1).clone())
        broken += 1
    return broken


def _square(module: nn.Module) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Weight, scale and the axis of the scale, of int8 layers with as many inputs as outputs and the kernel `plain`."""
    for layer in module.modules():
        if isinstance(layer, Int8Linear):
            weight, scale, axis = *layer.plain(), 0
        elif isinstance(layer, Int8Weight):
            weight, scale, axis = layer.weight_int8, layer.weight_scale, layer.weight_axis
        else:
            continue
        if weight.shape[0] == weight.shape[1]:
            yield weight, scale, axis


PLANT: Mapping[str, Callable[[nn.Module], int]] = {
    "wrong scales": scales_of_the_wrong_axis,
    "transposed weights": transposed_weights,
}

"""A transposed convolution as a convolution.

oneDNN, as torch 2.6 has it, prepares a transposed convolution anew for every length of its input, in time that grows
with the length: half a second for each two seconds of audio, a hundred times what the multiplication takes.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Upsample(nn.ConvTranspose1d):
    """`nn.ConvTranspose1d` of dilation 1 in one group: the same numbers but for the order of the sums."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if output_size is not None:
            return super().forward(x, output_size)
        return polyphase(x, self.weight, self.bias, int(self.stride[0]), int(self.padding[0]))


def polyphase(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
    """`F.conv_transpose1d`: each of the `stride` phases of the output is a convolution, and all of them are one.

    Args:
        x: `[batch, C, N]`.
        weight: `[C, O, K]`.
        bias: `[O]`.

    Returns:
        `[batch, O, (N - 1) stride + K - 2 padding]`.
    """
    channels, outputs, size = weight.shape
    taps = -(-size // stride)
    # weight[c, o, j stride + phase] becomes kernels[o stride + phase, c, taps - 1 - j]
    kernels = F.pad(weight, (0, taps * stride - size)).view(channels, outputs, taps, stride)
    kernels = kernels.flip(2).permute(1, 3, 0, 2).reshape(outputs * stride, channels, taps)
    phases = F.conv1d(x, kernels, padding=taps - 1).unflatten(1, (outputs, stride))
    y = phases.transpose(2, 3).flatten(2)[..., padding : (x.shape[-1] - 1) * stride + size - padding]
    return y if bias is None else y + bias[:, None]

"""The transposed convolution that is a convolution, against torch's own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from chatterbox_nb.engine.model import Model
from chatterbox_nb.engine.nets.upsample import Upsample, polyphase


@settings(max_examples=60, deadline=None)
@given(
    stride=st.integers(1, 8), size=st.integers(1, 16), length=st.integers(1, 30), padding=st.integers(0, 4),
    channels=st.integers(1, 5), outputs=st.integers(1, 5), batch=st.integers(1, 2), bias=st.booleans(),
    seed=st.integers(0, 1000),
)  # fmt: skip
def test_it_is_torchs_transposed_convolution(
    stride: int, size: int, length: int, padding: int, channels: int, outputs: int, batch: int, bias: bool, seed: int
) -> None:
    if (length - 1) * stride + size - 2 * padding < 1:
        return
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, channels, length, generator=draw, dtype=torch.float64)
    weight = torch.randn(channels, outputs, size, generator=draw, dtype=torch.float64)
    added = torch.randn(outputs, generator=draw, dtype=torch.float64) if bias else None
    theirs = F.conv_transpose1d(x, weight, added, stride, padding)
    ours = polyphase(x, weight, added, stride, padding)
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() < 1e-12


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_vocoder_upsamples_with_it(demo: Callable[..., Model], precision: str) -> None:
    layers = [layer for layer in demo(precision).vocoder.modules() if isinstance(layer, nn.ConvTranspose1d)]
    assert len(layers) == 3
    draw = torch.Generator().manual_seed(0)
    for layer in layers:
        assert isinstance(layer, Upsample)
        assert (layer.dilation, layer.groups, layer.output_padding) == ((1,), 1, (0,))  # what it is written for
        x = torch.randn(1, layer.in_channels, 50, generator=draw)
        theirs = F.conv_transpose1d(x, layer.weight, layer.bias, layer.stride, layer.padding)
        assert (layer(x) - theirs).abs().max() <= 1e-6 * theirs.abs().max()

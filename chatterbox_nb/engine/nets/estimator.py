"""The flow's estimator: which way a mel moves at a time between noise and speech. A U-net of one level, `[B, T, C]`.

`Estimator` holds the weights as they are stored. `Velocity` is one call of it: weights as they are multiplied, and
all that is the same at each Euler step. Nothing of a call stays behind.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chatterbox_nb.checkpoint.loader import Fill
from chatterbox_nb.checkpoint.spec import S3GenDims
from chatterbox_nb.engine.nets.ready import Matrix, Ready

MELS = 80
INPUTS = 4 * MELS  # the mel so far, mu, the speaker, the condition: all of a mel's width
TAPS = 3  # of a causal convolution: this frame and the two before it


class Transformer(nn.Module):
    """Attention of every frame to every other, and a feed-forward layer four times as wide."""

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        inner = heads * head_width
        self.heads, self.head_width = heads, head_width
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * inner, bias=False)
        self.out = nn.Linear(inner, width)
        self.ffn_norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor, ready: Ready) -> Tensor:
        """`[B, T, C]` to the same, in place where that can be."""
        heard = ready.attention(ready(self.qkv, self.attention_norm(x)), self.heads)
        x = ready.added(self.out, heard, x)
        return ready.added(self.down, ready.gelu(self.up, self.ffn_norm(x)), x)


class Resnet(nn.Module):
    """Two causal convolutions, the time added between them, and a shortcut."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(inputs, width, TAPS)
        self.first_norm = nn.LayerNorm(width)
        self.second = nn.Conv1d(width, width, TAPS)
        self.second_norm = nn.LayerNorm(width)
        self.shortcut = nn.Conv1d(inputs, width, 1)

    def forward(self, x: Tensor, time: Tensor, ready: Ready) -> Tensor:
        """`x [B, T, inputs]` and a time `[C]` to `[B, T, C]`."""
        inner = F.mish(self.first_norm(ready(self.first, x)), inplace=True)
        inner += time
        found = F.mish(self.second_norm(ready(self.second, inner)), inplace=True)
        return ready.added(self.shortcut, x, found)


class Group(nn.Module):
    """A resnet, transformers, and at either end of the U a convolution."""

    def __init__(self, inputs: int, dims: S3GenDims, convolved: bool) -> None:
        super().__init__()
        width = dims.estimator_width
        self.resnet = Resnet(inputs, width)
        self.transformers = nn.ModuleList(
            Transformer(width, dims.estimator_heads, dims.estimator_head_width) for _ in range(dims.estimator_blocks)
        )
        self.convolution = nn.Conv1d(width, width, TAPS) if convolved else None

    def forward(self, x: Tensor, time: Tensor, ready: Ready) -> Tensor:
        """`[B, T, inputs]` to `[B, T, C]`, before the convolution."""
        x = self.resnet(x, time, ready)
        for transformer in self.transformers:
            x = transformer(x, ready)
        return x


class Estimator(nn.Module):
    """The package's `ConditionalDecoder`, causal, without its masks: the weights alone.

    Args:
        dims: its sizes.
    """

    def __init__(self, dims: S3GenDims) -> None:
        super().__init__()
        self.tiled = False  # its attention in bfloat16 is that of `tiled.py`
        width, middle = dims.estimator_width, dims.estimator_middle
        self.time_in = nn.Linear(INPUTS, 4 * width)
        self.time_out = nn.Linear(4 * width, 4 * width)
        # Of a time and the time where its step ends, where the flow is a mean one.
        self.time_mixer = nn.Linear(8 * width, 4 * width, bias=False) if dims.meanflow else None
        self.times = nn.Linear(4 * width, (middle + 2) * width)  # every resnet's, in one matrix
        self.groups = nn.ModuleList(
            [
                Group(INPUTS, dims, convolved=True),
                *(Group(width, dims, convolved=False) for _ in range(middle)),
                Group(2 * width, dims, convolved=True),
            ]
        )
        self.last = nn.Conv1d(width, width, TAPS)
        self.last_norm = nn.LayerNorm(width)
        self.to_mel = nn.Conv1d(width, MELS, 1)

    @property
    def meanflow(self) -> bool:
        return self.time_mixer is not None

    def forward(self, x: Tensor, times: Tensor, ready: Ready) -> Tensor:
        """Velocities `[B, T, 80]`.

        Args:
            x: the mel so far, mu, speaker and condition, `[B, T, 320]`.
            times: what each group's resnet adds, `[groups, C]`.
            ready: its layers, ready for this call.
        """
        first, *middle, last = self.groups
        skipped = first(x, times[0], ready)
        x = ready(first.convolution, skipped)
        for group, time in zip(middle, times[1:-1], strict=True):
            x = group(x, time, ready)
        x = last(torch.cat([x, skipped], dim=-1), times[-1], ready)
        x = ready(last.convolution, x)
        x = F.mish(self.last_norm(ready(self.last, x)), inplace=True)
        return ready(self.to_mel, x)


def time_embedding(times: Tensor) -> Tensor:
    """Sines and cosines of times `[N]` from 0 to 1, as `[N, 320]`."""
    half = INPUTS // 2
    rates = torch.exp(torch.arange(half, device=times.device).float() * -(math.log(10000) / (half - 1)))
    angles = 1000 * times[:, None] * rates[None]
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class Velocity:
    """The estimator for one utterance, at every time of its Euler steps.

    Args:
        net: the estimator, loaded.
        mu, condition: `[B, T, 80]`, in the dtype to compute in.
        speaker: `[B, 80]`.
        times: that the steps lie between, `[N + 1]`, float32.
        ready: the layers of `net`, where they are ready already.
    """

    def __init__(
        self, net: Estimator, mu: Tensor, speaker: Tensor, condition: Tensor, times: Tensor, ready: Ready | None = None
    ) -> None:
        rows, frames, _ = mu.shape
        self.net, self.ready = net, ready or Ready(net, mu.dtype, net.tiled)
        embedded = Matrix(net.time_out, torch.float32)(
            F.silu(Matrix(net.time_in, torch.float32)(time_embedding(times)))
        )
        begins, ends = embedded[:-1], embedded[1:]
        if net.time_mixer is not None:
            begins = Matrix(net.time_mixer, torch.float32)(torch.cat([begins, ends], dim=-1))
        self.times = self.ready(net.times, F.mish(begins).to(mu.dtype)).view(len(begins), len(net.groups), -1)
        spoken = speaker[:, None].expand(rows, frames, MELS)
        self.inputs = torch.cat([torch.empty_like(mu), mu, spoken, condition], dim=-1)

    def __call__(self, x: Tensor, step: int) -> Tensor:
        """How `x [T, 80]`, the same in every row, moves: `[B, T, 80]`."""
        self.inputs[..., :MELS] = x
        velocity: Tensor = self.net(self.inputs, self.times[step], self.ready)
        return velocity


def fills(net: Estimator, ours: str, theirs: str) -> list[Fill]:
    """Published names behind the prefix `theirs` → parameters of the estimator behind the prefix `ours`."""
    return [Fill(ours + target, (theirs + source,), rows) for target, source, rows in _published(net)]


def _published(net: Estimator) -> Iterator[tuple[str, str, tuple[int, int] | None]]:
    """Parameter, published name, stretch of rows."""
    yield from _layer("time_in", "time_mlp.linear_1")
    yield from _layer("time_out", "time_mlp.linear_2")
    if net.time_mixer is not None:
        yield "time_mixer.weight", "time_embed_mixer.weight", None
    end = len(net.groups) - 1
    for index in range(len(net.groups)):
        theirs = "down_blocks.0" if index == 0 else "up_blocks.0" if index == end else f"mid_blocks.{index - 1}"
        ours, width = f"groups.{index}", net.last.out_channels
        yield from _layer("times", f"{theirs}.0.mlp.1", (index * width, (index + 1) * width))
        for name, block in (("first", "block1"), ("second", "block2")):
            yield from _layer(f"{ours}.resnet.{name}", f"{theirs}.0.{block}.block.0")
            yield from _layer(f"{ours}.resnet.{name}_norm", f"{theirs}.0.{block}.block.2")
        yield from _layer(f"{ours}.resnet.shortcut", f"{theirs}.0.res_conv")
        group = net.groups[index]
        assert isinstance(group, Group)
        for number, block in enumerate(group.transformers):
            assert isinstance(block, Transformer)
            yield from _transformer(block, f"{ours}.transformers.{number}", f"{theirs}.1.{number}")
        if group.convolution is not None:
            yield from _layer(f"{ours}.convolution", f"{theirs}.2")
    yield from _layer("last", "final_block.block.0")
    yield from _layer("last_norm", "final_block.block.2")
    yield from _layer("to_mel", "final_proj")


def _layer(
    ours: str, theirs: str, rows: tuple[int, int] | None = None
) -> Iterator[tuple[str, str, tuple[int, int] | None]]:
    for last in ("weight", "bias"):
        yield f"{ours}.{last}", f"{theirs}.{last}", rows


def _transformer(net: Transformer, ours: str, theirs: str) -> Iterator[tuple[str, str, tuple[int, int] | None]]:
    inner = net.heads * net.head_width
    for part, name in enumerate("qkv"):
        yield f"{ours}.qkv.weight", f"{theirs}.attn1.to_{name}.weight", (part * inner, (part + 1) * inner)
    for mine, published in (
        ("attention_norm", "norm1"),
        ("out", "attn1.to_out.0"),
        ("ffn_norm", "norm3"),
        ("up", "ff.net.0.proj"),
        ("down", "ff.net.2"),
    ):
        yield from _layer(f"{ours}.{mine}", f"{theirs}.{published}")

"""T3's backbone: a Llama with a preallocated key-value cache, in the style of gpt-fast.

Reads top to bottom. Q, K and V are one matrix, gate and up are one matrix. Shapes: B rows, S new positions, T cached
positions, H heads, W head width, D model width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chatterbox_nb.checkpoint.loader import Fill
from chatterbox_nb.checkpoint.spec import RopeScaling, T3Dims


def inverse_frequencies(width: int, theta: float, scaling: RopeScaling) -> Tensor:
    """Llama 3's scaled rotary frequencies, `[W / 2]` (`_compute_llama3_parameters` in transformers)."""
    plain = 1.0 / (theta ** (torch.arange(0, width, 2, dtype=torch.int64).float() / width))
    longest = scaling.original_positions / scaling.low_freq_factor
    shortest = scaling.original_positions / scaling.high_freq_factor
    wavelength = 2 * math.pi / plain
    blend = (scaling.original_positions / wavelength - scaling.low_freq_factor) / (
        scaling.high_freq_factor - scaling.low_freq_factor
    )
    smooth = (1 - blend) * plain / scaling.factor + blend * plain
    scaled = torch.where(wavelength > longest, plain / scaling.factor, plain)
    return torch.where((wavelength <= longest) & (wavelength >= shortest), smooth, scaled)


@dataclass(frozen=True)
class Cache:
    """Keys and values of every layer, `[layers, B, H, T, W]`, and the rotary tables `[T, W]`."""

    keys: Tensor
    values: Tensor
    cosine: Tensor
    sine: Tensor

    @property
    def length(self) -> int:
        return self.keys.shape[3]

    @classmethod
    def empty(cls, dims: T3Dims, rows: int, length: int, device: torch.device, dtype: torch.dtype) -> Cache:
        shape = (dims.layers, rows, dims.heads, length, dims.head_width)
        cosine, sine = cls.tables(dims, length)
        return cls(
            torch.empty(shape, device=device, dtype=dtype),
            torch.empty(shape, device=device, dtype=dtype),
            cosine.to(device, dtype),
            sine.to(device, dtype),
        )

    @staticmethod
    def tables(dims: T3Dims, length: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines of the rotary embedding, `[length, W]`, float32; those of a GPT-2 turn nothing."""
        if dims.gpt2:
            return torch.ones(length, dims.head_width), torch.zeros(length, dims.head_width)
        frequencies = inverse_frequencies(dims.head_width, dims.rope_theta, dims.rope_scaling)
        angles = torch.outer(torch.arange(length).float(), frequencies)
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos(), angles.sin()


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary position embedding of `[B, H, S, W]` by tables `[S, W]`."""
    left, right = x.chunk(2, dim=-1)
    return x * cosine + torch.cat((-right, left), dim=-1) * sine


def causal(new: int, start: int, device: torch.device) -> Tensor | None:
    """What each of the new positions sees: what is cached, itself and the new ones before it; None for all there is."""
    return torch.ones(new, start + new, dtype=torch.bool, device=device).tril(start) if new > 1 else None


class Attention(nn.Module):
    def __init__(self, dims: T3Dims) -> None:
        super().__init__()
        self.heads, self.head_width = dims.heads, dims.head_width
        self.qkv = nn.Linear(dims.width, 3 * dims.width, bias=False)
        self.out = nn.Linear(dims.width, dims.width, bias=False)

    def forward(self, x: Tensor, cache: Cache, layer: int, start: int, mask: Tensor | None) -> Tensor:
        B, S, D = x.shape
        end = start + S
        q, k, v = self.qkv(x).view(B, S, 3, self.heads, self.head_width).permute(2, 0, 3, 1, 4)  # each [B, H, S, W]
        cosine, sine = cache.cosine[start:end], cache.sine[start:end]
        keys, values = cache.keys[layer], cache.values[layer]
        keys[:, :, start:end] = rotate(k, cosine, sine)
        values[:, :, start:end] = v
        y = F.scaled_dot_product_attention(
            rotate(q, cosine, sine), keys[:, :, :end], values[:, :, :end], attn_mask=mask
        )
        return self.out(y.transpose(1, 2).reshape(B, S, D))


class FeedForward(nn.Module):
    def __init__(self, dims: T3Dims) -> None:
        super().__init__()
        self.gate_up = nn.Linear(dims.width, 2 * dims.ffn, bias=False)
        self.down = nn.Linear(dims.ffn, dims.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class Layer(nn.Module):
    attention_norm: nn.RMSNorm | nn.LayerNorm
    attention: nn.Module
    ffn_norm: nn.RMSNorm | nn.LayerNorm
    ffn: nn.Module

    def __init__(self, dims: T3Dims) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(dims.width, eps=dims.norm_eps)
        self.attention = Attention(dims)
        self.ffn_norm = nn.RMSNorm(dims.width, eps=dims.norm_eps)
        self.ffn = FeedForward(dims)

    def forward(self, x: Tensor, cache: Cache, layer: int, start: int, mask: Tensor | None) -> Tensor:
        x = x + self.attention(self.attention_norm(x), cache, layer, start, mask)
        found: Tensor = x + self.ffn(self.ffn_norm(x))
        return found


class Llama(nn.Module):
    """`forward(x [B, S, D], cache, start)` → `[B, S, D]`: S new positions after `start` cached ones."""

    norm: nn.RMSNorm | nn.LayerNorm

    def __init__(self, dims: T3Dims) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(dims) for _ in range(dims.layers))
        self.norm = nn.RMSNorm(dims.width, eps=dims.norm_eps)

    def forward(self, x: Tensor, cache: Cache, start: int) -> Tensor:
        mask = causal(x.shape[1], start, x.device)
        for index, layer in enumerate(self.layers):
            x = layer(x, cache, index, start, mask)
        found: Tensor = self.norm(x)
        return found


def fills(dims: T3Dims) -> list[Fill]:
    """Published names → parameters of T3's `backbone`."""
    width, ffn = dims.width, dims.ffn
    found = [Fill("backbone.norm.weight", ("tfmr.norm.weight",))]
    for index in range(dims.layers):
        ours, theirs = f"backbone.layers.{index}", f"tfmr.layers.{index}"
        for mine, published in (
            ("attention_norm", "input_layernorm"),
            ("ffn_norm", "post_attention_layernorm"),
            ("attention.out", "self_attn.o_proj"),
            ("ffn.down", "mlp.down_proj"),
        ):
            found.append(Fill(f"{ours}.{mine}.weight", (f"{theirs}.{published}.weight",)))
        for mine, size, group, parts in (
            ("attention.qkv", width, "self_attn", ("q", "k", "v")),
            ("ffn.gate_up", ffn, "mlp", ("gate", "up")),
        ):
            for i, part in enumerate(parts):
                source = f"{theirs}.{group}.{part}_proj.weight"
                found.append(Fill(f"{ours}.{mine}.weight", (source,), (i * size, (i + 1) * size)))
    return found

"""T3's backbone in turbo and nano: a GPT-2 with a preallocated key-value cache.

Shapes as in `llama.py`. Positions are added to the embeddings before they come here, so that the cache's rotary tables
turn nothing. GPT-2's published `Conv1D` weights are `[in, out]`; ours are linear layers, `[out, in]`.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from chatterbox_nb.checkpoint.loader import Fill
from chatterbox_nb.checkpoint.spec import T3Dims
from chatterbox_nb.engine.nets import llama
from chatterbox_nb.engine.nets.llama import Cache


class Attention(nn.Module):
    def __init__(self, dims: T3Dims) -> None:
        super().__init__()
        self.heads, self.head_width = dims.heads, dims.head_width
        self.qkv = nn.Linear(dims.width, 3 * dims.width)
        self.out = nn.Linear(dims.width, dims.width)

    def forward(self, x: Tensor, cache: Cache, layer: int, start: int, mask: Tensor | None) -> Tensor:
        B, S, D = x.shape
        end = start + S
        q, k, v = self.qkv(x).view(B, S, 3, self.heads, self.head_width).permute(2, 0, 3, 1, 4)  # each [B, H, S, W]
        keys, values = cache.keys[layer], cache.values[layer]
        keys[:, :, start:end] = k
        values[:, :, start:end] = v
        y = F.scaled_dot_product_attention(q, keys[:, :, :end], values[:, :, :end], attn_mask=mask)
        return self.out(y.transpose(1, 2).reshape(B, S, D))


class FeedForward(nn.Module):
    def __init__(self, dims: T3Dims) -> None:
        super().__init__()
        self.up = nn.Linear(dims.width, dims.ffn)
        self.down = nn.Linear(dims.ffn, dims.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x), approximate="tanh"))


class Layer(llama.Layer):
    """As a Llama's, of these parts."""

    def __init__(self, dims: T3Dims) -> None:
        nn.Module.__init__(self)
        self.attention_norm = nn.LayerNorm(dims.width, eps=dims.norm_eps)
        self.attention = Attention(dims)
        self.ffn_norm = nn.LayerNorm(dims.width, eps=dims.norm_eps)
        self.ffn = FeedForward(dims)


class GPT2(llama.Llama):
    """`forward(x [B, S, D], cache, start)` → `[B, S, D]`: S new positions after `start` cached ones."""

    def __init__(self, dims: T3Dims) -> None:
        nn.Module.__init__(self)
        self.layers = nn.ModuleList(Layer(dims) for _ in range(dims.layers))
        self.norm = nn.LayerNorm(dims.width, eps=dims.norm_eps)


def fills(layers: int) -> list[Fill]:
    """Published names → parameters of T3's `backbone`."""
    found = _layer("backbone.norm", "tfmr.ln_f")
    for index in range(layers):
        ours, theirs = f"backbone.layers.{index}", f"tfmr.h.{index}"
        for mine, published in (
            ("attention_norm", "ln_1"),
            ("attention.qkv", "attn.c_attn"),
            ("attention.out", "attn.c_proj"),
            ("ffn_norm", "ln_2"),
            ("ffn.up", "mlp.c_fc"),
            ("ffn.down", "mlp.c_proj"),
        ):
            transposed = "_" in published.partition(".")[2]
            found += _layer(f"{ours}.{mine}", f"{theirs}.{published}", transposed)
    return found


def _layer(ours: str, theirs: str, transposed: bool = False) -> list[Fill]:
    return [
        Fill(f"{ours}.weight", (f"{theirs}.weight",), transposed=transposed),
        Fill(f"{ours}.bias", (f"{theirs}.bias",)),
    ]

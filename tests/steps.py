"""What the tests of T3's compiled step share: a Llama and a GPT-2, and what is given to both ways of stepping."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor, nn

from chatterbox_nb.checkpoint.catalog import TURBO
from chatterbox_nb.engine.model import Model
from chatterbox_nb.engine.nets.llama import Cache
from chatterbox_nb.engine.nets.stepper import kept_as
from chatterbox_nb.engine.nets.t3 import DECODED, T3
from chatterbox_nb.precision import kernels, plan
from chatterbox_nb.precision.layers import Int8Linear, convert, quantize

BACKBONES = ("llama", "gpt2")
# How far from torch's layers, relative: theirs compute in the dtype, the step adds up in float32. int8 has 16 bits of
# activations, and keys and values in float16; it is held against its weights in float32.
NEAR = {"fp32": 2e-6, "fp16": 2e-2, "bf16": 6e-2, "int8": 5e-4}
CPU = torch.device("cpu")
DIMS = replace(
    TURBO.t3, width=64, ffn=256, layers=2, heads=4, text_vocab=60, speech_vocab=6563, positions=512, prompt_tokens=20
)


@cache
def gpt2(precision: str) -> T3:
    """Random weights, norms and biases, the same at every precision."""
    with torch.device("meta"):
        t3 = T3(DIMS, nn.Identity())
    t3.to_empty(device="cpu")
    draw = torch.Generator().manual_seed(0)
    for name, parameter in t3.named_parameters():
        parameter.requires_grad_(False).normal_(0, 1 if "embedding" in name else 0.2, generator=draw)
        if name.endswith("norm.weight"):
            parameter += 1
    if precision != "int8":
        return t3.to(getattr(torch, plan.COMPUTE[precision]))
    weights = {
        name: layer.weight
        for name, layer in t3.named_modules()
        if isinstance(layer, nn.Linear) and name.startswith(DECODED)
    }
    biases = {name: t3.get_submodule(name).bias for name in weights}
    convert(t3, dict.fromkeys(weights, "int8"), lambda name: kernels.get("plain"))
    for name, weight in weights.items():
        layer = t3.get_submodule(name)
        assert isinstance(layer, Int8Linear)
        layer.weight_int8, layer.weight_scale = quantize(weight)
        layer.bias = biases[name]
    return t3


def t3_of(backbone: str, demo: Callable[..., Model], precision: str, kernel: str = "auto") -> T3:
    """The demo voice's Llama, or a GPT-2 of random weights."""
    return gpt2(precision) if backbone == "gpt2" else demo(precision, kernel).t3


def cached(t3: T3, rows: int, positions: int, room: int) -> tuple[Cache, Cache]:
    """The same keys and values, as torch's layers and as the step keep them."""
    dtype = next(t3.backbone.parameters()).dtype
    theirs = Cache.empty(t3.dims, rows, room, CPU, dtype)
    x = torch.randn(rows, positions, t3.dims.width, generator=torch.Generator().manual_seed(rows)).to(dtype)
    t3.backbone(x, theirs, 0)
    ours = Cache(theirs.keys.to(kept_as(t3)), theirs.values.to(kept_as(t3)), theirs.cosine, theirs.sine)
    return theirs, ours


def embedded(t3: T3, rows: int, seed: int) -> Tensor:
    return torch.randn(rows, t3.dims.width, generator=torch.Generator().manual_seed(seed))


def distance(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())

"""T3's compiled step of a GPT-2: what torch's layers compute, for any rows and threads, and the same tokens."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from conftest import HERE
from test_step import CPU, NEAR, cached, distance, embedded
from torch import nn

from chatterbox_nb.checkpoint.spec import T3Dims
from chatterbox_nb.engine.decode import Decoded, Decoding, Prefix
from chatterbox_nb.engine.nets.llama import Cache
from chatterbox_nb.engine.nets.phases import gelu
from chatterbox_nb.engine.nets.products import normalize
from chatterbox_nb.engine.nets.stepper import Place, Stepper
from chatterbox_nb.engine.nets.t3 import DECODED, T3
from chatterbox_nb.engine.noise import StageNoise
from chatterbox_nb.engine.sampling import Sampling
from chatterbox_nb.precision import kernels, plan
from chatterbox_nb.precision.kernels import tiles
from chatterbox_nb.precision.layers import Int8Linear, convert, quantize

pytestmark = pytest.mark.skipif(bool(HERE.unfused), reason=HERE.unfused)
DIMS = T3Dims(
    backbone="gpt2",
    width=64,
    ffn=256,
    layers=2,
    heads=4,
    text_vocab=60,
    speech_vocab=6563,
    text_positions=0,
    speech_positions=0,
    positions=512,
    prompt_tokens=20,
    perceiver_queries=0,
    perceiver_heads=0,
    emotion=False,
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


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("precision", "rows"),
    [("fp32", 1), ("fp32", 3), ("fp32", 8), ("int8", 1), ("int8", 4), ("int8", 5), ("fp16", 1), ("bf16", 1)],
)
def test_a_step_is_what_the_layers_compute(precision: str, rows: int, threads: int) -> None:
    t3 = gpt2(precision)
    with torch.inference_mode(), Stepper(t3, threads) as stepper:
        theirs, ours = cached(t3, rows, 13, 20)
        for position in range(13, 18):
            x = embedded(t3, rows, position)
            wanted = t3.logits(x[:, None].to(theirs.keys.dtype), theirs, position)
            found = stepper(x, [Place(ours, row, position) for row in range(rows)])
            assert found.dtype == torch.float32
            assert distance(found, wanted) < NEAR[precision]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_row_is_the_same_to_the_bit_whatever_is_beside_it(precision: str) -> None:
    t3 = gpt2(precision)
    with torch.inference_mode():
        _, ours = cached(t3, 8, 13, 20)
        x = embedded(t3, 8, 1)
        places = [Place(ours, row, 13 if row % 2 else 12) for row in range(8)]
        with Stepper(t3, 2) as stepper:
            together = stepper(x, places).clone()
        for row in range(8):
            with Stepper(t3, 1) as stepper:
                alone = stepper(x[row : row + 1], places[row : row + 1])
            assert torch.equal(alone[0], together[row])


@pytest.mark.skipif(not tiles.available("int8"), reason="the processor has no AMX")
def test_tiles_give_what_other_instructions_give_to_the_bit() -> None:
    t3 = gpt2("int8")
    with torch.inference_mode():
        _, ours = cached(t3, 5, 13, 20)
        x, places = embedded(t3, 5, 1), [Place(ours, row, 13) for row in range(5)]
        found = []
        for tiled in (True, False):
            with Stepper(t3, 2) as stepper:
                assert stepper.tiles
                stepper.tiles = tiled
                found.append(stepper(x, places).clone())
        assert torch.equal(*found)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so(precision: str, bad: float) -> None:
    t3 = gpt2(precision)
    with torch.inference_mode(), Stepper(t3, 1) as stepper:
        _, ours = cached(t3, 3, 3, 8)
        x = embedded(t3, 3, 0)
        x[1, 7] = bad
        found = stepper(x, [Place(ours, row, 3) for row in range(3)])
        assert bool(torch.isfinite(found[::2]).all())
        assert not bool(torch.isfinite(found[1]).any())


def test_gelu_is_torchs_with_tanh_and_hides_nothing() -> None:
    wanted = np.concatenate([np.linspace(-30, 30, 4001), [1e15, -1e15, 0.0]]).astype(np.float32)
    x = np.concatenate([wanted, np.float32([np.nan, np.inf])])[None]
    shift = np.float32(0.5)
    found = x.copy() - shift
    gelu(
        found,
        np.full(x.shape[1], shift),
        0,
        x.shape[1],
        np.zeros(x.shape[1], np.float32),
        np.zeros(x.shape[1], np.int32),
    )
    right = torch.nn.functional.gelu(torch.from_numpy(x[0, :-2]).double(), approximate="tanh").numpy()
    assert np.all(np.abs(found[0, :-2] - right) <= 1e-6 * np.maximum(1, np.abs(right)))
    assert not np.isfinite(found[0, -2:]).any()


def test_a_layer_norm_far_from_zero_loses_nothing() -> None:
    """The squares' mean less the mean's square would: at 1,000 a float32 of it has no digit of a variance of 1."""
    draw = np.random.default_rng(0)
    x = (draw.standard_normal((3, 48)) + np.array([[0.0], [1e3], [-1e3]])).astype(np.float32)
    norm, found = draw.standard_normal((2, 48)).astype(np.float32), np.zeros_like(x)
    normalize(x, norm, np.float32(1e-5), found, np.zeros(16, np.float32), 48)
    wide, weights = torch.from_numpy(x).double(), torch.from_numpy(norm).double()
    wanted = torch.nn.functional.layer_norm(wide, (48,), weights[0], weights[1], 1e-5).numpy()
    assert np.max(np.abs(found[0] - wanted[0])) < 2e-6
    assert np.max(np.abs(found - wanted)) < 1e-3  # the mean itself is a float32


def spoken(t3: T3, chunks: int) -> list[Decoded]:
    """Chunks side by side, without guidance."""
    draw = torch.Generator().manual_seed(2)
    cache = Cache.empty(DIMS, 1, DIMS.prefix_length, CPU, torch.float32)
    t3.backbone(torch.randn(1, DIMS.prefix_length, DIMS.width, generator=draw), cache, 0)
    options = Sampling(cfg_weight=0.0, min_p=0.0, top_p=0.95, top_k=1000, penalty_last=True)
    with Decoding(t3, Prefix(cache.keys, cache.values), options) as decoding:
        lines = [
            decoding.begin(torch.arange(5 + index), StageNoise(3).for_chunk(index), 40, 400) for index in range(chunks)
        ]
        while decoding.lines:
            decoding.advance()
    return [line.decoded for line in lines]


def test_a_decoding_has_the_tokens_that_torchs_layers_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    t3 = gpt2("fp32")
    with torch.inference_mode():
        wanted = spoken(t3, 2)
        monkeypatch.setattr(t3, "compiled", True)
        assert spoken(t3, 2) == wanted
        assert spoken(t3, 1) == wanted[:1]
    assert all(len(decoded.tokens) == 40 for decoded in wanted)

"""What is a GPT-2's alone in T3's compiled step: its nonlinearity and its norms; and the same tokens.

The step beside torch's layers is in `test_step.py`, for both backbones.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import HERE
from steps import CPU, DIMS, gpt2

from chatterbox_nb.engine.decode import Decoded, Decoding, Prefix
from chatterbox_nb.engine.nets.llama import Cache
from chatterbox_nb.engine.nets.phases import gelu
from chatterbox_nb.engine.nets.products import normalize
from chatterbox_nb.engine.nets.t3 import T3
from chatterbox_nb.engine.noise import StageNoise
from chatterbox_nb.engine.sampling import Sampling

pytestmark = [
    pytest.mark.skipif(bool(HERE.unfused), reason=HERE.unfused),
    pytest.mark.xdist_group("step"),  # what is compiled is compiled once
]


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

"""Our Llama is transformers' Llama: the package's own `T3.tfmr`, with the weights of the same checkpoint."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaModel, LlamaRotaryEmbedding

from chatterbox_nb.checkpoint.catalog import ENGLISH
from chatterbox_nb.checkpoint.spec import RopeScaling, T3Dims
from chatterbox_nb.engine.model import Model
from chatterbox_nb.engine.nets.llama import Cache, Llama, inverse_frequencies, rotate
from chatterbox_nb.engine.oracle import Package

TOLERANCE = 1e-5
DEVICE = torch.device("cpu")


@pytest.fixture(scope="module", params=["demo", "tiny"])
def pair(request: pytest.FixtureRequest) -> tuple[Llama, LlamaModel, T3Dims]:
    model: Model = request.getfixturevalue("demo")() if request.param == "demo" else request.getfixturevalue("tiny")
    return model.t3.backbone, Package(model.spec, model.files).tts.t3.tfmr, model.spec.t3


def embeddings(rows: int, positions: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, positions, width, generator=torch.Generator().manual_seed(seed))


def theirs(model: LlamaModel, x: Tensor) -> Tensor:
    with torch.inference_mode():
        return model(inputs_embeds=x, use_cache=False).last_hidden_state


def ours(model: Llama, x: Tensor, dims: T3Dims, chunks: list[int]) -> Tensor:
    """The positions of `x` given in stretches of these lengths."""
    cache = Cache.empty(dims, len(x), x.shape[1], DEVICE, x.dtype)
    found, start = [], 0
    with torch.inference_mode():
        for length in chunks:
            found.append(model(x[:, start : start + length], cache, start))
            start += length
    assert start == x.shape[1]
    return torch.cat(found, dim=1)


CHUNKS = {
    "prefill": [40],
    "step by step": [1] * 40,
    "prefix, text, steps": [9, 20] + [1] * 11,
    "prefill, steps, prefill": [20, 1, 1, 18],
}


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS.keys())
def test_hidden_states_are_transformers(pair: tuple[Llama, LlamaModel, T3Dims], chunks: list[int], rows: int) -> None:
    model, package, dims = pair
    x = embeddings(rows, 40, dims.width)
    assert (ours(model, x, dims, chunks) - theirs(package, x)).abs().max() <= TOLERANCE


def test_positions_far_beyond_the_scaled_ones_are_transformers_too(pair: tuple[Llama, LlamaModel, T3Dims]) -> None:
    """Rotary frequencies are scaled by wavelength; long distances are where a slip would show."""
    model, package, dims = pair
    x = embeddings(1, 300, dims.width)
    assert (ours(model, x, dims, [300]) - theirs(package, x)).abs().max() <= TOLERANCE


def test_rows_do_not_touch_each_other(pair: tuple[Llama, LlamaModel, T3Dims]) -> None:
    model, _, dims = pair
    x = embeddings(2, 12, dims.width)
    together = ours(model, x, dims, [8, 1, 1, 1, 1])
    x[1] = float("nan")
    assert torch.equal(ours(model, x, dims, [8, 1, 1, 1, 1])[0], together[0])


def test_a_position_sees_none_after_it(pair: tuple[Llama, LlamaModel, T3Dims]) -> None:
    model, _, dims = pair
    x = embeddings(1, 12, dims.width)
    before = ours(model, x, dims, [12])
    x[:, 7:] *= -1000.0
    assert torch.equal(ours(model, x, dims, [12])[:, :7], before[:, :7])


def test_what_lies_in_the_cache_beyond_the_position_is_not_read(pair: tuple[Llama, LlamaModel, T3Dims]) -> None:
    """It is allocated and not cleared."""
    model, _, dims = pair
    x = embeddings(1, 5, dims.width)
    cache = Cache.empty(dims, 1, 20, DEVICE, x.dtype)
    cache.keys.fill_(float("nan"))
    cache.values.fill_(float("nan"))
    with torch.inference_mode():
        assert bool(torch.isfinite(model(x, cache, 0)).all())


# The cache


def test_the_cache_never_grows_nor_moves(pair: tuple[Llama, LlamaModel, T3Dims]) -> None:
    model, _, dims = pair
    cache = Cache.empty(dims, 2, 30, DEVICE, torch.float32)
    before = [(tensor.data_ptr(), tensor.shape) for tensor in vars(cache).values()]
    with torch.inference_mode():
        model(embeddings(2, 10, dims.width), cache, 0)
        for position in range(10, 30):
            model(embeddings(2, 1, dims.width), cache, position)
    assert [(tensor.data_ptr(), tensor.shape) for tensor in vars(cache).values()] == before
    assert cache.length == 30


@pytest.mark.parametrize(("start", "new"), [(20, 1), (19, 2), (0, 21), (400, 1)])
def test_a_position_beyond_the_cache_is_an_error(pair: tuple[Llama, LlamaModel, T3Dims], start: int, new: int) -> None:
    """A slice beyond the end is empty in torch, and an empty attention would be garbage."""
    model, _, dims = pair
    cache = Cache.empty(dims, 1, 20, DEVICE, torch.float32)
    with torch.inference_mode(), pytest.raises(RuntimeError):
        model(embeddings(1, new, dims.width), cache, start)


def test_a_cache_is_as_large_as_its_rows_and_positions() -> None:
    """FACTS: English takes 246 kB a position for two rows in half precision."""
    cache = Cache.empty(ENGLISH.t3, 2, 7, DEVICE, torch.float16)
    assert cache.keys.shape == cache.values.shape == (30, 2, 16, 7, 64)
    assert 2 * cache.keys.numel() * 2 == 7 * 245_760
    assert cache.cosine.shape == cache.sine.shape == (7, 64)


# Rotary embedding


SCALINGS = {
    "english": (ENGLISH.t3.head_width, ENGLISH.t3.rope_theta, ENGLISH.t3.rope_scaling),
    "tiny": (16, 10_000.0, RopeScaling(factor=8.0, original_positions=64)),
    "demo": (64, 10_000.0, RopeScaling(1.0, 1.0, 4.0, 1024)),
    "other": (128, 10_000.0, RopeScaling(32.0, 0.5, 8.0, 2048)),
}


@pytest.mark.parametrize(("width", "theta", "scaling"), SCALINGS.values(), ids=SCALINGS.keys())
def test_frequencies_are_transformers_bit_for_bit(width: int, theta: float, scaling: RopeScaling) -> None:
    rope = {
        "rope_type": "llama3",
        "rope_theta": theta,
        "factor": scaling.factor,
        "low_freq_factor": scaling.low_freq_factor,
        "high_freq_factor": scaling.high_freq_factor,
        "original_max_position_embeddings": scaling.original_positions,
    }
    named = "rope_parameters" if "rope_parameters" in inspect.signature(LlamaConfig).parameters else "rope_scaling"
    rest: dict[str, Any] = {named: rope}
    config = LlamaConfig(
        hidden_size=2 * width, num_attention_heads=2, head_dim=width, rope_theta=theta,
        max_position_embeddings=131_072, **rest,
    )  # fmt: skip
    assert torch.equal(inverse_frequencies(width, theta, scaling), LlamaRotaryEmbedding(config).inv_freq)


def test_english_scales_its_frequencies() -> None:
    """Long wavelengths are stretched eightfold, short ones kept: the table is not the plain one."""
    dims = ENGLISH.t3
    scaled = inverse_frequencies(dims.head_width, dims.rope_theta, dims.rope_scaling)
    plain = inverse_frequencies(dims.head_width, dims.rope_theta, RopeScaling(factor=1.0))
    assert torch.equal(scaled[:8], plain[:8])
    assert scaled[-1] == plain[-1] / 8


def test_rotating_keeps_length_and_depends_on_distance_alone() -> None:
    dims = ENGLISH.t3
    cache = Cache.empty(dims, 1, 200, DEVICE, torch.float32)
    q, k = embeddings(1, 1, 64)[None], embeddings(1, 1, 64, seed=1)[None]

    def at(x: Tensor, position: int) -> Tensor:
        return rotate(x, cache.cosine[position : position + 1], cache.sine[position : position + 1])

    assert torch.allclose(at(q, 150).norm(), q.norm())
    assert torch.allclose((at(q, 30) * at(k, 10)).sum(), (at(q, 130) * at(k, 110)).sum(), atol=1e-4)
    assert not torch.allclose((at(q, 30) * at(k, 10)).sum(), (at(q, 30) * at(k, 11)).sum(), atol=1e-4)

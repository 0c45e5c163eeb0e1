"""From logits to a token: transformers' own processors, in the package's order, then a draw from what is left."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from chatterbox_nb.checkpoint.catalog import ENGLISH, TURBO
from chatterbox_nb.engine.noise import PackageNoise, StageNoise
from chatterbox_nb.engine.sampling import Sampling, draw, guide

VOCABULARY = 200
NEUTRAL = Sampling(cfg_weight=0.0, temperature=1.0, min_p=0.0, top_p=1.0, repetition_penalty=1.0)


def logits_of(seed: int, size: float = 3.0, vocabulary: int = VOCABULARY) -> Tensor:
    return torch.randn(vocabulary, generator=torch.Generator().manual_seed(seed)) * size


def nothing_seen(vocabulary: int = VOCABULARY) -> Tensor:
    return torch.zeros(vocabulary, dtype=torch.bool)


def packages_draw(logits: Tensor, tokens: list[int], options: Sampling, seed: int) -> int:
    """The loop body of the package's `T3.inference`, with transformers' classes and torch's global generator."""
    ids, scores = torch.tensor([tokens]), logits[None]
    scores = RepetitionPenaltyLogitsProcessor(penalty=float(options.repetition_penalty))(ids, scores)
    if options.temperature != 1.0:
        scores = scores / options.temperature
    scores = MinPLogitsWarper(min_p=options.min_p)(ids, scores)  # type: ignore[arg-type]
    scores = TopPLogitsWarper(top_p=options.top_p)(ids, scores)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return int(torch.multinomial(torch.softmax(scores, dim=-1), num_samples=1))


def turbos_draw(logits: Tensor, tokens: list[int], options: Sampling, seed: int) -> int:
    """The loop body of the package's `T3.inference_turbo`."""
    ids, scores = torch.tensor([tokens]), logits[None]
    if options.temperature != 1.0:
        scores = TemperatureLogitsWarper(options.temperature)(ids, scores)
    if options.top_k > 0:
        scores = TopKLogitsWarper(options.top_k)(ids, scores)
    if options.top_p < 1.0:
        scores = TopPLogitsWarper(options.top_p)(ids, scores)
    if options.repetition_penalty != 1.0:
        scores = RepetitionPenaltyLogitsProcessor(options.repetition_penalty)(ids, scores)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return int(torch.multinomial(torch.softmax(scores, dim=-1), num_samples=1))


@settings(deadline=None, max_examples=200)
@given(
    seed=st.integers(0, 2**31),
    size=st.sampled_from([0.1, 1.0, 5.0, 30.0]),
    seen=st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=60),
    temperature=st.sampled_from([0.05, 0.5, 0.8, 1.0, 3.0]),
    top_k=st.sampled_from([0, 1, 7, VOCABULARY - 1, VOCABULARY, 1000]),
    top_p=st.sampled_from([0.05, 0.5, 0.95, 1.0]),
    penalty=st.sampled_from([0.5, 1.0, 1.2, 3.0]),
)
def test_a_draw_of_turbo_is_the_packages(
    seed: int, size: float, seen: list[int], temperature: float, top_k: int, top_p: float, penalty: float
) -> None:
    """In turbo's order: tokens seen before are penalized last."""
    options = Sampling(0.0, temperature, 0.0, top_p, penalty, top_k, penalty_last=True)
    logits, mask = logits_of(seed, size), nothing_seen()
    mask[seen] = True
    ours = int(draw(logits, mask, options, PackageNoise(seed)))
    assert ours == turbos_draw(logits, seen, options, seed)


def test_at_temperature_0_turbo_takes_the_likeliest_after_the_penalty() -> None:
    logits, seen = torch.tensor([2.0, 1.9, 1.0]), torch.tensor([True, False, False])
    options = Sampling(0.0, 0.0, 0.0, 0.95, 1.2, 1000, penalty_last=True)
    assert int(draw(logits, seen, options, StageNoise(0))) == 1


@settings(deadline=None, max_examples=300)
@given(
    seed=st.integers(0, 2**31),
    size=st.sampled_from([0.1, 1.0, 5.0, 30.0]),
    seen=st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=60),
    temperature=st.sampled_from([0.05, 0.5, 0.8, 1.0, 3.0]),
    min_p=st.sampled_from([0.0, 0.01, 0.05, 0.5, 1.0]),
    top_p=st.sampled_from([0.0, 0.05, 0.5, 0.95, 1.0]),
    penalty=st.sampled_from([0.5, 1.0, 1.2, 3.0]),
)
def test_a_draw_is_the_packages(
    seed: int, size: float, seen: list[int], temperature: float, min_p: float, top_p: float, penalty: float
) -> None:
    """Every option, alone and together, in whatever order they meet: the same token from the same seed."""
    options = Sampling(0.5, temperature, min_p, top_p, penalty)
    logits, mask = logits_of(seed, size), nothing_seen()
    mask[seen] = True
    assert int(draw(logits, mask, options, PackageNoise(seed))) == packages_draw(logits, seen, options, seed)


def test_the_defaults_are_the_packages() -> None:
    assert Sampling() == Sampling(cfg_weight=0.5, temperature=0.8, min_p=0.05, top_p=1.0, repetition_penalty=1.2)


def test_a_models_own_options_are_its_defaults_and_its_order() -> None:
    assert Sampling.of(ENGLISH) == Sampling()
    assert Sampling.of(TURBO) == Sampling(0.0, 0.8, 0.0, 0.95, 1.2, 1000, penalty_last=True)


# Guidance


def test_guidance_goes_beyond_the_guided_row() -> None:
    logits = torch.tensor([[1.0, 2.0], [0.0, 4.0]])
    assert guide(logits, 0.5).tolist() == [1.5, 1.0]


def test_one_row_is_taken_as_it_is() -> None:
    logits = torch.tensor([[1.0, 2.0]])
    assert guide(logits, 0.5).tolist() == [1.0, 2.0]


# Each step


def test_temperature_0_is_the_likeliest_whatever_the_noise() -> None:
    logits = logits_of(1)
    options = Sampling(temperature=0.0, min_p=1.0, top_p=0.01)
    for seed in range(5):
        assert int(draw(logits, nothing_seen(), options, StageNoise(seed))) == int(logits.argmax())


def test_temperature_0_takes_no_noise() -> None:
    noise = PackageNoise(3)
    draw(logits_of(1), nothing_seen(), Sampling(temperature=0.0), noise)
    assert torch.equal(noise.token(VOCABULARY), PackageNoise(3).token(VOCABULARY))


def test_the_penalty_applies_before_the_likeliest_is_taken() -> None:
    logits, seen = torch.tensor([2.0, 1.9, -1.0]), torch.tensor([True, False, False])
    options = Sampling(temperature=0.0, repetition_penalty=1.2)
    assert int(draw(logits, seen, options, StageNoise(0))) == 1


def test_the_penalty_makes_negative_logits_more_negative() -> None:
    logits, seen = torch.tensor([-1.0, -1.1]), torch.tensor([True, False])
    options = Sampling(temperature=0.0, repetition_penalty=1.2)
    assert int(draw(logits, seen, options, StageNoise(0))) == 1


def drawn(logits: Tensor, options: Sampling, count: int = 400) -> set[int]:
    noise = StageNoise(0)
    return {int(draw(logits, nothing_seen(len(logits)), options, noise)) for _ in range(count)}


def test_min_p_drops_what_is_less_likely_than_its_part_of_the_likeliest() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    assert drawn(logits, Sampling(0.0, 1.0, 0.2, 1.0, 1.0)) == {0, 1, 2}
    assert drawn(logits, Sampling(0.0, 1.0, 0.31, 1.0, 1.0)) == {0, 1}
    assert drawn(logits, Sampling(0.0, 1.0, 1.0, 1.0, 1.0)) == {0}


def test_top_p_keeps_the_likeliest_that_reach_the_sum() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    assert drawn(logits, Sampling(0.0, 1.0, 0.0, 0.9, 1.0)) == {0, 1, 2}
    assert drawn(logits, Sampling(0.0, 1.0, 0.0, 0.6, 1.0)) == {0, 1}
    assert drawn(logits, Sampling(0.0, 1.0, 0.0, 0.01, 1.0)) == {0}
    assert drawn(logits, Sampling(0.0, 1.0, 0.0, 0.0, 1.0)) == {0}


def test_the_logits_that_are_given_are_not_changed() -> None:
    logits, seen = logits_of(2), nothing_seen()
    kept = logits.clone()
    draw(logits, seen, Sampling(top_p=0.5), StageNoise(0))
    assert torch.equal(logits, kept)
    assert not bool(seen.any())


# The draw


@pytest.mark.parametrize("seed", range(20))
def test_a_draw_from_packages_noise_is_torchs_multinomial(seed: int) -> None:
    """Through torch's own generator, not transformers': the noise is what multinomial divides by."""
    logits = logits_of(seed, vocabulary=8194)
    expected = torch.multinomial(logits.softmax(-1), 1, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(draw(logits, nothing_seen(8194), NEUTRAL, PackageNoise(seed)), expected)


def test_draws_from_stage_noise_are_distributed_as_the_probabilities() -> None:
    """Chi-square over 20,000 draws of 10 tokens: the 0.1 % point of 9 degrees of freedom is 27.9."""
    logits = logits_of(5, 1.0, 10)
    noise, count = StageNoise(11), 20_000
    found = torch.zeros(10)
    for _ in range(count):
        found[int(draw(logits, nothing_seen(10), NEUTRAL, noise))] += 1
    expected = logits.softmax(-1) * count
    assert float(((found - expected) ** 2 / expected).sum()) < 27.9


class NoiseWithZeros(StageNoise):
    """The smallest noise there is, at one place."""

    def token(self, vocabulary: int) -> Tensor:
        noise = super().token(vocabulary)
        noise[3] = torch.finfo(torch.float32).eps / 2
        return noise


def test_a_token_that_was_ruled_out_is_not_drawn_even_with_the_smallest_noise() -> None:
    logits = torch.tensor([5.0, 5.0, 5.0, -20.0])
    for seed in range(20):
        assert int(draw(logits, nothing_seen(4), Sampling(), NoiseWithZeros(seed))) != 3

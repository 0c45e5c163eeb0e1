"""Noise: a seed means the same whatever the order, the chunk's neighbours, the process; the host's is never touched."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from chatterbox_nb.engine.noise import LARGEST_SEED, Noise, PackageNoise, StageNoise, new_seed

DRAWS: dict[str, Callable[[Noise], Tensor]] = {
    "token": lambda noise: noise.token(100),
    "flow": lambda noise: noise.flow(80, 30),
    "phase": lambda noise: noise.phase(9),
    "source": lambda noise: noise.source(9, 480),
}
SHAPES = {"token": (100,), "flow": (1, 80, 30), "phase": (1, 9, 1), "source": (1, 9, 480)}
PINNED: dict[str, list[float]] = {
    "token": [0.25826317071914673, 0.22437049448490143, 1.6820436716079712],
    "flow": [-0.5638151168823242, 0.46049317717552185, 1.813819169998169],
    "phase": [0.34127506613731384, -1.2404730319976807, -0.00895830150693655],
    "source": [0.5700134038925171, -0.2717720866203308, -0.7805091738700867],
}
BOTH: list[Callable[[int], Noise]] = [StageNoise, PackageNoise]


@pytest.mark.parametrize("source", BOTH)
@pytest.mark.parametrize("stage", DRAWS)
def test_noise_is_float32_on_the_cpu_in_the_shape_of_its_stage(stage: str, source: Callable[[int], Noise]) -> None:
    drawn = DRAWS[stage](source(1))
    assert (drawn.dtype, drawn.device.type, drawn.shape) == (torch.float32, "cpu", SHAPES[stage])
    assert drawn.is_contiguous()


# Stage noise


@pytest.mark.parametrize("stage", DRAWS)
def test_a_stage_does_not_depend_on_what_was_drawn_before(stage: str) -> None:
    alone = DRAWS[stage](StageNoise(7, 2))
    after = StageNoise(7, 2)
    for other in DRAWS:
        if other != stage:
            DRAWS[other](after)
    assert torch.equal(DRAWS[stage](after), alone)


@pytest.mark.parametrize("stage", DRAWS)
def test_a_chunk_does_not_depend_on_its_neighbours(stage: str) -> None:
    noise = StageNoise(7)
    forwards = [DRAWS[stage](noise.for_chunk(chunk)) for chunk in range(3)]
    backwards = [DRAWS[stage](StageNoise(7).for_chunk(chunk)) for chunk in (2, 1, 0)][::-1]
    for one, other in zip(forwards, backwards, strict=True):
        assert torch.equal(one, other)


def test_the_first_chunk_is_what_a_take_starts_with() -> None:
    assert torch.equal(StageNoise(7).token(50), StageNoise(7).for_chunk(0).token(50))


def test_token_noise_goes_on_from_token_to_token() -> None:
    noise = StageNoise(7)
    first, second = noise.token(50), noise.token(50)
    assert not torch.equal(first, second)
    both = StageNoise(7).token(100)
    assert torch.equal(both, torch.cat([first, second]))


@pytest.mark.parametrize("stage", DRAWS)
def test_seed_and_chunk_each_make_other_noise(stage: str) -> None:
    draws = [DRAWS[stage](StageNoise(seed, chunk)) for seed, chunk in ((1, 0), (2, 0), (1, 1), (10, 0), (1, 10))]
    for index, one in enumerate(draws):
        for other in draws[index + 1 :]:
            assert not torch.equal(one, other)


def test_stages_of_one_chunk_are_unrelated() -> None:
    noise = StageNoise(1)
    flow, source = noise.flow(1, 4096).flatten(), noise.source(1, 4096).flatten()
    assert not torch.equal(flow, source)
    assert abs(float(torch.corrcoef(torch.stack([flow, source]))[0, 1])) < 0.06  # 4 sigma of 4096 pairs


@pytest.mark.parametrize("frames", [1, 2, 29])
def test_a_longer_flow_begins_with_the_noise_of_a_shorter(frames: int) -> None:
    """So that a take of a few tokens more or less still starts alike."""
    noise = StageNoise(7)
    assert torch.equal(noise.flow(80, 30)[:, :, :frames], noise.flow(80, frames))


def test_a_longer_source_begins_with_the_noise_of_a_shorter() -> None:
    noise = StageNoise(7)
    assert torch.equal(noise.source(9, 500)[:, :, :100], noise.source(9, 100))


def test_it_is_the_same_in_another_process() -> None:
    code = (
        "from chatterbox_nb.engine.noise import StageNoise as S; n = S(2**40 + 1, 3);"
        "print([float(t.double().sum()) for t in (n.token(9), n.flow(8, 7), n.phase(9), n.source(9, 5))])"
    )
    noise = StageNoise(2**40 + 1, 3)
    here = [float(t.double().sum()) for t in (noise.token(9), noise.flow(8, 7), noise.phase(9), noise.source(9, 5))]
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert there.strip() == str(here)


def test_its_first_numbers_are_these() -> None:
    """Pinned: a seed must mean the same in the next version, or old takes cannot be made again."""
    noise = StageNoise(7)
    assert noise.token(3).tolist() == pytest.approx(PINNED["token"], rel=1e-6)
    assert noise.flow(3, 1).flatten().tolist() == pytest.approx(PINNED["flow"], rel=1e-6)
    assert noise.phase(3).flatten().tolist() == pytest.approx(PINNED["phase"], rel=1e-6)
    assert noise.source(3, 1).flatten().tolist() == pytest.approx(PINNED["source"], rel=1e-6)


@pytest.mark.parametrize("source", BOTH)
def test_normal_noise_is_normal_and_phases_fill_the_circle(source: Callable[[int], Noise]) -> None:
    noise = source(3)
    for drawn in (noise.flow(80, 500), noise.source(9, 5000)):
        assert abs(float(drawn.mean())) < 0.02
        assert abs(float(drawn.std()) - 1) < 0.02
    phases = noise.phase(10_000)
    assert float(phases.min()) >= -torch.pi
    assert float(phases.max()) <= torch.pi
    assert abs(float(phases.mean())) < 0.1
    assert abs(float(phases.std()) - torch.pi / 3**0.5) < 0.05
    assert abs(float(noise.token(100_000).mean()) - 1) < 0.02


def test_token_noise_is_never_zero() -> None:
    """numpy gives an exact 0 about once in 17 million; then `0 / 0` would draw a token that was ruled out."""
    noise = StageNoise(0)
    raw = StageNoise(0)._stream("token")
    zeros, smallest = 0, 1.0
    for _ in range(100):
        smallest = min(smallest, float(noise.token(1_000_000).min()))
        zeros += int((raw.standard_exponential(1_000_000, dtype=np.float32) == 0).sum())
    assert zeros > 0, "the streams of this test hold no zero, so it shows nothing"
    assert smallest > 0


# Package noise


def test_package_noise_is_the_global_stream_in_the_packages_order() -> None:
    """Token draws, then the flow's start, then phase, source, and the noise that the package draws and drops."""
    noise = PackageNoise(5)
    probabilities = torch.rand(1, 300).softmax(-1)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        for _ in range(4):
            assert int((probabilities[0] / noise.token(300)).argmax()) == int(torch.multinomial(probabilities, 1))
        assert torch.equal(noise.flow(80, 20), torch.randn(1, 80, 20))
        uniform = torch.distributions.Uniform(low=-np.pi, high=np.pi).sample((1, 9, 1))
        assert torch.equal(noise.phase(9), uniform)
        assert torch.equal(noise.source(9, 480), torch.randn(1, 9, 480))
        noise.end(480)
        torch.randn(1, 480, 1)
        assert torch.equal(noise.flow(80, 3), torch.randn(1, 80, 3))


def test_package_noise_goes_on_from_chunk_to_chunk() -> None:
    noise = PackageNoise(5)
    assert noise.for_chunk(3) is noise


# The host's generators


@pytest.mark.parametrize("source", BOTH)
def test_the_global_generators_are_not_touched(source: Callable[[int], Noise]) -> None:
    torch_before, numpy_before, python_before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    noise = source(1)
    for stage in DRAWS.values():
        stage(noise)
    noise.end(100)
    new_seed()
    assert torch.equal(torch.get_rng_state(), torch_before)
    numpy_after = np.random.get_state()
    assert isinstance(numpy_before, tuple)
    assert isinstance(numpy_after, tuple)
    assert numpy_after[2:] == numpy_before[2:]
    assert np.array_equal(numpy_after[1], numpy_before[1])
    assert random.getstate() == python_before


def test_seeding_the_global_generators_changes_nothing() -> None:
    torch.manual_seed(1)
    first = StageNoise(7).flow(8, 8), PackageNoise(7).flow(8, 8)
    torch.manual_seed(2)
    assert torch.equal(first[0], StageNoise(7).flow(8, 8))
    assert torch.equal(first[1], PackageNoise(7).flow(8, 8))


# Seeds


@pytest.mark.parametrize("source", BOTH)
@pytest.mark.parametrize("seed", [0, 1, LARGEST_SEED])
def test_every_seed_up_to_the_largest_works(source: Callable[[int], Noise], seed: int) -> None:
    assert bool(torch.isfinite(source(seed).flow(2, 2)).all())


def test_new_seeds_differ_and_can_be_typed() -> None:
    seeds = {new_seed() for _ in range(20)}
    assert len(seeds) == 20
    assert all(0 <= seed < 2**31 for seed in seeds)

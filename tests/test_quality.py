"""What int8 costs the trained demo voice, measured: every row of the plan has to stay below the gate's limits.

The ruler is teacher-forced cross-entropy on utterances that the voice never saw: deterministic, and fine enough to see
a ten-thousandth. Mel and wave are compared with equal tokens and equal noise. No figure of a voice stands here: limits
are those of `benchmarks/quality_gate.py`, and what fp32 is held to is what `make quality` kept.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import numpy as np
import pytest
import torch
from conftest import HERE, KERNELS
from torch import Tensor

from benchmarks import quality_gate, quality_sound, quality_worker
from benchmarks.quality_faults import PLANT
from benchmarks.quality_gate import LARGEST_COST, LARGEST_MEL, LARGEST_WAVE, NOISE_COST
from benchmarks.quality_sound import distance, mels, mels_of_waves, true_mels, true_waves
from benchmarks.teacher import every_row_through_the_kernel, losses
from chatterbox_nb.audio import read_clip
from chatterbox_nb.checkpoint import source
from chatterbox_nb.engine import model as engine
from chatterbox_nb.engine.model import Model
from chatterbox_nb.precision.plan import STORAGE, int8_rows

pytestmark = pytest.mark.xdist_group("quality")
IN_STEPS = 20  # utterances that are decoded step by step
FAULTY = 30  # utterances on which a fault is to be seen


def loaded(precision: str, kernel: str = "auto", off: tuple[str, ...] = ()) -> Model:
    spec, files = source.find("demo")
    return engine.load(spec, files, precision, HERE, kernel, off=off)


@pytest.fixture(scope="module")
def fp32(demo: Callable[..., Model]) -> Tensor:
    return losses(demo())


@pytest.fixture
def to_be_broken(demo: Callable[..., Model]) -> Model:
    """int8 with the kernel that faults are for, a copy of this test's own."""
    return deepcopy(demo("int8", "plain"))


# Speech tokens


def test_fp32_is_what_was_kept(fp32: Tensor) -> None:
    kept = quality_gate.committed()["configurations"]["fp32"]["cross_entropy"]
    print(f"\ncross-entropy: fp32 {float(fp32.mean()):.4f}, kept {kept:.4f}")
    assert float(fp32.mean()) == pytest.approx(kept, abs=NOISE_COST)


@pytest.mark.parametrize("kernel", KERNELS)
def test_int8_costs_at_most_a_hundredth_with_each_kernel(fp32: Tensor, kernel: str) -> None:
    cost = float((losses(every_row_through_the_kernel(loaded("int8", kernel))) - fp32).mean())
    print(f"\ncross-entropy: int8 with {kernel} costs {cost:+.4f}")
    assert cost <= LARGEST_COST


@pytest.mark.more
@pytest.mark.parametrize("kind", [kind for kind in STORAGE["int8"]["t3"] if kind != "text"])
def test_each_kind_of_layer_alone_costs_at_most_a_hundredth(fp32: Tensor, kind: str) -> None:
    off = tuple(row for row in int8_rows() if row != f"t3.{kind}")
    model = every_row_through_the_kernel(loaded("int8", off=off))
    assert {(row.component, row.kind) for row in model.plan.rows if row.storage == "int8"} == {("t3", kind)}
    cost = float((losses(model) - fp32).mean())
    print(f"\ncross-entropy: int8 for t3's {kind} alone costs {cost:+.4f}")
    assert cost <= LARGEST_COST


def test_fp32_loses_the_same_step_by_step(demo: Callable[..., Model], fp32: Tensor) -> None:
    assert torch.allclose(losses(demo(), IN_STEPS, steps=True), fp32[:IN_STEPS], atol=1e-4)


@pytest.mark.more
@pytest.mark.parametrize("kernel", KERNELS)
def test_int8_costs_no_more_step_by_step(fp32: Tensor, kernel: str) -> None:
    """As speech is made: a row at a time through the model as it is loaded."""
    cost = float((losses(loaded("int8", kernel), IN_STEPS, steps=True) - fp32[:IN_STEPS]).mean())
    print(f"\ncross-entropy: int8 with {kernel} step by step costs {cost:+.4f} over {IN_STEPS}")
    assert cost <= LARGEST_COST


@pytest.mark.parametrize("fault", PLANT)
def test_a_fault_in_t3_costs_more_than_the_limit(to_be_broken: Model, fp32: Tensor, fault: str) -> None:
    """Else the limit might be one that nothing exceeds."""
    assert PLANT[fault].plant(to_be_broken.t3) > 0
    cost = float((losses(to_be_broken, FAULTY) - fp32[:FAULTY]).mean())
    print(f"\ncross-entropy: {fault} costs {cost:+.4f}")
    assert cost > LARGEST_COST


# Mel and wave


def test_int8_flow_moves_the_mel_by_less_than_the_limit(demo: Callable[..., Model]) -> None:
    moved = distance(mels(demo("int8")), true_mels())
    print(f"\nmel L1 of int8 flow: {moved:.4f}, of mels that spread by {float(torch.cat(true_mels(), 2).std()):.2f}")
    assert moved <= LARGEST_MEL


def test_int8_vocoder_moves_the_waves_mel_by_less_than_the_limit(demo: Callable[..., Model]) -> None:
    moved = distance(mels_of_waves(demo("int8"), true_mels()), true_waves())
    print(f"\nlog-mel L1 of int8 vocoder: {moved:.4f}")
    assert moved <= LARGEST_WAVE


def test_other_noise_moves_the_waves_mel_by_more_than_the_limit(demo: Callable[..., Model]) -> None:
    """What a listener hears as the same speech: another draw of the source's noise."""
    moved = distance(mels_of_waves(demo(), true_mels(), seed=1), true_waves())
    print(f"\nlog-mel L1 of other noise: {moved:.4f}")
    assert moved > LARGEST_WAVE


@pytest.mark.parametrize(
    ("fault", "stage"), [(name, stage) for name, fault in PLANT.items() for stage in fault.components if stage != "t3"]
)
def test_a_fault_in_flow_or_vocoder_exceeds_the_limits(to_be_broken: Model, fault: str, stage: str) -> None:
    assert PLANT[fault].plant(to_be_broken.modules()[stage]) > 0
    if stage == "flow":
        moved, limit = distance(mels(to_be_broken), true_mels()), LARGEST_MEL
    else:
        moved, limit = distance(mels_of_waves(to_be_broken, true_mels()), true_waves()), LARGEST_WAVE
    print(f"\n{stage} with {fault}: {moved:.4f}")
    assert moved > limit


# Who speaks


def test_the_clip_of_a_voice_is_most_like_it() -> None:
    clip = read_clip(quality_worker.DEMO / "builtin_voice.wav")
    (own,) = quality_sound.cosines([clip.samples], clip.sample_rate)["own"]
    assert own == pytest.approx(1.0, abs=1e-3)


trained = pytest.mark.skipif(not quality_sound.SECOND_VOICE.exists(), reason="the demo voice's encoders are untrained")


@pytest.fixture(scope="module")
def likeness(demo: Callable[..., Model]) -> dict[str, list[float]]:
    return quality_sound.likeness_of(demo())


@trained
def test_takes_are_more_like_their_voice_than_noise_is(likeness: dict[str, list[float]]) -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(48_000, dtype=np.float32)
    own, deaf = likeness["own"], quality_sound.cosines([noise], 24_000)["own"]
    print(f"\ncosines to the voice: takes {min(own):.4f} to {max(own):.4f}, noise {deaf[0]:.4f}")
    assert min(own) > deaf[0]


@trained
def test_takes_are_more_like_their_voice_than_like_the_other_speaker(likeness: dict[str, list[float]]) -> None:
    assert all(own > other for own, other in zip(likeness["own"], likeness["other"], strict=True))

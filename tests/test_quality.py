"""What int8 costs the trained demo voice, measured: every row of the plan has to stay below its limit.

The ruler is teacher-forced cross-entropy on utterances that the voice never saw: deterministic, and fine enough to see
a ten-thousandth. README of the demo voice: 1.0907 at fp32 over the first hundred. Mel and wave are compared with equal
tokens and equal noise. Measured on x86 with AVX512-VNNI, torch 2.6; the limits are the measurements, rounded up.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from conftest import HERE, KERNELS
from torch import Tensor

from benchmarks.quality_faults import scales_of_the_wrong_axis
from benchmarks.quality_gate import LARGEST_COST
from benchmarks.teacher import every_row_through_the_kernel, heldout, losses
from chatterbox_nb.checkpoint import source
from chatterbox_nb.engine import flow, vocoder
from chatterbox_nb.engine import model as engine
from chatterbox_nb.engine.conditioning import mel_spectrogram
from chatterbox_nb.engine.model import Model
from chatterbox_nb.engine.noise import StageNoise
from chatterbox_nb.precision.plan import STORAGE, int8_rows

pytestmark = pytest.mark.xdist_group("quality")
README_CROSS_ENTROPY, README_UTTERANCES = 1.0907, 100
MEL_LIMIT = 0.04  # L1 of log mels; measured 0.027, of mels that spread by 2.6
WAVE_LIMIT = 0.09  # L1 of log mels of the waves; measured 0.074, and 0.096 between two draws of the source's noise
HEARD = 6  # utterances that mel and wave are compared on
IN_STEPS = 20  # utterances that are decoded step by step


def loaded(precision: str, kernel: str = "auto", off: tuple[str, ...] = ()) -> Model:
    spec, files = source.find("demo")
    return engine.load(spec, files, precision, HERE, kernel, off=off)


@pytest.fixture(scope="module")
def fp32() -> Tensor:
    return losses(loaded("fp32"))


# Speech tokens


def test_fp32_is_what_the_voices_readme_says(fp32: Tensor) -> None:
    measured = float(fp32[:README_UTTERANCES].mean())
    print(f"\ncross-entropy: fp32 {measured:.4f} over the first {README_UTTERANCES}, {float(fp32.mean()):.4f} over all")
    assert measured == pytest.approx(README_CROSS_ENTROPY, abs=0.01)


@pytest.mark.parametrize("kernel", KERNELS)
def test_int8_costs_at_most_a_hundredth_with_each_kernel(fp32: Tensor, kernel: str) -> None:
    cost = float((losses(every_row_through_the_kernel(loaded("int8", kernel))) - fp32).mean())
    print(f"\ncross-entropy: int8 with {kernel} costs {cost:+.4f}")
    assert cost <= LARGEST_COST


@pytest.mark.more
@pytest.mark.parametrize("kind", STORAGE["int8"]["t3"])
def test_each_kind_of_layer_alone_costs_at_most_a_hundredth(fp32: Tensor, kind: str) -> None:
    off = tuple(row for row in int8_rows() if row != f"t3.{kind}")
    model = every_row_through_the_kernel(loaded("int8", off=off))
    assert {(row.component, row.kind) for row in model.plan.rows if row.storage == "int8"} == {("t3", kind)}
    cost = float((losses(model) - fp32).mean())
    print(f"\ncross-entropy: int8 for t3's {kind} alone costs {cost:+.4f}")
    assert cost <= LARGEST_COST


def test_fp32_loses_the_same_step_by_step(fp32: Tensor) -> None:
    assert torch.allclose(losses(loaded("fp32"), IN_STEPS, steps=True), fp32[:IN_STEPS], atol=1e-4)


@pytest.mark.parametrize("kernel", KERNELS)
def test_int8_costs_no_more_step_by_step(fp32: Tensor, kernel: str) -> None:
    """As speech is made: a row at a time through the model as it is loaded."""
    cost = float((losses(loaded("int8", kernel), IN_STEPS, steps=True) - fp32[:IN_STEPS]).mean())
    print(f"\ncross-entropy: int8 with {kernel} step by step costs {cost:+.4f} over {IN_STEPS}")
    assert cost <= LARGEST_COST


def test_a_broken_scale_axis_costs_more_than_the_limit(fp32: Tensor) -> None:
    """A fault planted in a few layers: else the limit might be one that nothing exceeds."""
    model = loaded("int8", "plain")
    assert scales_of_the_wrong_axis(model.t3) > 0
    cost = float((losses(model) - fp32).mean())
    print(f"\ncross-entropy: scales of the wrong axis cost {cost:+.4f}")
    assert cost > LARGEST_COST


# Mel and wave


def tokens_heard() -> list[Tensor]:
    return [speech[None] for _, speech in heldout()[:HEARD]]


def mels(model: Model) -> list[Tensor]:
    voice = model.builtin_voice()
    with torch.inference_mode():
        return [flow.tokens_to_mel(model.flow, tokens, voice, StageNoise(0), 10) for tokens in tokens_heard()]


def log_mels_of_waves(model: Model, mels: list[Tensor]) -> list[Tensor]:
    with torch.inference_mode():
        return [mel_spectrogram(vocoder.mel_to_wave(model.vocoder, mel, StageNoise(0))[None]) for mel in mels]


def distance(ones: list[Tensor], others: list[Tensor]) -> float:
    return sum(float((one - other).abs().mean()) for one, other in zip(ones, others, strict=True)) / len(ones)


@pytest.fixture(scope="module")
def true_mels(demo: Callable[..., Model]) -> list[Tensor]:
    return mels(demo())


@pytest.fixture(scope="module")
def true_waves(demo: Callable[..., Model], true_mels: list[Tensor]) -> list[Tensor]:
    return log_mels_of_waves(demo(), true_mels)


def test_int8_flow_moves_the_mel_by_less_than_the_limit(demo: Callable[..., Model], true_mels: list[Tensor]) -> None:
    moved = distance(mels(demo("int8")), true_mels)
    print(f"\nmel L1 of int8 flow: {moved:.4f}, of mels that spread by {float(torch.cat(true_mels, 2).std()):.2f}")
    assert moved <= MEL_LIMIT


def test_int8_vocoder_moves_the_waves_mel_by_less_than_the_limit(
    demo: Callable[..., Model], true_mels: list[Tensor], true_waves: list[Tensor]
) -> None:
    moved = distance(log_mels_of_waves(demo("int8"), true_mels), true_waves)
    print(f"\nlog-mel L1 of int8 vocoder: {moved:.4f}")
    assert moved <= WAVE_LIMIT


def test_other_noise_moves_the_waves_mel_by_more_than_int8(
    demo: Callable[..., Model], true_mels: list[Tensor], true_waves: list[Tensor]
) -> None:
    """What a listener hears as the same speech: another draw of the source's noise."""
    with torch.inference_mode():
        others = [mel_spectrogram(vocoder.mel_to_wave(demo().vocoder, mel, StageNoise(1))[None]) for mel in true_mels]
    moved = distance(others, true_waves)
    print(f"\nlog-mel L1 of other noise: {moved:.4f}")
    assert moved > WAVE_LIMIT


@pytest.mark.parametrize("stage", ["flow", "vocoder"])
def test_a_broken_scale_axis_exceeds_the_limits(stage: str, true_mels: list[Tensor], true_waves: list[Tensor]) -> None:
    model = loaded("int8", "plain")
    assert scales_of_the_wrong_axis(model.modules()[stage]) > 0
    if stage == "flow":
        moved, limit = distance(mels(model), true_mels), MEL_LIMIT
    else:
        moved, limit = distance(log_mels_of_waves(model, true_mels), true_waves), WAVE_LIMIT
    print(f"\n{stage} with scales of the wrong axis: {moved:.4f}")
    assert moved > limit

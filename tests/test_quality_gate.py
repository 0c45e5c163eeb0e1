"""The quality gate: its page, its verdicts, and an ear that hears what is broken."""

from __future__ import annotations

import platform
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pytest

from benchmarks import quality, quality_gate, quality_table, quality_worker, recognition
from chatterbox_nb.engine.model import Model
from chatterbox_nb.precision import plan

needs_ear = pytest.mark.skipif(
    platform.machine() == "aarch64" and not recognition.INSTALLED, reason="pocketsphinx has no wheel for Linux on Arm"
)
SAID = quality_worker.sentences()[-6:]  # readings of digits: recognition of what is broken is slow with many words
UNDERSTOOD, LOST = 20.0, 50.0  # word error rates, %


@pytest.fixture
def results() -> dict[str, Any]:
    return deepcopy(quality_gate.committed())


def word_error_rate(model: Model) -> float:
    pairs = zip(SAID, quality_worker.spoken(model, 0, SAID), strict=True)
    lost = sum(quality_worker.word_errors(sentence, wave, model.spec.sample_rate) for sentence, (_, wave) in pairs)
    return 100 * lost / sum(len(sentence.words) for sentence in SAID)


# The page and what it says


def test_the_page_is_made_from_the_results(results: dict[str, Any]) -> None:
    assert quality_table.PAGE.read_text(encoding="utf-8") == quality_table.page(results)


def test_everything_that_is_on_by_default_passed(results: dict[str, Any]) -> None:
    assert quality_gate.failures(results) == []


def test_every_precision_and_row_was_measured(results: dict[str, Any]) -> None:
    gated = {figures["gated"] for figures in results["configurations"].values()}
    assert gated - {""} == {*plan.PRECISIONS, *plan.int8_rows()}


@pytest.mark.parametrize("component", ["t3", "flow", "vocoder"])
def test_a_fault_planted_in_any_component_failed(results: dict[str, Any], component: str) -> None:
    assert quality_gate.excesses(results, f"transposed weights in {component}")


# Verdicts


@pytest.mark.parametrize("name", ["int8, plain", "flow.linear alone"])
def test_words_lost_beyond_the_limit_fail(results: dict[str, Any], name: str) -> None:
    lost = round(sum(results["words"].values()) * (quality_gate.LARGEST_POINTS + 1) / 100)
    fp32 = results["configurations"]["fp32"]["edits"]
    results["configurations"][name]["edits"] = [{**run, "template": run["template"] + lost} for run in fp32]
    assert [line.split(" adds")[0] for line in quality_gate.failures(results)] == [name]


def test_cross_entropy_beyond_the_limit_fails(results: dict[str, Any]) -> None:
    results["configurations"]["bf16"]["cross_entropy"] += quality_gate.LARGEST_COST + 0.001
    assert [line.split(" costs")[0] for line in quality_gate.failures(results)] == ["bf16"]


def test_an_embedding_below_the_limit_fails(results: dict[str, Any]) -> None:
    results["configurations"]["voice_encoder.lstm alone"]["cosines"][0] = 0.99
    assert [line.split(" moves")[0] for line in quality_gate.failures(results)] == ["voice_encoder.lstm alone"]


def test_a_row_that_is_off_by_default_may_cost_what_it_costs(
    results: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    results["configurations"]["t3.head alone"]["cross_entropy"] += 1
    monkeypatch.setattr(plan, "OFF_BY_DEFAULT", ("t3.head",))
    assert quality_gate.failures(results) == []


def test_what_was_kept_is_no_different_from_itself(results: dict[str, Any]) -> None:
    assert quality_gate.differences(quality_gate.committed(), results) == []


def test_figures_beyond_noise_are_different(results: dict[str, Any]) -> None:
    results["configurations"]["fp16"]["cross_entropy"] += quality_gate.NOISE_COST + 0.001
    results["configurations"]["int8, plain"]["edits"][0]["digits"] += 30
    kept = quality_gate.committed()
    assert [line.split(":")[0] for line in quality_gate.differences(kept, results)] == ["fp16", "int8, plain"]


def test_on_another_machine_words_lost_by_chance_pass_and_others_fail(results: dict[str, Any]) -> None:
    results["machine"] = "another"
    assert not quality_gate.same_machine(quality_gate.committed(), results)
    lost = round(sum(results["words"].values()) * (quality_gate.LARGEST_POINTS + 1) / 100)
    figures = results["configurations"]["bf16"]
    figures["edits"] = [
        {**run, "template": run["template"] + lost} for run in results["configurations"]["fp32"]["edits"]
    ]
    for interval, lines in (([-0.5, 6.0], 0), ([0.5, 6.0], 1)):
        figures["points_interval"] = interval
        assert len(quality_gate.failures(results, by_chance=True)) == lines
    assert quality_gate.differences(quality_gate.committed(), results, heard=False) == []


def test_a_kernel_that_is_not_here_is_no_difference(results: dict[str, Any]) -> None:
    del results["configurations"]["int8, dynamic"]
    assert quality_gate.differences(quality_gate.committed(), results) == []


# The ear


@pytest.mark.parametrize(
    ("said", "understood", "edits"),
    [("a b c", "a b c", 0), ("a b c", "a c", 1), ("a c", "a b c", 1), ("a b c", "a x c", 1), ("a b", "", 2)],
)
def test_edits_are_words_put_in_left_out_and_exchanged(said: str, understood: str, edits: int) -> None:
    assert recognition.edits(said.split(), understood.split()) == edits


@needs_ear
def test_the_demo_voice_is_understood(demo: Callable[..., Model]) -> None:
    rate = word_error_rate(demo())
    print(f"\nword error rate: fp32 {rate:.1f} %")
    assert rate < UNDERSTOOD


@needs_ear
def test_noise_is_not_understood() -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(24_000, dtype=np.float32)
    assert recognition.heard(noise, 24_000, "digits") != SAID[0].words


@needs_ear
@pytest.mark.parametrize("stage", ["flow", "vocoder"])
def test_transposed_weights_are_not_understood(stage: str) -> None:
    fault = quality_worker.Configuration(stage, "int8", "plain", fault="transposed weights", component=stage)
    rate = word_error_rate(quality_worker.load(fault))
    print(f"\nword error rate: {stage} with transposed weights {rate:.1f} %")
    assert rate > LOST


def test_drawing_and_sounding_is_what_speaking_does(demo: Callable[..., Model]) -> None:
    drawn = dict(enumerate(quality_worker.drawn(demo(), 1, SAID[:2])))
    sounded = quality_worker.sounded(demo(), 1, drawn)
    for index, (tokens, samples) in enumerate(quality_worker.spoken(demo(), 1, SAID[:2])):
        assert drawn[index] == tokens and np.array_equal(sounded[index], samples)


def test_an_interval_of_equal_rates_has_no_width() -> None:
    edits = np.array([len(sentence.words) / 10 for sentence in quality_worker.sentences()])
    assert quality.interval(edits) == [10.0, 10.0]

"""int4, the experiment: how weights are rounded, what is taken, and that nobody is offered what the gate refuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from benchmarks import int4, int4_table, int4_weights, quality_worker
from benchmarks.int4_weights import INT8, Choice, Rounding, pieces, rounded
from chatterbox_nb.engine.model import Model
from chatterbox_nb.precision import plan
from chatterbox_nb.precision.kernels import dequantize

pytestmark = [pytest.mark.xdist_group("quality"), pytest.mark.more]  # an experiment, on models that are loaded there
NEAREST, CLIPPED = Rounding(32, clipped=False), Rounding(32, clipped=True)


def weights(rows: int = 48, columns: int = 80) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))


def error(rounding: Rounding) -> float:
    return float((rounded(weights(), rounding) - weights()).square().mean())


@pytest.mark.parametrize("rounding", int4.ROUNDINGS, ids=lambda one: one.name)
def test_a_group_holds_at_most_sixteen_numbers(rounding: Rounding) -> None:
    for group in rounded(weights(), rounding).split(rounding.group or 80, dim=1):
        assert max(len(row.unique()) for row in group) <= 16


def test_rounding_to_nearest_is_off_by_half_a_step_at_most() -> None:
    largest = weights().abs().amax()
    assert float((rounded(weights(), NEAREST) - weights()).abs().max()) <= float(largest) / 7 / 2 * 1.001


@pytest.mark.parametrize("group", [32, 64, 0])
def test_a_searched_scale_errs_less(group: int) -> None:
    assert error(Rounding(group, clipped=True)) < error(Rounding(group, clipped=False))


def test_smaller_groups_err_less() -> None:
    assert error(Rounding(16, clipped=False)) < error(NEAREST) < error(Rounding(0, clipped=False))


@pytest.mark.parametrize("rounding", [NEAREST, CLIPPED], ids=lambda one: one.name)
def test_zeros_stay_zeros(rounding: Rounding) -> None:
    assert torch.equal(rounded(torch.zeros(4, 64), rounding), torch.zeros(4, 64))


def test_bytes_are_half_a_byte_a_weight_and_two_a_scale() -> None:
    assert Rounding(32, clipped=True).bytes(10, 64) == 10 * 32 + 10 * 2 * 2
    assert Rounding(64, clipped=True).bytes(10, 96) == 10 * 48 + 10 * 2 * 2  # the last group is shorter
    assert Rounding(0, clipped=True).bytes(10, 64) == 10 * 32 + 10 * 2


def test_pieces_are_all_of_t3s_layers_once(demo: Callable[..., Model]) -> None:
    spec = demo().spec.t3
    found = sum(piece.rows * piece.columns for piece in pieces(spec))
    held = sum(one.weight.numel() for one in demo().t3.backbone.modules() if isinstance(one, torch.nn.Linear))
    assert found == held and len({piece.name for piece in pieces(spec)}) == 7 * spec.layers


def test_what_is_taken_is_int4_and_the_rest_int8(demo: Callable[..., Model]) -> None:
    model = int4_weights.load(Choice("keys", CLIPPED, ("0 k",)))
    width = model.spec.t3.width
    found = model.t3.backbone.get_submodule("layers.0.attention.qkv").weight
    true = demo().t3.backbone.get_submodule("layers.0.attention.qkv").weight
    int8 = quality_worker.loaded(INT8).t3.backbone.get_submodule("layers.0.attention.qkv")
    kept = dequantize(*int8.plain(), torch.float32)
    assert torch.equal(found[width : 2 * width], rounded(true[width : 2 * width], CLIPPED))
    assert torch.equal(found[:width], kept[:width]) and torch.equal(found[2 * width :], kept[2 * width :])


def test_nothing_taken_is_int8(demo: Callable[..., Model]) -> None:
    ids, speech = demo().text_ids("The red dog."), torch.tensor([1, 2, 3])
    none, int8 = int4_weights.load(Choice("none", CLIPPED, ())), quality_worker.loaded(INT8)
    logits = [int4_weights.teacher.logits_of(model, ids, speech) for model in (none, int8)]
    assert torch.allclose(*logits, atol=1e-4)


def test_the_flow_in_int4_moves_the_mel_farther() -> None:
    both = int4_weights.load(Choice("flow", NEAREST, (), flow=True))
    own, int8 = (int4_weights.quality_sound.moved_by(model) for model in (both, quality_worker.loaded(INT8)))
    print(f"\nmel: int8 {int8['mel']:.4f}, int4 {own['mel']:.4f}")
    assert own["mel"] > int8["mel"] and own["wave"] == int8["wave"]


def test_the_cheapest_for_a_byte_comes_first() -> None:
    q, down = pieces(quality_worker.loaded(INT8).spec.t3)[0], pieces(quality_worker.loaded(INT8).spec.t3)[6]
    assert int4_weights.cheapest_first({down: 0.003, q: 0.002}, CLIPPED) == [down, q]  # twice the bytes


@pytest.mark.parametrize("fitting", [0, 1, 6, 7])
def test_as_many_are_taken_as_fit(fitting: int) -> None:
    assert int4_weights.most(7, lambda count: count <= fitting) == fitting


def test_a_real_models_int8_weighs_what_its_plan_says() -> None:
    weighed = int4.weighed({CLIPPED.name: 1.0})["choices"]
    whole = weighed["all of T3, groups of 32"]
    assert weighed[f"as much of T3, {CLIPPED.name}"] == {**whole, "part": 1.0}
    assert whole["t3"] < weighed["int8"]["t3"] and whole["all"] < weighed["int8"]["all"]
    assert weighed["int8"]["t3"] - whole["t3"] == weighed["int8"]["all"] - whole["all"]


# The page and what it says


def test_the_page_is_made_from_the_results() -> None:
    assert int4_table.PAGE.read_text(encoding="utf-8") == int4_table.page(int4_table.committed())


def test_the_figures_are_of_the_voice_that_is_here() -> None:
    assert int4_table.committed()["voice"] == quality_worker.voice(), "make int4"


def test_int4_is_offered_only_if_it_passes_the_gate() -> None:
    assert "int4" not in plan.PRECISIONS or int4_table.passing(int4_table.committed())

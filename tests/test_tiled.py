"""The flow's compiled attention in bfloat16 is attention, for any length, and leaves the processor as it was."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from conftest import HERE
from torch import Tensor

from chatterbox_nb.checkpoint import source
from chatterbox_nb.engine import compiling
from chatterbox_nb.engine.model import Model
from chatterbox_nb.engine.nets.ready import Ready
from chatterbox_nb.precision import plan
from chatterbox_nb.precision.kernels import bf16, tiles

if HERE.unfused or not (tiles.available("bf16") or bf16.available()):
    pytest.skip("the processor has neither AMX nor AVX512-BF16, or no numba", allow_module_level=True)

from chatterbox_nb.engine.nets import tiled

INSTRUCTIONS = {"AMX": tiles.available("bf16"), "AVX512-BF16": bf16.available()}
HEADS = 8
TINY_WIDTH = 16


def inputs(frames: int, spread: float = 1.0, rows: int = 2, heads: int = HEADS, width: int = tiled.WIDTH) -> Tensor:
    drawn = torch.randn(rows, frames, 3 * heads * width, generator=torch.Generator().manual_seed(frames))
    return (drawn * spread).bfloat16()


def wanted(qkv: Tensor, heads: int = HEADS) -> Tensor:
    """In float64, of the same numbers."""
    rows, frames, _ = qkv.shape
    query, key, value = qkv.double().view(rows, frames, 3, heads, -1).permute(2, 0, 3, 1, 4)
    weights = torch.softmax(query @ key.transpose(2, 3) / math.sqrt(query.shape[-1]), dim=-1)
    return (weights @ value).transpose(1, 2).reshape(rows, frames, -1)


def apart(found: Tensor, right: Tensor) -> float:
    return float((found.double() - right).norm() / right.norm())


@pytest.fixture(params=[name for name, there in INSTRUCTIONS.items() if there])
def amx(request: pytest.FixtureRequest) -> bool:
    """Each way to multiply that this processor has."""
    return bool(request.param == "AMX")


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("spread", [0.1, 1.0, 3.0])  # of the last, one key in a row has nearly all the weight
@pytest.mark.parametrize("frames", [32, 33, 47, 48, 63, 64, 65, 200, 337])
@pytest.mark.parametrize(("heads", "width"), [(8, 64), (2, 48), (1, 32)])
def test_it_is_as_close_as_bfloat16_is(frames: int, spread: float, heads: int, width: int, amx: bool) -> None:
    qkv = inputs(frames, spread, heads=heads, width=width)
    right = wanted(qkv, heads)
    found = tiled.attention(qkv, heads, amx)
    assert found.dtype == torch.bfloat16
    assert found.shape == right.shape
    assert apart(found, right) < 1.1 * apart(right.bfloat16(), right) + 1e-3


def test_any_number_of_threads_and_any_rows_beside_it_give_the_same(threads: int, amx: bool) -> None:
    qkv = inputs(150, rows=3)
    found = tiled.attention(qkv, HEADS, amx)
    for row in range(3):
        assert torch.equal(tiled.attention(qkv[row : row + 1], HEADS, amx)[0], found[row])


def test_large_scores_do_not_overflow(amx: bool) -> None:
    qkv = inputs(64, 40.0)
    assert bool(torch.isfinite(tiled.attention(qkv, HEADS, amx)).all())
    assert apart(tiled.attention(qkv, HEADS, amx), wanted(qkv)) < 0.01


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", [0, 1, 2])  # query, key, value
def test_what_is_not_finite_stays_so(part: int, bad: float, amx: bool) -> None:
    """`finite.check` looks at the mel."""
    qkv = inputs(40, rows=1, heads=1)
    qkv[0, 5, part * tiled.WIDTH] = bad
    found = tiled.attention(qkv, 1, amx)
    assert not bool(torch.isfinite(found[0, 5]).all())


def test_torchs_own_products_of_bfloat16_are_right_afterwards(threads: int) -> None:
    left, right = inputs(64)[0, :, :64], inputs(65)[0, :64, :64]
    before = left @ right
    for _ in range(3):
        tiled.attention(inputs(64), HEADS)
        assert torch.equal(left @ right, before)


@pytest.mark.skipif(not bf16.available(), reason="the processor has no AVX512-BF16")
def test_a_processor_that_multiplies_wrongly_is_not_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bf16, "_try", lambda query, keys, found: found.fill(0))
    assert not bf16.available.__wrapped__()


def test_without_being_told_it_takes_the_faster_instruction() -> None:
    qkv = inputs(70, rows=1)
    assert torch.equal(tiled.attention(qkv, HEADS), tiled.attention(qkv, HEADS, INSTRUCTIONS["AMX"]))


def test_a_flow_uses_it_where_it_computes_in_bfloat16_and_nowhere_else(demo: Callable[..., Model]) -> None:
    dims = source.find("demo")[0].s3gen
    tilings = {
        (precision, kernel): demo(precision, kernel).flow.decoder.estimator.tiled  # type: ignore[union-attr]
        for precision, kernel in (("fp32", "auto"), ("bf16", "auto"), ("int8", "auto"), ("int8", "plain"))
    }
    computed = demo("int8").plan.flow_compute
    assert tilings == {
        ("fp32", "auto"): False,
        ("bf16", "auto"): True,
        ("int8", "auto"): computed == "bfloat16",
        ("int8", "plain"): False,
    }
    bf16 = demo("bf16").plan
    assert isinstance(bf16, plan.Plan)
    assert compiling.tiles_attention(bf16, dims)


@pytest.mark.parametrize(("frames", "width"), [(31, tiled.WIDTH), (40, TINY_WIDTH)])
def test_what_does_not_fit_is_torchs(frames: int, width: int) -> None:
    qkv = torch.randn(1, frames, 3 * 2 * width, generator=torch.Generator().manual_seed(0)).bfloat16()
    ours, theirs = (Ready(torch.nn.Module(), torch.bfloat16, on).attention(qkv, 2) for on in (True, False))
    assert torch.equal(ours, theirs)

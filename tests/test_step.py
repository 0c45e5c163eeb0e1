"""T3's compiled step of either backbone: what torch's layers compute, however numbers are stored, any rows, threads."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch
from conftest import HERE
from steps import BACKBONES, NEAR, cached, distance, embedded, t3_of

from chatterbox_nb.checkpoint.catalog import CATALOG, ENGLISH
from chatterbox_nb.engine import compiling
from chatterbox_nb.engine.model import Model
from chatterbox_nb.engine.nets.products import exponentials
from chatterbox_nb.engine.nets.stepper import Place, Stepper
from chatterbox_nb.precision.kernels import tiles, vector

pytestmark = [
    pytest.mark.skipif(bool(HERE.unfused), reason=HERE.unfused),
    pytest.mark.xdist_group("step"),  # what is compiled is compiled once
]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("backbone", "precision", "rows"),
    [
        *(("llama", "fp32", rows) for rows in (1, 2, 3, 8)),
        *(("llama", "int8", rows) for rows in (1, 2, 5, 8, 12)),
        ("llama", "fp16", 2),
        ("llama", "bf16", 2),
        *(("gpt2", "fp32", rows) for rows in (1, 3, 8)),
        *(("gpt2", "int8", rows) for rows in (1, 4, 5)),
        pytest.param("gpt2", "fp16", 1, marks=pytest.mark.more),  # as bf16, but for how numbers are read
        ("gpt2", "bf16", 1),
    ],
)
def test_a_step_is_what_the_layers_compute(
    demo: Callable[..., Model], backbone: str, precision: str, rows: int, threads: int
) -> None:
    t3 = t3_of(backbone, demo, precision, "plain")
    with torch.inference_mode(), Stepper(t3, threads) as stepper:
        theirs, ours = cached(t3, rows, 13, 20)
        for position in range(13, 18):
            x = embedded(t3, rows, position)
            wanted = t3.logits(x[:, None].to(theirs.keys.dtype), theirs, position)
            found = stepper(x, [Place(ours, row, position) for row in range(rows)])
            assert found.dtype == torch.float32
            assert distance(found, wanted) < NEAR[precision]


def test_sizes_that_are_no_whole_vectors_of_32_are_right_too(tiny: Model) -> None:
    """The tiny T3 is 48 wide: of int8 the last 16 of a row are half a vector."""
    t3 = tiny.t3
    assert t3.dims.width % 32
    with torch.inference_mode(), Stepper(t3, 1) as stepper:
        theirs, ours = cached(t3, 2, 5, 8)
        x = embedded(t3, 2, 0)
        found = stepper(x, [Place(ours, row, 5) for row in range(2)])
        assert distance(found, t3.logits(x[:, None], theirs, 5)) < NEAR["fp32"]


@pytest.mark.parametrize("K", [16, 48, 64, 1024, 4096, 8192])
@pytest.mark.parametrize("rows", [1, 2, 4])
def test_products_of_int8_and_int16_are_exact_and_do_not_overflow(K: int, rows: int) -> None:
    import numba

    block, many, kind = (0,) * 4, (0,) * rows, vector.kind("int8")

    @numba.njit
    def products(w: np.ndarray, x: np.ndarray, out: np.ndarray) -> None:
        vector.dot(
            kind, block, many, w.ctypes.data, w.strides[0], w.ctypes.data, 0, x.ctypes.data, x.strides[0],
            out.ctypes.data, w.shape[1],
        )  # fmt: skip

    draw = np.random.default_rng(K)
    for w, x in (
        (draw.integers(-127, 128, (4, K)), draw.integers(-32767, 32768, (rows, K))),
        (np.full((4, K), -127), np.full((rows, K), 32767)),
    ):
        out = np.zeros((rows, 4), np.float32)
        products(w.astype(np.int8), x.astype(np.int16), out)
        wanted = x @ w.T
        assert np.allclose(out, wanted, rtol=1e-6, atol=1e-6 * np.abs(x).max() * 127 * K)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_row_is_the_same_to_the_bit_whatever_is_beside_it(
    demo: Callable[..., Model], precision: str, backbone: str
) -> None:
    t3 = t3_of(backbone, demo, precision)
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
@pytest.mark.parametrize(("backbone", "rows"), [("llama", 5), ("llama", 8), ("llama", 12), ("gpt2", 5)])
def test_tiles_give_what_other_instructions_give_to_the_bit(
    demo: Callable[..., Model], backbone: str, rows: int
) -> None:
    t3 = t3_of(backbone, demo, "int8")
    with torch.inference_mode():
        _, ours = cached(t3, rows, 13, 20)
        x, places = embedded(t3, rows, 1), [Place(ours, row, 13) for row in range(rows)]
        found = []
        for tiled in (True, False):
            with Stepper(t3, 2) as stepper:
                assert stepper.tiles
                stepper.tiles = tiled
                found.append(stepper(x, places).clone())
        assert torch.equal(*found)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so(demo: Callable[..., Model], precision: str, bad: float, backbone: str) -> None:
    """Rounding to int16 must not hide it: `finite.check` looks at the logits."""
    t3 = t3_of(backbone, demo, precision)
    with torch.inference_mode(), Stepper(t3, 1) as stepper:
        _, ours = cached(t3, 3, 3, 8)
        x = embedded(t3, 3, 0)
        x[1, 7] = bad
        found = stepper(x, [Place(ours, row, 3) for row in range(3)])
        assert bool(torch.isfinite(found[::2]).all())
        assert not bool(torch.isfinite(found[1]).any())


def test_exponentials_are_exact_to_two_millionths() -> None:
    x = np.concatenate([np.linspace(-87, 88, 4001), np.linspace(-1e-3, 1e-3, 95)]).astype(np.float32)
    found = x.copy()
    exponentials(found, np.zeros(len(x), np.int32), len(x))
    wanted = np.exp(x.astype(np.float64))
    # Its argument is a float32: near 88, one unit in its last place is 8e-6 of the result.
    assert np.max(np.abs(found - wanted) / wanted / np.maximum(1, np.abs(x) / 8)) < 2e-6


def test_helping_threads_end_with_the_context(demo: Callable[..., Model]) -> None:
    t3 = demo().t3
    before = threading.active_count()
    with torch.inference_mode():
        _, ours = cached(t3, 2, 3, 8)
        with Stepper(t3, 3) as stepper:
            stepper(embedded(t3, 2, 0), [Place(ours, row, 3) for row in range(2)])
            assert threading.active_count() == before + 2
            stepper.rest()
            assert threading.active_count() == before
            stepper(embedded(t3, 1, 0), [Place(ours, 0, 4)])
        assert threading.active_count() == before


def test_every_catalog_model_has_sizes_that_fit() -> None:
    assert all(compiling.fits(spec.t3) for spec in CATALOG.values())


def test_other_sizes_do_not_fit() -> None:
    from dataclasses import replace

    assert not compiling.fits(replace(ENGLISH.t3, width=1032, heads=129))
    assert not compiling.fits(replace(ENGLISH.t3, ffn=16384))

"""T3's compiled step: what torch's layers compute, at every way of storing numbers, for any rows and threads."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch
from conftest import HERE
from torch import Tensor

from chatterbox_nb.checkpoint.catalog import CATALOG, ENGLISH
from chatterbox_nb.engine import compiling
from chatterbox_nb.engine.model import Model
from chatterbox_nb.engine.nets.llama import Cache
from chatterbox_nb.engine.nets.products import exponentials
from chatterbox_nb.engine.nets.stepper import Place, Stepper, kept_as
from chatterbox_nb.engine.nets.t3 import T3
from chatterbox_nb.precision.kernels import tiles, vector

pytestmark = pytest.mark.skipif(bool(HERE.unfused), reason=HERE.unfused)
# How far from torch's layers, relative: theirs compute in the dtype, the step adds up in float32. int8 has 16 bits of
# activations, and keys and values in float16; it is held against its weights in float32.
NEAR = {"fp32": 2e-6, "fp16": 2e-2, "bf16": 6e-2, "int8": 5e-4}
CPU = torch.device("cpu")


def cached(t3: T3, rows: int, positions: int, room: int) -> tuple[Cache, Cache]:
    """The same keys and values, as torch's layers and as the step keep them."""
    dtype = next(t3.backbone.parameters()).dtype
    theirs = Cache.empty(t3.dims, rows, room, CPU, dtype)
    x = torch.randn(rows, positions, t3.dims.width, generator=torch.Generator().manual_seed(rows)).to(dtype)
    t3.backbone(x, theirs, 0)
    ours = Cache(theirs.keys.to(kept_as(t3)), theirs.values.to(kept_as(t3)), theirs.cosine, theirs.sine)
    return theirs, ours


def embedded(t3: T3, rows: int, seed: int) -> Tensor:
    return torch.randn(rows, t3.dims.width, generator=torch.Generator().manual_seed(seed))


def distance(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("precision", "rows"),
    [
        ("fp32", 1),
        ("fp32", 2),
        ("fp32", 3),
        ("fp32", 8),
        ("int8", 1),
        ("int8", 2),
        ("int8", 5),
        ("int8", 8),
        ("int8", 12),
        ("fp16", 2),
        ("bf16", 2),
    ],
)
def test_a_step_is_what_the_layers_compute(demo: Callable[..., Model], precision: str, rows: int, threads: int) -> None:
    t3 = demo(precision, "plain").t3
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


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_row_is_the_same_to_the_bit_whatever_is_beside_it(demo: Callable[..., Model], precision: str) -> None:
    t3 = demo(precision).t3
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
@pytest.mark.parametrize("rows", [5, 8, 12])
def test_tiles_give_what_other_instructions_give_to_the_bit(demo: Callable[..., Model], rows: int) -> None:
    t3 = demo("int8").t3
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


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so(demo: Callable[..., Model], precision: str, bad: float) -> None:
    """Rounding to int16 must not hide it: `finite.check` looks at the logits."""
    t3 = demo(precision).t3
    with torch.inference_mode(), Stepper(t3, 1) as stepper:
        _, ours = cached(t3, 2, 3, 8)
        x = embedded(t3, 2, 0)
        x[1, 7] = bad
        found = stepper(x, [Place(ours, row, 3) for row in range(2)])
        assert bool(torch.isfinite(found[0]).all())
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

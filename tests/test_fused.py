"""Kernel `fused` with many rows: against float64, in blocks, and what it lacks where it cannot run."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch
from torch import Tensor

from chatterbox_nb.precision import kernels
from chatterbox_nb.precision.kernels import fused
from chatterbox_nb.precision.kernels.fused import Fused, lacking
from chatterbox_nb.precision.kernels.plain import Plain
from chatterbox_nb.precision.layers import quantize
from chatterbox_nb.precision.plan import DeviceFacts


def made(N: int, K: int, rows: int) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor]:
    draw = torch.Generator().manual_seed(N + K)
    weight = torch.randn(N, K, generator=draw)
    return torch.randn(rows, K, generator=draw), quantize(weight), torch.randn(N, generator=draw)


@pytest.mark.parametrize("rows", [1, 7, 84])
@pytest.mark.parametrize("bias", [True, False])
def test_in_bfloat16_it_is_within_bfloat16_of_float64(rows: int, bias: bool) -> None:
    x, packed, added = made(100, 64, rows)
    weight, scale = packed
    wanted = x.double() @ (weight.double() * scale.double()[:, None]).t() + (added.double() if bias else 0)
    found = Fused(bf16=True).multiply(x, packed, added if bias else None)
    assert found.dtype == x.dtype
    assert float((found - wanted).norm() / wanted.norm()) < 4e-3


def test_without_bfloat16_it_is_plain() -> None:
    x, packed, bias = made(100, 64, 5)
    assert torch.equal(Fused(bf16=False).multiply(x, packed, bias), Plain().multiply(x, packed, bias))


def test_a_matrix_of_many_blocks_is_one_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    x, packed, bias = made(100, 64, 9)
    wanted = Fused(bf16=True).multiply(x, packed, bias)
    monkeypatch.setattr(fused, "_BLOCK", 64 * 33)
    assert torch.allclose(Fused(bf16=True).multiply(x, packed, bias), wanted, atol=1e-5)


def test_a_wider_matrix_than_a_block_goes_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    x, packed, bias = made(3, 64, 9)
    wanted = Fused(bf16=True).multiply(x, packed, bias)
    monkeypatch.setattr(fused, "_BLOCK", 64)
    assert torch.allclose(Fused(bf16=True).multiply(x, packed, bias), wanted, atol=1e-5)


def test_rows_do_not_touch_each_other() -> None:
    x, packed, _ = made(64, 64, 8)
    together = Fused(bf16=True).multiply(x, packed, None)
    loud = x.clone()
    loud[-1] *= 1e4
    assert torch.equal(Fused(bf16=True).multiply(loud, packed, None)[:-1], together[:-1])


def test_it_is_made_for_the_device() -> None:
    here = DeviceFacts("cpu", "x86_64", "AVX512", bf16=True, unfused="")
    assert kernels.get("fused", here)._bf16  # type: ignore[attr-defined]
    assert not kernels.get("fused", None)._bf16  # type: ignore[attr-defined]


@pytest.mark.parametrize("capability", ["AVX2", "AVX512"])
def test_with_numba_nothing_is_lacking(capability: str) -> None:
    assert lacking(capability) == ""


def test_an_older_processor_is_named() -> None:
    assert lacking("DEFAULT") == "the processor has no AVX2 (DEFAULT)"


def test_a_missing_numba_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    there: Any = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "numba" else there(name))
    assert lacking("AVX2") == "numba is not installed"

"""Which devices this machine has, and what a plan is told of them."""

from __future__ import annotations

import importlib.util
import platform

import pytest
import torch

from chatterbox_nb.errors import PrecisionError
from chatterbox_nb.precision import device
from chatterbox_nb.precision.plan import DeviceFacts

no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")


def test_the_cpu_is_always_there_and_last() -> None:
    assert device.available()[-1] == "cpu"


def test_auto_is_the_fastest() -> None:
    assert device.resolve("auto") == device.available()[0]


@pytest.mark.parametrize("asked", ["cpu", "CPU", " cpu "])
def test_a_name_is_read_whatever_its_case(asked: str) -> None:
    assert device.resolve(asked) == "cpu"


@no_cuda
@pytest.mark.parametrize("asked", ["cuda", "cuda:1", "mps:0", "tpu"])
def test_a_device_that_is_not_there_is_an_error_that_lists_those_that_are(asked: str) -> None:
    with pytest.raises(PrecisionError, match=f"This machine has no device '{asked}'; it has .*cpu"):
        device.resolve(asked)


def test_a_mistyped_device_is_answered_with_the_nearest() -> None:
    with pytest.raises(PrecisionError, match=r"Did you mean cpu\?"):
        device.resolve("cpuu")


def test_facts_of_the_cpu_are_what_torch_and_the_system_say() -> None:
    facts = device.facts("cpu")
    assert (facts.name, facts.kind, facts.machine) == ("cpu", "cpu", platform.machine())
    assert facts.capability == torch.backends.cpu.get_cpu_capability()
    assert facts.vnni == torch.cpu._is_vnni_supported()
    assert facts.total_bytes is not None
    assert facts.free_bytes is not None
    assert 0 < facts.free_bytes <= facts.total_bytes


def test_reading_facts_creates_no_cuda_context() -> None:
    device.facts("cpu")
    device.available()
    assert not torch.cuda.is_initialized()


def test_a_device_with_an_index_is_still_of_its_kind() -> None:
    assert DeviceFacts("cuda:1").kind == "cuda"


@pytest.mark.parametrize(
    ("facts", "native"),
    [
        (DeviceFacts("cuda:0", capability="7.5"), False),  # a T4, of which torch says that it supports bf16
        (DeviceFacts("cuda:0", capability="8.0"), True),
        (DeviceFacts("cuda:1", capability="12.0"), True),
        (DeviceFacts("cuda:0", capability="10.0"), True),
        (DeviceFacts("cpu", capability="AVX512"), False),
        (DeviceFacts("cpu", capability="AVX512", bf16=True), True),
        (DeviceFacts("mps"), False),
    ],
)
def test_bf16_is_native_from_capability_8(facts: DeviceFacts, native: bool) -> None:
    assert facts.native_bf16 is native


@pytest.mark.parametrize(
    ("facts", "verified"),
    [
        (DeviceFacts("cpu", "x86_64"), True),
        (DeviceFacts("cpu", "AMD64"), True),
        (DeviceFacts("cpu", "aarch64"), False),
        (DeviceFacts("cuda:0", "x86_64", "8.0"), False),
        (DeviceFacts("cuda:0", "x86_64", "9.0"), True),  # an H200
        (DeviceFacts("mps", "arm64"), False),
    ],
)
def test_only_what_this_project_ran_on_is_verified(facts: DeviceFacts, verified: bool) -> None:
    assert facts.verified is verified


def test_a_cuda_device_by_its_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no GPU here: torch's count stands in for one with two."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device.available() == ["cuda:0", "cuda:1", "cpu"]
    assert device.resolve("cuda:1") == "cuda:1"
    assert device.resolve("CUDA") == device.resolve("auto") == "cuda:0"
    with pytest.raises(PrecisionError, match=r"no device 'cuda:2'; it has cuda:0, cuda:1, cpu"):
        device.resolve("cuda:2")


def test_a_gpu_has_triton_or_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "7.5 and higher" in device.without_triton((7, 0))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert device.without_triton((9, 0)) == "Triton is not installed"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert device.without_triton((7, 5)) == device.without_triton((12, 0)) == ""
    monkeypatch.setattr(torch.version, "hip", "6.2")
    assert "ROCm" in device.without_triton((9, 0))

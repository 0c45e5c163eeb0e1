"""Which devices this machine has, and what a plan is told of them."""

from __future__ import annotations

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


def test_auto_precision_is_int8_on_a_cpu_and_fp32_elsewhere_with_a_reason() -> None:
    assert device.automatic_precision(DeviceFacts("cpu")) == ("int8", "on a CPU int8 is the smallest and the fastest")
    for name in ("cuda:0", "mps"):
        precision, reason = device.automatic_precision(DeviceFacts(name))
        assert precision == "fp32"
        assert reason.startswith(f"on {name.split(':')[0]} only fp32 and int8 are built yet")

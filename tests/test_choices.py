"""What could be loaded, before it is: the bytes are those that a load then takes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from chatterbox_nb import choices, manager
from chatterbox_nb.choices import Outlook
from chatterbox_nb.engine.model import Model
from chatterbox_nb.errors import CheckpointError, PrecisionError
from chatterbox_nb.precision import device as devices
from chatterbox_nb.precision.plan import PRECISIONS


def look(model: str = "demo", device: str = "cpu", source: Path | None = None, held: int = 0) -> Outlook:
    facts = devices.facts(devices.resolve(device))
    free = None if facts.free_bytes is None else facts.free_bytes + held
    return choices.outlook(model, source, replace(facts, free_bytes=free))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_bytes_are_those_of_a_load(demo: Callable[..., Model], precision: str) -> None:
    choice = next(choice for choice in look().choices if choice.precision == precision)
    report = demo(precision).report
    assert choice.bytes == report.bytes
    assert choice.of_shipped == report.bytes / report.shipped_bytes


def test_auto_is_what_a_load_would_choose() -> None:
    outlook = look()
    manager.get().load("demo", "auto", "cpu").wait()
    plan = manager.get().loaded().plan
    assert outlook.auto == plan.precision
    assert outlook.why in plan.why


def test_the_published_sizes_of_the_english_model_are_known_without_a_file_of_it() -> None:
    """Where the CPU multiplies bf16 the flow computes in it, and what it does not quantize takes half."""
    sizes = {choice.precision: choice.bytes for choice in look("english").choices}
    assert sizes["int8"] == (668_452_168 if devices.facts("cpu").bf16 else 668_968_232)
    assert sizes["fp32"] / 1e9 == pytest.approx(2.66, abs=0.01)


def test_what_does_not_fit_says_by_how_much(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = replace(devices.facts("cpu"), free_bytes=1_000_000_000)
    monkeypatch.setattr(devices, "facts", lambda name: facts)
    lacking = {choice.precision: choice.lacking for choice in look("english").choices}
    assert lacking["int8"] == 0
    assert lacking["fp32"] == pytest.approx(1.66e9, abs=1e7)
    assert look("english", held=3_000_000_000).choices[0].lacking == 0


def test_a_folder_that_says_what_it_holds_is_looked_at(tiny_folder: Path, tiny: Model) -> None:
    outlook = look("english", source=tiny_folder)
    assert outlook.model == tiny.spec.name
    assert outlook.choices[0].bytes == tiny.report.bytes


def test_looking_loads_nothing_and_is_fast_the_second_time() -> None:
    shared = manager.get()
    shared.unload().wait()
    outlook = shared.look("demo").wait()
    assert shared.model is None
    assert choices.known("demo", None)
    again = shared.outlook("demo")
    assert [choice.bytes for choice in again.choices] == [choice.bytes for choice in outlook.choices]
    assert again.devices == tuple(devices.available())


def test_a_model_or_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(CheckpointError, match="There is no model 'englisch'"):
        look("englisch")
    with pytest.raises(PrecisionError, match="no device 'cuda:7'"):
        look(device="cuda:7")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
@pytest.mark.gpu
def test_looking_creates_no_cuda_context() -> None:
    import subprocess

    code = (
        "import torch; from chatterbox_nb import manager; manager.get().look('demo', 'cuda').wait(); "
        "print(torch._C._cuda_hasPrimaryContext(0))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"

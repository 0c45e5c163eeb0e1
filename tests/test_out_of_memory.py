"""Memory runs out, at every stage: the model is usable or cleanly gone, nothing is kept, the error has numbers."""

from __future__ import annotations

import gc
import re
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SENTENCE

import chatterbox_nb as tts
from chatterbox_nb import library, manager
from chatterbox_nb.checkpoint import loader, reference
from chatterbox_nb.checkpoint import source as sources
from chatterbox_nb.checkpoint.catalog import DEMO_FOLDER
from chatterbox_nb.engine import assembly, conditioning, decode, flow, vocoder, watermark
from chatterbox_nb.engine import model as engine
from chatterbox_nb.errors import OutOfMemory
from chatterbox_nb.precision import device

CLIP = DEMO_FOLDER / "builtin_voice.wav"
ERRORS: dict[str, Callable[[], BaseException]] = {
    "cuda": lambda: torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 120.00 MiB. GPU 0 has 14.00 MiB free."
    ),
    "cpu": lambda: RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 125829120 bytes."),
    "mps": lambda: RuntimeError(
        "MPS backend out of memory (MPS allocated: 9 GB). Tried to allocate 120.00 MB on private"
    ),
    "numpy": lambda: MemoryError(
        "Unable to allocate 120. MiB for an array with shape (31457280,) and data type float32"
    ),
    "python": MemoryError,
}
LOAD_STAGES: dict[str, tuple[Any, str]] = {
    "find": (sources, "find"),
    "build": (reference, "build"),
    "assemble": (assembly, "assemble"),
    "weights": (loader, "_put"),
    "constants": (vocoder, "own_constants"),
    "watermarker": (engine, "Watermarker"),
    "measure": (engine, "measure"),
}
TAKE_STAGES: dict[str, tuple[Any, str]] = {
    "voice": (conditioning, "prepare"),
    "prefill": (decode, "prefill"),
    "tokens": (decode, "draw"),
    "mel": (flow, "tokens_to_mel"),
    "wave": (vocoder, "mel_to_wave"),
    "watermark": (watermark.Watermarker, "apply"),
}
HELD: list[weakref.ref[torch.Tensor]] = []


def each_with_each(stages: Iterable[str], kinds: Iterable[str]) -> list[Any]:
    """Every pair; in `make test` each stage with one kind, and each kind with a stage."""
    names = list(kinds)
    return [
        pytest.param(stage, kind, marks=() if (i - k) % len(names) == 0 else pytest.mark.more)
        for i, stage in enumerate(stages)
        for k, kind in enumerate(names)
    ]


@pytest.fixture(autouse=True)
def held() -> Iterator[None]:
    HELD.clear()
    library._prepared.clear()
    yield


def fails(kind: str, after: int = 0, real: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """Holds a tensor in its frame, as work does, and runs out of memory; the first calls go through."""
    calls = [0]

    def run_out(*arguments: Any, **options: Any) -> Any:
        calls[0] += 1
        if real is not None and calls[0] <= after:
            return real(*arguments, **options)
        mine = torch.zeros(1000)
        HELD.append(weakref.ref(mine))
        raise ERRORS[kind]()

    return run_out


def nothing_is_kept() -> bool:
    """As in a notebook, where the last error stays in `sys.last_value`."""
    gc.collect()
    return bool(HELD) and all(ref() is None for ref in HELD)


@pytest.mark.parametrize(("stage", "kind"), each_with_each(TAKE_STAGES, ERRORS))
def test_a_take_that_runs_out_leaves_the_model_speaking(
    loaded: manager.Manager, stage: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tts.speak(SENTENCE, seed=1)
    with monkeypatch.context() as patched:
        patched.setattr(*TAKE_STAGES[stage], fails(kind))
        with pytest.raises(OutOfMemory) as caught:
            tts.speak(SENTENCE, voice=CLIP, seed=1)
    message = str(caught.value)
    sys.last_value = caught.value
    caught.value.__traceback__ = None  # pytest's own frames
    assert nothing_is_kept()
    assert re.search(r"Out of memory on cpu \(speaking(, \w+)?\): ", message)
    assert re.search(r"speaking needs at least \d", message)
    assert re.search(r"\d GB is free", message)
    assert "Try %tts_load --precision int8" in message
    assert ("0.126 GB more were asked for" in message) == (kind != "python")
    assert np.array_equal(tts.speak(SENTENCE, seed=1).samples, before.samples)


@pytest.mark.parametrize(("stage", "kind"), each_with_each(LOAD_STAGES, ERRORS))
def test_a_load_that_runs_out_leaves_the_old_model_speaking(
    loaded: manager.Manager, stage: str, kind: str, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tts.speak(SENTENCE, seed=1)
    with monkeypatch.context() as patched:
        patched.setattr(*LOAD_STAGES[stage], fails(kind))
        with pytest.raises(OutOfMemory, match=r"Out of memory on cpu \(loading \w+.*GB is free"):
            tts.load(source=tiny_folder, precision="fp32")
    assert nothing_is_kept()
    assert tts.info().model == "demo"
    assert np.array_equal(tts.speak(SENTENCE, seed=1).samples, before.samples)


@pytest.mark.parametrize(
    "stage",
    [pytest.param(stage, marks=() if i % 3 == 0 else pytest.mark.more) for i, stage in enumerate(LOAD_STAGES)],
)
def test_a_first_load_that_runs_out_leaves_nothing(
    stage: str, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tts.unload()
    with monkeypatch.context() as patched:
        patched.setattr(*LOAD_STAGES[stage], fails("cpu"))
        with pytest.raises(OutOfMemory):
            tts.load(source=tiny_folder, precision="fp32")
    assert nothing_is_kept()
    assert manager.get().model is None
    assert tts.load(source=tiny_folder, precision="fp32").bytes > 0


def test_running_out_in_the_middle_of_the_weights_frees_those_that_were_read(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tts.unload()
    assembled: list[weakref.ref[Any]] = []
    real = assembly.assemble

    def assemble(*arguments: Any) -> Any:
        modules, fills = real(*arguments)
        assembled.extend(weakref.ref(module) for module in modules.values())
        return modules, fills

    with monkeypatch.context() as patched:
        patched.setattr(assembly, "assemble", assemble)
        patched.setattr(loader, "_put", fails("cpu", after=40, real=loader._put))
        with pytest.raises(OutOfMemory) as caught:
            tts.load(source=tiny_folder, precision="fp32")
    sys.last_value = caught.value
    caught.value.__traceback__ = None
    gc.collect()
    assert len(assembled) == 3
    assert all(module() is None for module in assembled)


def small_machine(monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """As on a device with room for this many bytes beside what is loaded already."""
    real = device.facts
    monkeypatch.setattr(device, "facts", lambda name: replace(real(name), free_bytes=room))


def test_what_does_not_fit_beside_the_old_model_is_loaded_after_it_is_freed(
    loaded: manager.Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = weakref.ref(loaded.loaded())
    there: list[bool] = []
    real = engine.finish
    small_machine(monkeypatch, 25_000_000)  # fp32 takes 30 MB, and int8's 8 MB come free
    monkeypatch.setattr(engine, "finish", lambda prepared: (there.append(old() is not None), real(prepared))[1])
    tts.load("demo", precision="fp32")
    assert there == [False]
    assert tts.info().precision == "fp32"


def test_what_fits_beside_the_old_model_is_loaded_before_it_is_freed(
    loaded: manager.Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = weakref.ref(loaded.loaded())
    there: list[bool] = []
    real = engine.finish
    monkeypatch.setattr(engine, "finish", lambda prepared: (there.append(old() is not None), real(prepared))[1])
    tts.load("demo", precision="fp32")
    assert there == [True]


def test_a_switch_that_fails_after_the_old_model_was_freed_loads_it_again(
    loaded: manager.Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tts.speak(SENTENCE, seed=1)
    small_machine(monkeypatch, 25_000_000)
    real = engine.finish

    def finish(prepared: Any) -> Any:
        if prepared.plan.precision == "fp32":
            raise ERRORS["cpu"]()
        return real(prepared)

    monkeypatch.setattr(engine, "finish", finish)
    with pytest.raises(OutOfMemory, match=r"demo at int8 is loaded again\.$"):
        tts.load("demo", precision="fp32")
    assert tts.info().precision == "int8"
    assert np.array_equal(tts.speak(SENTENCE, seed=1).samples, before.samples)


def test_when_neither_can_be_loaded_it_is_said(loaded: manager.Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    small_machine(monkeypatch, 25_000_000)
    monkeypatch.setattr(engine, "finish", fails("cpu"))
    with pytest.raises(OutOfMemory, match=r"demo, which was loaded before, could not be loaded again \(RuntimeError\)"):
        tts.load("demo", precision="fp32")
    assert manager.get().model is None
    with pytest.raises(tts.TTSError, match="%tts_load"):
        tts.speak("Hello.")

"""The one shared model: load, switch, unload, info, memory, and its threads."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import HERE

import chatterbox_nb as tts
from chatterbox_nb import manager, usage
from chatterbox_nb.checkpoint import synthetic
from chatterbox_nb.errors import (
    Cancelled,
    CheckpointError,
    NotLoaded,
    OutOfMemory,
    PrecisionError,
    SettingError,
    SourceError,
)
from chatterbox_nb.events import CancelToken, Progress


def test_a_load_reports_what_it_chose_why_and_what_it_takes() -> None:
    report = tts.load("demo", precision="int8")
    assert report.model == "demo"
    assert report.plan.precision == "int8"
    assert "asked for" in report.plan.reason
    assert report.bytes == report.plan.expected_bytes == sum(report.bytes_by_component.values())
    assert set(report.ratios) == {"of what the package loads in fp32", "of our own fp32", "of our own fp16"}
    assert report.ratios["of what the package loads in fp32"] == report.bytes / report.shipped_bytes
    compiled = {"compile"} if report.plan.kernel == "fused" else set()
    assert set(report.seconds) == {"import", "build", "check", "weights", "watermarker"} | compiled


def test_auto_on_a_cpu_is_int8_and_says_why() -> None:
    report = tts.load("demo", precision="auto", device="cpu")
    assert report.plan.precision == "int8"
    assert "auto" in report.plan.reason
    assert "CPU" in report.plan.reason


def test_the_environment_chooses_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USE_INT8_QUANTIZATION", "true")
    monkeypatch.setenv("MODEL_DTYPE", "float32")
    report = tts.load("demo")
    assert report.plan.precision == "int8"
    assert "USE_INT8_QUANTIZATION is set in the environment, over MODEL_DTYPE=float32" in report.plan.reason


def test_info_says_what_is_loaded(loaded: manager.Manager) -> None:
    info = tts.info()
    assert (info.model, info.precision, info.quantization, info.dtype, info.device) == (
        "demo",
        "int8",
        "int8",
        "float32",
        "cpu",
    )
    assert info.kernel == loaded.loaded().plan.kernel
    assert set(info.bytes_by_component) == {"t3", "flow", "vocoder"}
    assert info.bytes == loaded.loaded().report.bytes


def test_info_names_the_kernel_that_was_asked_for() -> None:
    tts.load("demo", precision="int8", kernel="plain")
    assert tts.info().kernel == "plain"
    tts.load("demo", precision="fp32")
    assert (tts.info().kernel, tts.info().quantization) == ("" if HERE.unfused else "fused", "none")
    tts.load("demo", precision="fp32", kernel="plain")
    assert (tts.info().kernel, tts.info().quantization) == ("", "none")


def test_loading_what_is_loaded_changes_nothing(loaded: manager.Manager) -> None:
    model = loaded.loaded()
    tts.load("demo", precision="int8")
    assert loaded.loaded() is model


def test_a_folder_that_was_written_anew_is_loaded_anew(tmp_path: Path) -> None:
    synthetic.write(synthetic.TINY, tmp_path, seed=1)
    first = tts.load(source=tmp_path, precision="fp32")
    assert tts.load(source=tmp_path, precision="fp32").weights == first.weights
    synthetic.write(synthetic.TINY, tmp_path, seed=2)
    assert tts.load(source=tmp_path, precision="fp32").weights != first.weights


def test_a_source_folder_brings_its_own_spec(tiny_folder: Path) -> None:
    assert tts.load(source=tiny_folder, precision="fp32").model == "tiny"
    assert tts.info().source == str(tiny_folder)


def test_after_an_unload_there_is_nothing_to_speak_with(loaded: manager.Manager) -> None:
    tts.unload()
    with pytest.raises(NotLoaded, match="%tts_load"):
        tts.speak("Hello.")
    with pytest.raises(NotLoaded):
        tts.info()
    tts.unload()  # twice is no error


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"model": "englsh"}, CheckpointError, "Did you mean english"),
        ({"model": "demo", "precision": "int7"}, SettingError, "Did you mean int8"),
        ({"model": "demo", "device": "gpu"}, PrecisionError, "it has"),
        ({"model": "demo", "kernel": "fast"}, SettingError, "plain"),
        ({"model": "demo", "precision": "fp32", "kernel": "int8pack"}, PrecisionError, "--precision int8"),
        ({"source": "no/such/folder"}, SourceError, "no folder"),
    ],
)
def test_a_load_that_fails_leaves_the_old_model_speaking(
    loaded: manager.Manager, arguments: dict[str, str], error: type[Exception], says: str
) -> None:
    before = tts.speak("Hello.", seed=1)
    with pytest.raises(error, match=says):
        tts.load(**arguments)
    assert np.array_equal(tts.speak("Hello.", seed=1).samples, before.samples)


def test_a_model_that_does_not_fit_is_refused_with_numbers(
    loaded: manager.Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    from chatterbox_nb.precision import device

    real = device.facts
    monkeypatch.setattr(device, "facts", lambda name: replace(real(name), free_bytes=1_000_000))
    with pytest.raises(
        OutOfMemory, match=r"needs 0\.03 GB, 0\.01 GB is free on cpu\. Try %tts_load demo --precision int8"
    ):
        tts.load("demo", precision="fp32")


def test_a_load_can_be_cancelled_at_every_step_and_leaves_the_old_model(tiny_folder: Path) -> None:
    tts.load("demo", precision="int8")
    steps: list[Progress] = []
    manager.get().load(source=tiny_folder, precision="fp32", observer=steps.append).wait()
    assert len(steps) > 20
    for stop_at in (0, 1, 2, 3, 4, len(steps) // 2, len(steps) - 3):
        tts.load("demo", precision="int8")
        token = CancelToken()
        seen: list[Progress] = []

        def observe(
            progress: Progress, seen: list[Progress] = seen, token: CancelToken = token, stop_at: int = stop_at
        ) -> None:
            seen.append(progress)
            if len(seen) == stop_at + 1:
                token.cancel()

        job = manager.get().load(source=tiny_folder, precision="fp32", observer=observe, cancel=token)
        with pytest.raises(Cancelled):
            job.wait()
        assert tts.info().model == "demo"


def test_memory_reads_the_process_and_the_models_tensors(loaded: manager.Manager) -> None:
    reading = tts.memory()
    assert reading.device == "cpu"
    assert reading.allocated == loaded.loaded().report.bytes
    assert reading.process > 100_000_000
    assert reading.device_total is not None
    assert reading.device_free is not None
    assert 0 < reading.device_free < reading.device_total


MEMORY_PROGRAM = """
import sys, chatterbox_nb as tts
from chatterbox_nb import usage
tts.load(source=sys.argv[1], precision="fp32"); tts.unload()
before = usage.process_bytes()
for _ in range(3):
    report = tts.load(source=sys.argv[1], precision="fp32")
    held = usage.process_bytes() - before
    tts.unload()
    print(report.bytes, held, usage.process_bytes() - before)
"""
# glibc keeps up to this much at the top of a thread's heap, whatever is freed, and malloc_trim leaves it there.
_HEAP_TOP = 64 << 20


def test_unload_gives_the_memory_back(tmp_path: Path) -> None:
    """250 MB of weights, loaded thrice: what is left is the allocator's own, and does not add up.

    The first load is not counted: where nothing is compiled yet, the compiler's own memory stays.
    """
    wide = replace(
        synthetic.TINY,
        name="wide",
        t3=replace(synthetic.TINY.t3, width=960, heads=15, ffn=3840, layers=3, perceiver_heads=4),
    )
    synthetic.write(wide, tmp_path)
    found = subprocess.run(
        [sys.executable, "-c", MEMORY_PROGRAM, str(tmp_path)], capture_output=True, text=True, check=True
    )
    for line in found.stdout.splitlines():
        weights, held, left = map(int, line.split())
        assert weights > 200_000_000
        assert held > 0.9 * weights - _HEAP_TOP  # which the first load may have left free
        assert left < _HEAP_TOP + 10_000_000


SWITCHING_PROGRAM = """
import sys
import chatterbox_nb as tts
from chatterbox_nb import usage
orders = ("int8", "fp16", "fp32", "bf16", "int8", "fp32", "fp16", "int8", "bf16", "fp32")
for precision in orders: tts.load("demo", precision=precision)
tts.speak("Hello.", seed=1)
for _ in range(3):
    before = usage.process_bytes()
    for precision in orders:
        assert tts.load("demo", precision=precision).plan.precision == precision
    grown = usage.process_bytes() - before
    print(grown)
    if grown < int(sys.argv[1]): break
"""
GROWTH = 6_000_000  # bytes; fp32 takes 30 MB, int8 8 MB


@pytest.mark.more  # the unload beside it shows what one switch leaves
def test_ten_switches_do_not_grow() -> None:
    """Through all precisions, in a process of its own: others' threads would keep memory of theirs.

    Up to thrice: what is lost adds up each time, what the allocator moves about does not.
    """
    command = [sys.executable, "-c", SWITCHING_PROGRAM, str(GROWTH)]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(found.stdout.split()[-1]) < GROWTH, found.stdout


def test_auto_keeps_what_it_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    """It fits, since it is there; and asking again is no reason to load again."""
    tts.load("demo", precision="auto")
    model = manager.get().loaded()
    tts.load("demo", precision="auto")
    assert manager.get().loaded() is model
    tts.load("demo", precision="int8")  # what auto chose, by hand
    assert manager.get().loaded() is model


def test_auto_follows_a_choice_by_hand() -> None:
    tts.load("demo", precision="fp32")
    assert tts.load("demo", precision="auto").plan.precision == "int8"


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
def test_every_precision_is_switched_to_live(precision: str) -> None:
    tts.load("demo", precision="int8" if precision == "fp32" else "fp32")
    assert tts.load("demo", precision=precision).plan.precision == precision
    info = tts.info()
    assert (info.precision, info.quantization) == (precision, "int8" if precision == "int8" else "none")
    assert info.dtype == {"fp16": "float16", "bf16": "bfloat16"}.get(precision, "float32")
    assert len(tts.speak("Hello.", seed=1)) > 0


@pytest.mark.parametrize(("alias", "precision"), [("float16", "fp16"), ("bfloat16", "bf16"), ("half", "fp16")])
def test_a_dtypes_name_is_its_precision(alias: str, precision: str) -> None:
    assert tts.load("demo", precision=alias).plan.precision == precision


def test_rows_are_switched_off_by_call_and_by_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tts.load("demo", precision="int8").bytes
    assert tts.load("demo", precision="int8", int8_off=["flow.linear"]).bytes > whole
    assert tts.info().int8_off == ("flow.linear",)
    monkeypatch.setenv("INT8_ROWS_OFF", "flow.linear, vocoder.conv")
    report = tts.load("demo", precision="int8")
    assert set(report.plan.off) == {"flow.linear", "vocoder.conv"}
    assert report.by_kind["conv"][2] > 0
    with pytest.raises(SettingError, match=r"Did you mean flow\.linear"):
        tts.load("demo", precision="int8", int8_off="flow.linea")


def test_encoders_are_kept_by_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEEP_ENCODERS", "true")
    tts.load("demo", precision="int8")
    assert manager.get().loaded().encoders is not None
    assert {"tokenizer", "speaker_encoder", "voice_encoder"} <= set(tts.info().bytes_by_component)
    monkeypatch.delenv("KEEP_ENCODERS")
    tts.load("demo", precision="int8")
    assert manager.get().loaded().encoders is None


@pytest.mark.parametrize(("every", "takes", "times"), [(1, 3, 3), (2, 5, 2), (0, 3, 0)])
def test_memory_is_cleaned_up_after_as_many_takes_as_set(
    loaded: manager.Manager, monkeypatch: pytest.MonkeyPatch, every: int, takes: int, times: int
) -> None:
    cleaned: list[str] = []
    cleared: list[str] = []
    monkeypatch.setattr(loaded, "_takes", 0)
    monkeypatch.setattr(usage, "collect", lambda: cleaned.append("cpu"))
    monkeypatch.setattr(usage, "empty_cache", cleared.append)
    monkeypatch.setenv("MEMORY_CLEANUP_INTERVAL", str(every))
    monkeypatch.setenv("CUDA_CACHE_CLEAR_INTERVAL", str(every))
    for seed in range(takes):
        tts.speak("Hello.", seed=seed)
    assert len(cleaned) == len(cleared) == times


def test_without_monitoring_no_peak_is_measured(loaded: manager.Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tts.speak("Hello.", seed=1).peak_bytes is not None
    monkeypatch.setenv("ENABLE_MEMORY_MONITORING", "false")
    assert tts.speak("Hello.", seed=1).peak_bytes is None
    assert tts.memory().peak is None


def test_a_bad_interval_is_found_before_a_take_and_not_after(
    loaded: manager.Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMORY_CLEANUP_INTERVAL", "often")
    with pytest.raises(SettingError, match="MEMORY_CLEANUP_INTERVAL='often' must be a whole number"):
        tts.speak("Hello.", seed=1)


def test_a_small_model_gets_one_thread_and_the_host_keeps_its_own(loaded: manager.Manager) -> None:
    inside = loaded.submit("looking", lambda job: torch.get_num_threads()).wait()
    assert inside == 1
    found: list[int] = []
    mine = torch.get_num_threads()
    other = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert found == [mine]


def test_a_load_tells_everyone_who_observes(tmp_path: Path) -> None:
    folder = synthetic.tiny(tmp_path / "never in memory before", seed=23)  # what is would be shared, and not read
    seen: list[Progress] = []
    stop = manager.get().observe(seen.append)
    try:
        tts.load(source=folder, precision="fp32", kernel="plain")
        tts.unload()
    finally:
        stop()
    assert [progress.stage for progress in seen if progress.stage.endswith("loaded")][-2:] == ["loaded", "unloaded"]
    fractions = [
        progress.fraction for progress in seen if progress.stage == "weights" and progress.fraction is not None
    ]
    assert max(fractions) == 1.0

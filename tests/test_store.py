"""What models share is loaded once, counted in bytes; a model that shares stays whole whatever becomes of the other."""

from __future__ import annotations

import gc
import shutil
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_out_of_memory import fails, small_machine

import chatterbox_nb as tts
from chatterbox_nb import manager
from chatterbox_nb.checkpoint import loader, source, synthetic
from chatterbox_nb.checkpoint.cache import QuantizedCache
from chatterbox_nb.checkpoint.synthetic import TINY
from chatterbox_nb.checkpoint.tensorfile import TensorFile
from chatterbox_nb.engine import model as engine
from chatterbox_nb.engine import weights
from chatterbox_nb.engine.gpu_flow import Solver
from chatterbox_nb.engine.graphs import Recorder
from chatterbox_nb.engine.model import Model
from chatterbox_nb.engine.report import LoadReport
from chatterbox_nb.engine.store import Store
from chatterbox_nb.errors import Cancelled, CheckpointError, OutOfMemory
from chatterbox_nb.events import CancelToken, Progress
from chatterbox_nb.precision import device
from chatterbox_nb.precision.layers import tensors_of
from chatterbox_nb.precision.plan import DeviceFacts

HERE = device.facts("cpu")
ALL = ("t3", "flow", "vocoder")
T3, S3GEN = (TINY.file(role).name for role in ("t3", "s3gen"))


@pytest.fixture(scope="module")
def sibling(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with the same S3Gen as the tiny one, in a file of its own, and another T3. Read only."""
    folder = synthetic.tiny(tmp_path_factory.mktemp("sibling"), seed=1)
    shutil.copyfile(tiny_folder / S3GEN, folder / S3GEN)
    return folder


@pytest.fixture
def sibling_copy(sibling: Path, tmp_path: Path) -> Path:
    """It, to be damaged."""
    return Path(shutil.copytree(sibling, tmp_path / "damaged"))


@pytest.fixture
def nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTIZED_CACHE", "false")
    tts.unload()


def beside(
    store: Store | None, folder: Path, precision: str = "fp32", facts: DeviceFacts = HERE, **options: Any
) -> Model:
    """A model without a manager, which may share what is in the store."""
    return engine.load(*source.find(source=folder), precision, facts, store=store, **options)


def load(folder: Path, precision: str = "fp32", **options: Any) -> LoadReport:
    return tts.load(source=folder, precision=precision, **options)


def loaded() -> Model:
    return manager.get().loaded()


def spoken() -> np.ndarray:
    return tts.speak("Hello there.", seed=3).samples


def bytes_at(model: Model) -> dict[int, int]:
    """Address → bytes of every tensor that a model holds."""
    found = [tensor for module in model.modules().values() for tensor in tensors_of(module).values()]
    return {tensor.data_ptr(): tensor.nbytes for tensor in found if tensor.numel()}


@pytest.mark.parametrize(("precision", "disk"), [("fp32", False), ("int8", False), ("int8", True)])
def test_a_switch_adds_the_bytes_that_are_not_shared_and_no_more(
    nothing_loaded: None,
    tiny_folder: Path,
    sibling: Path,
    precision: str,
    disk: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("QUANTIZED_CACHE", str(disk))
    assert load(tiny_folder, precision).shared == ()
    old = loaded()
    report = load(sibling, precision)
    new = loaded()
    assert report.shared == ("flow", "vocoder")
    assert new.flow is old.flow
    assert new.vocoder is old.vocoder
    assert new.t3 is not old.t3
    there = bytes_at(old)
    added = sum(size for address, size in bytes_at(new).items() if address not in there)
    assert added == report.added_bytes == report.bytes_by_component["t3"]
    assert report.bytes == sum(bytes_at(new).values()), "a report counts all that the model holds"


def test_what_shares_speaks_as_it_does_alone(nothing_loaded: None, tiny_folder: Path, sibling: Path) -> None:
    load(sibling)
    alone = spoken()
    tts.unload()
    load(tiny_folder)
    assert load(sibling).shared
    assert np.array_equal(spoken(), alone)


def test_a_file_is_hashed_once_and_then_known(
    tiny_folder: Path, sibling: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[Path] = []
    real = weights._hashed
    monkeypatch.setattr(weights, "_hashed", lambda file, *rest: (hashed.append(file.path), real(file, *rest))[1])
    store = Store()
    models = [beside(store, folder) for folder in (tiny_folder, sibling, tiny_folder, sibling)]
    assert [model.report.shared for model in models] == [(), ("flow", "vocoder"), ALL, ALL]
    assert hashed == [sibling / S3GEN]


def test_a_hash_is_of_the_tensors_and_not_of_how_they_lie(tiny_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(tiny_folder, tmp_path / "again"))
    save_file(load_file(tiny_folder / S3GEN), folder / S3GEN, {"written": "by another program"})
    with TensorFile(tiny_folder / S3GEN) as one, TensorFile(folder / S3GEN) as other:
        assert one.entries != other.entries
    store = Store()
    first, second = beside(store, tiny_folder), beside(store, folder)
    assert second.report.shared == ("flow", "vocoder")
    assert second.report.weights == first.report.weights


def test_another_s3gen_is_not_shared(tiny_folder: Path, tmp_path: Path) -> None:
    store = Store()
    first, second = beside(store, tiny_folder), beside(store, synthetic.tiny(tmp_path, seed=1))
    assert second.report.shared == ()
    assert second.report.added_bytes == second.report.bytes
    assert not bytes_at(first).keys() & bytes_at(second).keys()


def test_another_precision_shares_what_is_stored_alike(tiny_folder: Path) -> None:
    store = Store()
    models = [beside(store, tiny_folder, precision) for precision in ("fp32", "bf16", "int8")]
    assert [model.report.shared for model in models] == [(), ("vocoder",), ()], "a vocoder is float32 at fp32 and bf16"


def test_another_setting_shares_the_whole_model(tiny_folder: Path, tmp_path: Path) -> None:
    store, cache = Store(), QuantizedCache(tmp_path / "quantized")
    model = beside(store, tiny_folder, "int8")
    report = beside(store, tiny_folder, "int8", keep_encoders=True, cache=cache).report
    assert model.report.cache == "off"
    assert report.shared == ALL
    kept = ("tokenizer", "speaker_encoder", "voice_encoder")
    assert report.added_bytes == sum(report.bytes_by_component[component] for component in kept) > 0
    assert report.cache == "not needed"


def test_an_unload_gives_back_what_was_shared(nothing_loaded: None, tiny_folder: Path, sibling: Path) -> None:
    load(tiny_folder)
    load(sibling)
    modules = [weakref.ref(module) for module in loaded().modules().values()]
    tts.unload()
    gc.collect()
    assert [module() for module in modules] == [None] * 3


# A switch that fails


def _damaged(folder: Path, _: pytest.MonkeyPatch) -> tuple[type[Exception], dict[str, Any]]:
    """Its last tensor is not a number, which quantizing finds."""
    data = bytearray((folder / T3).read_bytes())
    data[-4096:] = b"\xff" * 4096
    (folder / T3).write_bytes(data)
    return CheckpointError, {}


def _cut_off(folder: Path, _: pytest.MonkeyPatch) -> tuple[type[Exception], dict[str, Any]]:
    (folder / T3).write_bytes((folder / T3).read_bytes()[:-1000])
    return CheckpointError, {}


def _cancelled(folder: Path, _: pytest.MonkeyPatch) -> tuple[type[Exception], dict[str, Any]]:
    token = CancelToken()

    def observe(progress: Progress) -> None:
        if progress.stage == "weights" and progress.done:
            token.cancel()

    return Cancelled, {"observer": observe, "cancel": token}


def _out_of_memory(folder: Path, patch: pytest.MonkeyPatch) -> tuple[type[Exception], dict[str, Any]]:
    patch.setattr(loader, "_put", fails("cpu", after=10, real=loader._put))
    return OutOfMemory, {}


def _at_the_end(folder: Path, patch: pytest.MonkeyPatch) -> tuple[type[Exception], dict[str, Any]]:
    patch.setattr(engine, "measure", fails("cpu"))
    return OutOfMemory, {}


@pytest.mark.parametrize(
    "failure",
    [
        _damaged,
        pytest.param(_cut_off, marks=pytest.mark.more),
        _cancelled,
        pytest.param(_out_of_memory, marks=pytest.mark.more),
        _at_the_end,
    ],
    ids=lambda f: f.__name__,
)
def test_a_switch_that_fails_leaves_the_old_model_as_it_was(
    nothing_loaded: None,
    tiny_folder: Path,
    sibling_copy: Path,
    failure: Callable[..., tuple[type[Exception], dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load(tiny_folder, "int8")
    model, before = loaded(), spoken()
    with monkeypatch.context() as patch:
        error, options = failure(sibling_copy, patch)
        with pytest.raises(error):
            manager.get().load(source=sibling_copy, precision="int8", **options).wait()
    assert loaded() is model
    assert np.array_equal(spoken(), before)


# Memory that is too small for both


def room(folder: Path, precision: str, part: float) -> int:
    """Bytes: some part of the T3 of a checkpoint."""
    spec, files = source.find(source=folder)
    return int(part * weights.bytes_of(engine.prepare(spec, files, precision, HERE).plan, ["t3"]))


def test_what_fits_beside_the_old_model_is_counted_without_what_they_share(
    nothing_loaded: None, tiny_folder: Path, sibling: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(tiny_folder)
    old, there = weakref.ref(loaded()), []
    real = engine.finish
    monkeypatch.setattr(engine, "finish", lambda prepared: (there.append(old() is not None), real(prepared))[1])
    small_machine(monkeypatch, room(sibling, "fp32", 1.2))
    load(sibling)
    assert there == [True]


def test_what_is_shared_outlives_an_old_model_that_has_to_go_first(
    nothing_loaded: None, tiny_folder: Path, sibling: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(tiny_folder)
    t3, flow = weakref.ref(loaded().t3), weakref.ref(loaded().flow)
    there: list[bool] = []
    real = engine.finish
    monkeypatch.setattr(engine, "finish", lambda prepared: (there.append(t3() is not None), real(prepared))[1])
    small_machine(monkeypatch, room(sibling, "fp32", 1.0))
    assert load(sibling).shared == ("flow", "vocoder")
    assert there == [False]
    assert loaded().flow is flow()


def test_a_switch_that_fails_after_the_old_model_went_reads_only_its_t3_again(
    nothing_loaded: None, tiny_folder: Path, sibling: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(tiny_folder)
    before, flow = spoken(), weakref.ref(loaded().flow)
    small_machine(monkeypatch, room(sibling, "fp32", 1.0))
    real = engine.finish

    def finish(prepared: Any) -> Any:
        if prepared.files.origin == str(sibling):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(prepared)

    monkeypatch.setattr(engine, "finish", finish)
    with pytest.raises(OutOfMemory, match=r"is loaded again\.$"):
        load(sibling)
    assert loaded().report.shared == ("flow", "vocoder")
    assert loaded().flow is flow()
    assert np.array_equal(spoken(), before)


def test_a_store_alone_is_counted_as_room(tiny_folder: Path, sibling: Path) -> None:
    """Without a manager what is free is what nobody has."""
    store = Store()
    first, few = beside(store, tiny_folder), replace(HERE, free_bytes=room(sibling, "fp32", 1.1))
    assert beside(store, sibling, facts=few).flow is first.flow
    with pytest.raises(OutOfMemory):
        beside(None, sibling, facts=few)


# On disk and on a GPU


def test_models_that_share_a_component_share_its_file(tiny_folder: Path, sibling: Path, tmp_path: Path) -> None:
    cache = QuantizedCache(tmp_path / "quantized")
    reports = [
        beside(None, folder, "int8", cache=cache).report for folder in (tiny_folder, sibling, tiny_folder, sibling)
    ]
    assert [report.cache for report in reports] == ["written", "written", "read", "read"]
    assert [report.shared for report in reports] == [()] * 4
    assert [len(list(cache.folder.glob(f"{of}-*"))) for of in ALL] == [2, 1, 1]


def test_a_component_that_is_on_disk_is_read_from_there_and_the_others_are_made(
    tiny_folder: Path, tmp_path: Path
) -> None:
    cache = QuantizedCache(tmp_path / "quantized")
    beside(None, tiny_folder, "int8", cache=cache)
    next(cache.folder.glob("t3-*")).unlink()
    seen: list[Progress] = []
    assert beside(None, tiny_folder, "int8", cache=cache, observer=seen.append).report.cache == "written"
    told = [progress for progress in seen if progress.fraction is not None and progress.stage == "weights"]
    details = list(dict.fromkeys(progress.detail for progress in told))
    assert details == ["flow, from the cache", "vocoder, from the cache", "t3"]
    fractions = [progress.fraction for progress in told]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1.0)


def test_graphs_of_a_shared_flow_stay_with_it(nothing_loaded: None, tiny_folder: Path, sibling: Path) -> None:
    load(tiny_folder)
    old, before = loaded(), spoken()
    recorder = Recorder(torch.device("cpu"))
    old.flow.solver = solver = Solver(recorder)
    load(sibling)
    assert loaded().flow.solver is solver
    assert loaded().recorder is recorder
    spoken()
    loaded().rest()
    load(tiny_folder)
    assert np.abs(spoken() - before).max() < 1e-3

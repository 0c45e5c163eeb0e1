"""The quantized form on disk: the same model, faster; and never trusted when it is not whole, ours and of this key."""

from __future__ import annotations

import errno
import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import chatterbox_nb as tts
from chatterbox_nb.checkpoint import cache as caches
from chatterbox_nb.checkpoint import source, synthetic
from chatterbox_nb.checkpoint.cache import QuantizedCache
from chatterbox_nb.engine import model as engine
from chatterbox_nb.engine.model import Model
from chatterbox_nb.errors import Cancelled
from chatterbox_nb.events import CancelToken, Progress
from chatterbox_nb.precision import device
from chatterbox_nb.precision.layers import tensors_of

HERE = device.facts("cpu")


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A checkpoint of this test's own."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "checkpoint"))


@pytest.fixture
def cache(tmp_path: Path) -> QuantizedCache:
    return QuantizedCache(tmp_path / "quantized")


@pytest.fixture(scope="module")
def kept(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, QuantizedCache]:
    """The tiny checkpoint at int8, and what its load kept. Read only."""
    cache = QuantizedCache(tmp_path_factory.mktemp("quantized") / "kept")
    return load(tiny_folder, cache), cache


@pytest.fixture
def filled(kept: tuple[Model, QuantizedCache], cache: QuantizedCache) -> QuantizedCache:
    """A copy of what was kept, of this test's own."""
    shutil.copytree(kept[1].folder, cache.folder)
    return cache


def load(folder: Path, cache: QuantizedCache | None, kernel: str = "auto", **options: object) -> Model:
    spec, files = source.find(source=folder)
    return engine.load(spec, files, "int8", HERE, kernel, cache=cache, **options)


def cached(cache: QuantizedCache) -> list[Path]:
    return sorted(cache.folder.glob("*.safetensors"))


def file_of(cache: QuantizedCache, component: str) -> Path:
    (path,) = cache.folder.glob(f"{component}-*.safetensors")
    return path


def same(one: Model, other: Model) -> bool:
    """Every tensor of the one is the other's, to the bit."""
    for component, module in one.modules().items():
        theirs = tensors_of(other.modules()[component])
        for name, tensor in tensors_of(module).items():
            mine = tensor.to_dense() if tensor.is_mkldnn else tensor
            found = theirs[name].to_dense() if theirs[name].is_mkldnn else theirs[name]
            if not torch.equal(mine, found):
                return False
    return True


def test_a_second_load_reads_what_the_first_kept(folder: Path, cache: QuantizedCache) -> None:
    first, second = load(folder, cache), load(folder, cache)
    assert (first.report.cache, second.report.cache) == ("written", "read")
    assert same(first, second)
    assert first.report.rows == second.report.rows
    assert first.report.weights == second.report.weights


@pytest.mark.parametrize("kernel", ["fused", "plain", "int8pack", "dynamic"])
def test_every_kernel_reads_the_same_file(tiny_folder: Path, filled: QuantizedCache, kernel: str) -> None:
    if (kernel == "dynamic" and not HERE.vnni) or (kernel == "int8pack" and HERE.capability == "DEFAULT"):
        pytest.skip("this processor does not have it")
    again = load(tiny_folder, filled, kernel)
    assert again.report.cache == "read"
    assert same(load(tiny_folder, None, kernel), again)


def test_a_kernel_with_a_layout_of_its_own_is_kept_in_the_plain_one(folder: Path, cache: QuantizedCache) -> None:
    if not HERE.vnni:
        pytest.skip("no VNNI")
    load(folder, cache, "dynamic")
    head = load_file(file_of(cache, "t3"))["head.weight_int8"]
    assert head.dtype == torch.int8
    assert torch.equal(head, load(folder, None, "plain").t3.head.weight_int8)


def test_the_checkpoint_is_not_read_again(folder: Path, cache: QuantizedCache, monkeypatch: pytest.MonkeyPatch) -> None:
    load(folder, cache)
    opened: list[Path] = []
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *rest, **more: (opened.append(path), real(path, *rest, **more))[1])
    load(folder, cache)
    assert {path.parent for path in opened if path.suffix == ".safetensors"} == {cache.folder}


def _cut_off(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1000)


def _flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5000] ^= 1
    path.write_bytes(data)


def _of_another_key(path: Path) -> None:
    """As a file that was copied here from elsewhere, or whose name was guessed."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"]["key"] = "0" * 64
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def _without_a_tensor(path: Path) -> None:
    from safetensors.torch import save_file

    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    metadata = json.loads(data[8 : 8 + length])["__metadata__"]
    tensors = load_file(path)
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, path, metadata)


def _of_something_else(path: Path) -> None:
    path.write_bytes(b"not a safetensors file at all")


@pytest.mark.parametrize(
    "damage", [_cut_off, _flip_a_bit, _of_another_key, _without_a_tensor, _of_something_else], ids=lambda f: f.__name__
)
def test_what_is_damaged_is_made_anew_and_said(
    tiny_folder: Path, kept: tuple[Model, QuantizedCache], filled: QuantizedCache, damage: Callable[[Path], None]
) -> None:
    path, *others = (file_of(filled, component) for component in ("vocoder", "t3", "flow"))
    written = [other.stat().st_ino for other in others]
    damage(path)
    again = load(tiny_folder, filled)
    assert again.report.cache == "written"
    assert [other.stat().st_ino for other in others] == written, "the others stay"
    (warning,) = again.report.warnings
    assert "made anew" in warning
    assert same(kept[0], again)
    assert load(tiny_folder, filled).report.cache == "read"


def test_a_checkpoint_that_was_written_anew_is_quantized_anew(folder: Path, cache: QuantizedCache) -> None:
    first = load(folder, cache)
    synthetic.write(synthetic.TINY, folder, seed=2)
    second = load(folder, cache)
    assert second.report.cache == "written"
    assert first.report.weights != second.report.weights
    assert same(second, load(folder, None))


def test_a_file_that_was_replaced_keeping_size_and_time_is_seen(folder: Path, cache: QuantizedCache) -> None:
    load(folder, cache)
    path = folder / "t3_cfg.safetensors"
    path = path if path.exists() else next(folder.glob("t3*.safetensors"))
    times = path.stat()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert load(folder, cache).report.cache == "written"


def test_the_same_content_elsewhere_finds_its_form(folder: Path, cache: QuantizedCache, tmp_path: Path) -> None:
    load(folder, cache)
    copied = Path(shutil.copytree(folder, tmp_path / "copied"))
    load(copied, cache)
    assert len(cached(cache)) == 3
    assert load(copied, cache).report.cache == "read"


def test_another_plan_is_another_file(folder: Path, cache: QuantizedCache) -> None:
    load(folder, cache)
    other = load(folder, cache, off=("vocoder.conv",))
    assert other.report.cache == "written"
    assert [len(list(cache.folder.glob(f"{of}-*"))) for of in ("t3", "flow", "vocoder")] == [1, 1, 2]
    assert load(folder, cache, off=("vocoder.conv",)).report.cache == "read"


def test_another_version_is_another_key(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(folder, None)
    before = caches.key("flow", model.spec, model.plan, "content")
    monkeypatch.setattr(tts, "__version__", "99.0")
    assert caches.key("flow", model.spec, model.plan, "content") != before


def test_a_full_disk_is_a_warning(folder: Path, cache: QuantizedCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(caches, "_write", full)
    model = load(folder, cache)
    assert model.report.cache == "not written"
    (warning,) = model.report.warnings
    assert "No space left on device" in warning
    assert "QUANTIZED_CACHE_DIR" in warning
    assert list(cache.folder.iterdir()) == []


def test_a_place_that_cannot_be_is_a_warning(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    model = load(folder, QuantizedCache(tmp_path / "file" / "quantized"))
    assert model.report.cache == "not written"
    assert len(model.report.warnings) == 1


def test_a_read_can_be_cancelled(folder: Path, cache: QuantizedCache) -> None:
    load(folder, cache)
    token = CancelToken()

    def stop(progress: Progress) -> None:
        if "from the cache" in progress.detail:
            token.cancel()

    spec, files = source.find(source=folder)
    with pytest.raises(Cancelled):
        engine.load(spec, files, "int8", HERE, observer=stop, cancel=token, cache=cache)
    assert load(folder, cache).report.cache == "read"


def test_only_a_few_files_are_kept(folder: Path, cache: QuantizedCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "_KEPT", 2)
    rows = ("t3.linear", "t3.head", "vocoder.conv")
    for row in rows:
        load(folder, cache, off=(row,))
    assert [len(list(cache.folder.glob(f"{of}-*"))) for of in ("t3", "flow", "vocoder")] == [caches._KEPT, 1, 2]
    assert load(folder, cache, off=("vocoder.conv",)).report.cache == "read"


def test_what_an_earlier_format_left_goes_and_what_is_not_ours_stays(folder: Path, cache: QuantizedCache) -> None:
    cache.folder.mkdir()
    old, theirs = (cache.folder / name for name in (f"english-{'0' * 32}.safetensors", "t3_cfg.safetensors"))
    old.touch()
    theirs.touch()
    load(folder, cache)
    assert not old.exists()
    assert theirs.exists()


def test_only_int8_is_kept(folder: Path, cache: QuantizedCache) -> None:
    spec, files = source.find(source=folder)
    assert engine.load(spec, files, "fp16", HERE, cache=cache).report.cache == "off"
    assert not cache.folder.exists()


def test_the_setting_switches_it_off(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTIZED_CACHE_DIR", str(tmp_path / "here"))
    monkeypatch.setenv("QUANTIZED_CACHE", "off")
    tts.unload()
    assert tts.load(source=tiny_folder, precision="int8").cache == "off"
    assert not (tmp_path / "here").exists()


def test_what_is_read_from_disk_speaks_the_same(tiny_folder: Path) -> None:
    tts.unload()
    assert tts.load(source=tiny_folder, precision="int8").cache == "written"
    first = tts.speak("Hello there.", seed=3)
    tts.unload()
    assert tts.load(source=tiny_folder, precision="int8").cache == "read"
    assert np.array_equal(first.samples, tts.speak("Hello there.", seed=3).samples)

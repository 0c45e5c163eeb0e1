"""Kernels of one machine share one copy of a model at int8: its weights are pages of the file that the cache keeps."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from chatterbox_nb.checkpoint import cache as caches
from chatterbox_nb.checkpoint import source
from chatterbox_nb.checkpoint.cache import QuantizedCache
from chatterbox_nb.engine import model as engine
from chatterbox_nb.engine import weights
from chatterbox_nb.engine.model import Model
from chatterbox_nb.engine.noise import StageNoise
from chatterbox_nb.engine.pipeline import Speaker
from chatterbox_nb.engine.sampling import Sampling
from chatterbox_nb.precision import device
from chatterbox_nb.precision.layers import Int8Linear, tensors_of

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
HERE = device.facts("cpu")


@pytest.fixture
def cache(tmp_path: Path) -> QuantizedCache:
    return QuantizedCache(tmp_path / "quantized")


def load(folder: Path, cache: QuantizedCache | None, kernel: str = "auto") -> Model:
    spec, files = source.find(source=folder)
    return engine.load(spec, files, "int8", HERE, kernel, cache=cache)


def spans(cache: QuantizedCache) -> list[range]:
    """Addresses at which this process has mapped the cache's files."""
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if str(cache.folder) in line:
            begin, end = line.split()[0].split("-")
            found.append(range(int(begin, 16), int(end, 16)))
    return found


def inside(found: dict[str, Tensor], cache: QuantizedCache) -> dict[str, bool]:
    """Whether each lies in the cache's file."""
    at = spans(cache)
    return {name: any(tensor.data_ptr() in span for span in at) for name, tensor in found.items()}


def tensors(model: Model) -> dict[str, Tensor]:
    """All of T3, flow and vocoder that is in the file; what was computed is not."""
    return {
        f"{component}.{name}": tensor
        for component, module in model.modules().items()
        for name, tensor in tensors_of(module).items()
    }


def stored(model: Model) -> dict[str, Tensor]:
    kept = {f"{component}.{name}" for component, module in model.modules().items() for name in module.state_dict()}
    return {name: tensor for name, tensor in tensors(model).items() if name in kept and tensor.numel()}


def files_of(cache: QuantizedCache) -> list[Path]:
    found = sorted(cache.folder.glob("*.safetensors"))
    assert [path.name.partition("-")[0] for path in found] == ["flow", "t3", "vocoder"]
    return found


def says(model: Model) -> tuple[tuple[int, ...], np.ndarray]:
    """Tokens and samples of a few words."""
    voice = model.builtin_voice()
    with torch.inference_mode():
        (chunk,) = Speaker(model, voice, Sampling(), 0.5, StageNoise(3), ["Hello there."], steps=2)
    return chunk.tokens, chunk.samples


@pytest.mark.parametrize("loads", [1, 2], ids=["as written", "as read"])
def test_every_weight_lies_in_the_file(tiny_folder: Path, cache: QuantizedCache, loads: int) -> None:
    """After the load that writes the file too: its own copy is given back."""
    for _ in range(loads):
        model = load(tiny_folder, cache)
    assert model.report.cache == ("written" if loads == 1 else "read")
    found = stored(model)
    assert any(tensor.dtype == torch.int8 and name.startswith("t3.") for name, tensor in found.items())
    assert [name for name, shared in inside(found, cache).items() if not shared] == []


def test_a_layer_gives_its_own_copy_back_when_it_gets_the_files(
    tiny_folder: Path, cache: QuantizedCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layer by layer: a whole second copy would be the most memory that a first load takes."""
    own: list[weakref.ref[Tensor]] = []
    alive: list[int] = []
    read = caches.read

    def watched(file: Any, module: Any, *rest: Any, **options: Any) -> None:
        own.extend(weakref.ref(layer.packed[0]) for layer in module.modules() if isinstance(layer, Int8Linear))

        def count(size: int) -> None:
            alive.append(sum(reference() is not None for reference in own))

        read(file, module, *rest, on_bytes=count, **options)

    monkeypatch.setattr(caches, "read", watched)
    assert load(tiny_folder, cache).report.cache == "written"
    assert own
    assert alive[-1] == 0
    assert any(0 < count < len(own) for count in alive)


@pytest.mark.more  # make classroom measures it with more
def test_two_processes_hold_it_once(tiny_folder: Path, cache: QuantizedCache) -> None:
    model = load(tiny_folder, cache)
    program = (
        "import sys; from pathlib import Path; from test_sharing import load; "
        "from chatterbox_nb.checkpoint.cache import QuantizedCache; "
        "model = load(Path(sys.argv[1]), QuantizedCache(Path(sys.argv[2]))); "
        "print(model.report.cache, flush=True); sys.stdin.read()"
    )
    arguments = [sys.executable, "-c", program, str(tiny_folder), str(cache.folder)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == "read"
        resident, proportional = _figures(cache)
        other.communicate("")
    assert sum(tensor.nbytes for tensor in stored(model).values()) <= 1.1 * resident
    assert proportional <= 0.6 * resident


def _figures(cache: QuantizedCache) -> tuple[int, int]:
    """Resident bytes of the mapped files, and this process's part of them."""
    found, ours = {"Rss": 0, "Pss": 0}, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            ours = str(cache.folder) in line
        elif ours and (part := re.match(r"(Rss|Pss): +(\d+) kB", line)):
            found[part[1]] += 1024 * int(part[2])
    return found["Rss"], found["Pss"]


def test_who_writes_to_a_weight_writes_to_a_copy(tiny_folder: Path, cache: QuantizedCache) -> None:
    load(tiny_folder, cache)
    one, other = load(tiny_folder, cache), load(tiny_folder, cache)
    before, kept = [path.read_bytes() for path in files_of(cache)], stored(other)
    as_it_was = {name: tensor.clone() for name, tensor in kept.items()}
    with torch.no_grad():
        for tensor in stored(one).values():
            tensor.zero_()
    assert [path.read_bytes() for path in files_of(cache)] == before
    assert all(torch.equal(tensor, as_it_was[name]) for name, tensor in kept.items())
    third = stored(load(tiny_folder, cache))
    assert all(torch.equal(tensor, as_it_was[name]) for name, tensor in third.items())


@pytest.mark.skipif(not HERE.vnni, reason="no VNNI")
def test_a_kernel_with_a_layout_of_its_own_shares_nothing(tiny_folder: Path, cache: QuantizedCache) -> None:
    for _ in range(2):
        model = load(tiny_folder, cache, "dynamic")
        assert spans(cache) == []
    assert model.report.cache == "read"


def test_mapped_and_read_are_the_same_to_the_bit(
    tiny_folder: Path, cache: QuantizedCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = load(tiny_folder, cache)
    monkeypatch.setattr(weights, "_shares", lambda planned: False)
    own = load(tiny_folder, cache)
    assert own.report.cache == "read"
    mine, theirs = tensors(shared), tensors(own)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())
    assert not any(inside(theirs, cache).values())
    (tokens, samples), (other_tokens, others) = says(shared), says(own)
    assert tokens == other_tokens
    assert np.array_equal(samples, others)


def test_the_file_may_be_removed_and_made_anew_while_it_is_used(tiny_folder: Path, cache: QuantizedCache) -> None:
    model = load(tiny_folder, cache)
    tokens, samples = says(model)
    for path in files_of(cache):
        cache.discard(path)
    assert load(tiny_folder, cache).report.cache == "written"
    for path in files_of(cache):
        path.unlink()
    again, others = says(model)
    assert again == tokens
    assert np.array_equal(others, samples)


def test_what_is_dropped_is_no_longer_mapped(tiny_folder: Path, cache: QuantizedCache) -> None:
    model = load(tiny_folder, cache)
    assert spans(cache)
    del model
    gc.collect()
    assert spans(cache) == []


@pytest.mark.parametrize(("folder", "file"), [(0o755, 0o644), (0o750, 0o640), (0o700, 0o600)], ids=oct)
def test_who_may_list_the_folder_may_read_the_file(
    tiny_folder: Path, cache: QuantizedCache, folder: int, file: int
) -> None:
    cache.folder.mkdir()
    cache.folder.chmod(folder)
    load(tiny_folder, cache)
    assert {path.stat().st_mode & 0o777 for path in files_of(cache)} == {file}

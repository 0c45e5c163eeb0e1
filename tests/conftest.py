"""What the tests share: the demo voice and a tiny random checkpoint, loaded once, on the real classes."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

# Set before torch is imported anywhere: small models are faster on one thread, and two test workers share two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"

import torch

# Where there is no GPU, Triton's kernels run in its interpreter; it asks when it is imported first.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from chatterbox_nb import manager
from chatterbox_nb.checkpoint import catalog, source, synthetic
from chatterbox_nb.checkpoint.source import Files
from chatterbox_nb.checkpoint.spec import ModelSpec
from chatterbox_nb.engine import model as engine
from chatterbox_nb.precision import device

if TYPE_CHECKING:
    from local_hub import LocalHub
    from shells import Kernel

SENTENCE = "The brown spring wants the orange street."
OTHER_SENTENCE = "Turn on the quick milk."
HERE = device.facts("cpu")
# Where Triton's kernels are tested: a GPU, or this machine, which interprets them.
GPU = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# The kernels that multiply a few rows with int8 weights, where this processor has them; and every kernel.
FAST_KERNELS = [
    pytest.param("int8pack", marks=pytest.mark.skipif(HERE.capability not in ("AVX2", "AVX512"), reason="no AVX2")),
    pytest.param("dynamic", marks=pytest.mark.skipif(not HERE.vnni, reason="no VNNI")),
]
KERNELS = ["plain", *FAST_KERNELS]


def pytest_collection_finish() -> None:
    """Every load and unload collects garbage, and would look through all that was imported here each time.

    What is frozen counts as in use: a test that something is gone can fail for it, and cannot pass for it.
    """
    gc.collect()
    gc.freeze()


@cache
def _demo(precision: str, kernel: str) -> engine.Model:
    spec, files = source.find("demo")
    return engine.load(spec, files, precision, device.facts("cpu"), kernel)


@pytest.fixture(scope="session")
def demo() -> Callable[..., engine.Model]:
    """`demo("int8")`, `demo("int8", "dynamic")`: the engine's model, without a manager, loaded once each."""
    return lambda precision="fp32", kernel="auto": _demo(precision, kernel)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random checkpoint in the real architecture. Read only."""
    return synthetic.tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> engine.Model:
    """The tiny checkpoint at fp32."""
    spec, files = source.find(source=tiny_folder)
    return engine.load(spec, files, "fp32", device.facts("cpu"))


@pytest.fixture(scope="session")
def multilingual_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random checkpoint of all languages. Read only."""
    return synthetic.write(synthetic.TINY_MULTILINGUAL, tmp_path_factory.mktemp("multilingual"))


@pytest.fixture(scope="session")
def multilingual(multilingual_folder: Path) -> engine.Model:
    """The same at fp32."""
    spec, files = source.find(source=multilingual_folder)
    return engine.load(spec, files, "fp32", device.facts("cpu"))


@pytest.fixture(scope="session")
def turbo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random checkpoint with turbo's GPT-2 and mean flow. Read only."""
    return synthetic.write(synthetic.TINY_TURBO, tmp_path_factory.mktemp("turbo"))


@pytest.fixture(scope="session")
def turbo(turbo_folder: Path) -> engine.Model:
    """The same at fp32."""
    spec, files = source.find(source=turbo_folder)
    return engine.load(spec, files, "fp32", device.facts("cpu"))


def _full(name: str, folder: str) -> engine.Model:
    """Random weights of a model's true size, at fp32; written once into out, up to 3.2 GB."""
    place = Path(__file__).parent.parent / "out" / folder
    spec, files = source.find(name, synthetic.kept_full(place, catalog.spec(name)))
    return engine.load(spec, files, "fp32", device.facts("cpu"))


@pytest.fixture(scope="session")
def full() -> engine.Model:
    return _full("english", "full")


@pytest.fixture(scope="module")
def full_turbo() -> engine.Model:
    return _full("turbo", "models/turbo")


@pytest.fixture(scope="module")
def full_nano() -> engine.Model:
    return _full("nano", "models/nano")


@pytest.fixture(scope="module")
def full_multilingual() -> engine.Model:
    return _full("multilingual-v3", "models/multilingual-v3")


def real_files(name: str) -> tuple[ModelSpec, Files]:
    """The published weights of a model; skips where the hub's cache has them not."""
    from chatterbox_nb.errors import SourceError

    try:
        return source.find(name)
    except SourceError as error:
        pytest.skip(f"the real checkpoint is not in the hub's cache: {error}")


def _real(name: str) -> engine.Model:
    spec, files = real_files(name)
    return engine.load(spec, files, "fp32", device.facts("cpu"))


@pytest.fixture(scope="session")
def english() -> engine.Model:
    """The real weights at fp32."""
    return _real("english")


@pytest.fixture(scope="module")
def real_turbo() -> engine.Model:
    return _real("turbo")


@pytest.fixture(scope="module")
def real_nano() -> engine.Model:
    return _real("nano")


@pytest.fixture(scope="module")
def real_multilingual() -> engine.Model:
    return _real("multilingual-v3")


@pytest.fixture
def loaded() -> Iterator[manager.Manager]:
    """The kernel's manager with the demo voice at int8, as a notebook would have it."""
    shared = manager.get()
    shared.load("demo", "int8").wait()
    yield shared


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """An IPython of its own with the extension loaded, one for each file of tests."""
    from shells import Kernel

    kernel = Kernel(tmp_path_factory.mktemp("ipython"))
    kernel.ok("%load_ext chatterbox_nb")
    yield kernel
    kernel.close()


@pytest.fixture
def nothing_open() -> Iterator[None]:
    """A notebook without takes; whatever panels are opened in it are closed, and the model has nothing left to do."""
    from panels import close_all

    import chatterbox_nb as tts

    tts.takes.clear()
    yield
    close_all()
    manager.get().submit("waiting", lambda job: None).wait()
    tts.takes.clear()


@pytest.fixture(scope="session")
def ran() -> Any:
    """A notebook with a panel that loads and speaks, as nbclient leaves it. Read only."""
    from saved import with_a_panel

    return with_a_panel()


@pytest.fixture
def online(server: LocalHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The hub's client speaks to the `server` of the file of tests that asks."""
    from local_hub import connected

    with connected(server, monkeypatch, tmp_path):
        yield


@pytest.fixture(name="cache")
def hub_cache(tmp_path: Path) -> Path:
    """A folder to download into, which is not there yet."""
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the library or the settings of whoever runs it."""
    from chatterbox_nb import settings

    for setting in settings.SETTINGS:
        monkeypatch.delenv(setting.variable, raising=False)
    monkeypatch.setattr(settings, "configured", {})
    monkeypatch.setenv("PYTHON_DOTENV_DISABLED", "1")
    monkeypatch.setenv("VOICE_LIBRARY_DIR", str(tmp_path / "voices"))
    monkeypatch.setenv("QUANTIZED_CACHE_DIR", str(tmp_path / "quantized"))

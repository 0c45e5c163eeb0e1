"""`.pt` files: what `torch.save` wrote is read as from a safetensors file, and what is no plain tensor is never run."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from chatterbox_nb.checkpoint import source
from chatterbox_nb.checkpoint.cache import QuantizedCache
from chatterbox_nb.checkpoint.tensorfile import DTYPES, PickledFile, TensorFile, open_tensors, read_all
from chatterbox_nb.engine import model as engine
from chatterbox_nb.engine.model import Model
from chatterbox_nb.errors import SourceError, TensorError
from chatterbox_nb.precision import device
from chatterbox_nb.precision.layers import tensors_of

HERE = device.facts("cpu")
FORMS = {"archive": True, "older": False}  # what torch.save writes, and what it wrote before torch 1.6


def some_tensors() -> dict[str, Tensor]:
    """Every dtype, and every shape that is special."""
    generator = torch.Generator().manual_seed(0)
    tensors = {
        f"of {name}": torch.randint(0, 2 if name == "BOOL" else 100, (3, 5), generator=generator).to(dtype)
        for name, dtype in DTYPES.items()
    }
    return {**tensors, "scalar": torch.tensor(2.5), "empty": torch.empty(0, 4), "größe": torch.ones(2, 1, 2, 1)}


@pytest.fixture(params=FORMS.values(), ids=FORMS.keys())
def save(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Any], Path]:
    """Writes a `.pt` in either form."""

    def write(content: Any) -> Path:
        torch.save(content, tmp_path / "some.pt", _use_new_zipfile_serialization=request.param)
        return tmp_path / "some.pt"

    return write


Save = Callable[[Any], Path]


def refusal(path: Path) -> str:
    """The one line that opening a file fails with: the file, what is wrong, the cure."""
    with pytest.raises(TensorError) as caught:
        open_tensors(path)
    message = str(caught.value)
    assert message.startswith(f"{path} is no whole file of plain tensors: ")
    assert message.endswith(f"Put {path.stem}.safetensors beside it, or delete it and load again.")
    assert "\n" not in message
    return message


# Reading


def test_every_tensor_that_torch_saved_is_read_back(save: Save) -> None:
    read = read_all(save(some_tensors()))
    assert read.keys() == some_tensors().keys()
    for name, tensor in some_tensors().items():
        assert (read[name].dtype, read[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(read[name], tensor)


def test_its_entries_are_those_of_a_safetensors_file_of_the_same_tensors(save: Save, tmp_path: Path) -> None:
    save_file(some_tensors(), tmp_path / "some.safetensors")
    with open_tensors(save(some_tensors())) as pickled, open_tensors(tmp_path / "some.safetensors") as plain:
        assert (type(pickled), type(plain)) == (PickledFile, TensorFile)
        assert pickled.entries == plain.entries
        assert pickled.metadata == {}


def test_bytes_read_in_the_files_order_are_those_of_a_safetensors_file(save: Save, tmp_path: Path) -> None:
    save_file(some_tensors(), tmp_path / "some.safetensors")
    digests = []
    for path in (save(dict(reversed(some_tensors().items()))), tmp_path / "some.safetensors"):
        digest = hashlib.sha256()
        with open_tensors(path, lambda name, data, digest=digest: digest.update(data)) as file:
            for name in sorted(file.entries, key=lambda name: file.entries[name].offset):
                file.read(name)
        digests.append(digest.hexdigest())
    assert digests[0] == digests[1]


def test_a_modules_state_dict_is_read(save: Save) -> None:
    norm = nn.BatchNorm1d(3)
    state = norm.state_dict()
    assert hasattr(state, "_metadata")
    read = read_all(save(state))
    assert all(torch.equal(read[name], tensor) for name, tensor in state.items())


def test_a_parameter_is_its_tensor(save: Save) -> None:
    read = read_all(save({"weight": nn.Parameter(torch.arange(6.0).view(2, 3))}))["weight"]
    assert type(read) is Tensor
    assert not read.requires_grad
    assert torch.equal(read, torch.arange(6.0).view(2, 3))


STRIDED: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda whole: whole.t(),
    "columns": lambda whole: whole[:, 1:3],
    "every other row": lambda whole: whole[1::2],
    "a row for all": lambda whole: whole[2:3].expand(4, 6),
    "its end": lambda whole: whole[-1],
}


@pytest.mark.parametrize("view", STRIDED.values(), ids=STRIDED.keys())
def test_a_view_is_read_contiguous_and_in_memory_of_its_own(save: Save, view: Callable[[Tensor], Tensor]) -> None:
    whole = torch.arange(24.0).view(4, 6)
    path = save({"view": view(whole)})
    with open_tensors(path) as file:
        read = file.read("view")
        assert file.entries["view"].length == read.untyped_storage().nbytes() == 4 * read.numel()
    assert read.is_contiguous()
    assert torch.equal(read, view(whole))


def test_tensors_that_share_a_storage_are_read_apart(save: Save) -> None:
    whole = torch.arange(24.0).view(4, 6)
    path = save({"whole": whole, "again": whole, "part": whole[2:]})
    assert path.stat().st_size < 3 * 96 + 2_000, "it is stored once"
    read = read_all(path)
    read["whole"].zero_()
    assert torch.equal(read["again"], whole)
    assert torch.equal(read["part"], whole[2:])


@pytest.mark.parametrize(
    "wrap",
    [lambda state: {"model": [state]}, lambda state: {"model": state}, lambda state: {"state_dict": state, "step": 3}],
    ids=["as the package takes T3", "model", "state_dict"],
)
def test_a_wrapped_state_dict_is_unwrapped(save: Save, wrap: Callable[[Any], Any]) -> None:
    assert torch.equal(read_all(save(wrap({"a": torch.ones(2)})))["a"], torch.ones(2))


def test_a_tensor_may_be_named_as_a_wrapper_is(save: Save) -> None:
    assert list(read_all(save({"model": torch.ones(2)}))) == ["model"]


def test_a_tensor_of_another_device_is_read_to_the_cpu(tmp_path: Path) -> None:
    """A pickle names the device that a storage was on; here one that nobody has."""
    torch.save({"a": torch.ones(2)}, tmp_path / "here.pt")
    with zipfile.ZipFile(tmp_path / "here.pt") as here, zipfile.ZipFile(tmp_path / "cuda.pt", "w") as there:
        for name in here.namelist():
            there.writestr(name, here.read(name).replace(b"X\3\0\0\0cpu", b"X\6\0\0\0cuda:7"))
    assert torch.equal(read_all(tmp_path / "cuda.pt")["a"], torch.ones(2))


# What is refused


class Command:
    """What a hostile pickle would run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("wrap", [lambda command: command, lambda command: {"a": torch.ones(2), "b": [command]}])
def test_code_in_a_file_is_never_run(save: Save, tmp_path: Path, wrap: Callable[[Any], Any]) -> None:
    message = refusal(save(wrap(Command(tmp_path / "ran"))))
    assert "it asks for what is no plain tensor, and nothing was run" in message
    assert not (tmp_path / "ran").exists()
    pickle.loads(pickle.dumps(Command(tmp_path / "ran")))
    assert (tmp_path / "ran").exists(), "the pickle itself must be able to"


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "a list": (lambda: [torch.ones(2)], "it holds the type list and no tensors by name"),
    "a tensor": (lambda: torch.ones(2), "it holds one tensor and no tensors by name"),
    "nothing": (lambda: None, "it holds the type NoneType and no tensors by name"),
    "a module": (lambda: nn.Linear(2, 2), "it asks for what is no plain tensor"),
    "a number": (lambda: {"a": torch.ones(2), "epoch": 3}, "'epoch' holds the type int and no tensor"),
    "a dict of dicts": (lambda: {"t3": {"a": torch.ones(2)}}, "'t3' holds the type dict and no tensor"),
    "a name that is none": (lambda: {1: torch.ones(2)}, "a name in it is the type int and no text"),
    "complex numbers": (lambda: {"a": torch.ones(2, dtype=torch.complex64)}, "'a' is torch.strided of torch.complex64"),
    "a sparse tensor": (lambda: {"a": torch.eye(2).to_sparse()}, "'a' is torch.sparse_coo of torch.float32"),
}


@pytest.mark.parametrize(("content", "what"), REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.filterwarnings("ignore:Sparse")
def test_what_is_no_dict_of_plain_tensors_is_told(save: Save, content: Callable[[], Any], what: str) -> None:
    assert what in refusal(save(content()))


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"version https://git-lfs.github.com/spec/v1", b"<html></html>"])
def test_what_torch_did_not_save_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "some.pt").write_bytes(content)
    refusal(tmp_path / "some.pt")


def test_a_plain_pickle_is_told(tmp_path: Path) -> None:
    (tmp_path / "some.pt").write_bytes(3 * pickle.dumps({"a": 1}))
    refusal(tmp_path / "some.pt")


def test_a_program_of_torchscript_is_told(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "some.pt", "w") as archive:
        archive.writestr("some/data.pkl", pickle.dumps({}))
        archive.writestr("some/constants.pkl", pickle.dumps(()))
    refusal(tmp_path / "some.pt")


def test_a_compressed_archive_is_told(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(200)}, tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(tmp_path / "some.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    refusal(tmp_path / "some.pt")


def test_a_missing_file_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"There is no file .*some.pt. Load again"):
        open_tensors(tmp_path / "some.pt")


@pytest.mark.parametrize("part", [0.01, 0.1, 0.3, 0.6, 0.9, 0.999])
def test_a_file_that_was_cut_off_is_told_before_a_tensor_is_read(save: Save, part: float) -> None:
    path = save(some_tensors())
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    refusal(path)


@settings(max_examples=150, deadline=None)
@given(place=st.integers(0, 1200), byte=st.integers(0, 255))
def test_a_byte_that_is_another_never_ends_in_another_error(
    place: int, byte: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "changed.pt"
    state = OrderedDict({"a": torch.ones(2, 3), "b": nn.Parameter(torch.ones(2)), "c": torch.ones(3).half()})
    torch.save(state, path, _use_new_zipfile_serialization=False)
    content = bytearray(path.read_bytes())
    content[place % len(content)] = byte
    path.write_bytes(content)
    try:
        read_all(path)
    except (TensorError, SourceError) as error:
        assert "\n" not in str(error)


# A checkpoint


@pytest.fixture(scope="module")
def twin(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint as the package's multilingual class leaves it in the hub's cache."""
    folder = Path(shutil.copytree(tiny_folder, tmp_path_factory.mktemp("twin") / "checkpoint"))
    for name in ("s3gen", "ve"):
        torch.save(load_file(folder / f"{name}.safetensors"), folder / f"{name}.pt")
        (folder / f"{name}.safetensors").unlink()
    return folder


def load(folder: Path, precision: str, cache: QuantizedCache | None = None) -> Model:
    spec, files = source.find(source=folder)
    return engine.load(spec, files, precision, HERE, cache=cache)


@pytest.fixture(scope="module")
def model(twin: Path) -> Model:
    return load(twin, "fp32")


def test_weights_from_either_make_the_same_model_and_report(tiny: Model, model: Model, twin: Path) -> None:
    assert model.files.path("s3gen").name == "s3gen.pt"
    for component, module in tiny.modules().items():
        theirs = tensors_of(model.modules()[component])
        for name, tensor in tensors_of(module).items():
            assert torch.equal(tensor, theirs[name]), name
    assert model.report.weights == tiny.report.weights, "the hash is of the tensors"
    assert model.report.rows == tiny.report.rows
    assert model.report.source == str(twin)


def test_encoders_from_either_are_the_same(tiny: Model, model: Model) -> None:
    mine, theirs = tiny.read_encoders().modules(), model.read_encoders().modules()
    for component, module in mine.items():
        found = tensors_of(theirs[component])
        assert all(torch.equal(tensor, found[name]) for name, tensor in tensors_of(module).items())


def test_the_int8_form_of_both_is_the_same_files(tiny_folder: Path, twin: Path, tmp_path: Path) -> None:
    cache = QuantizedCache(tmp_path / "quantized")
    assert load(tiny_folder, "int8", cache).report.cache == "written"
    kept = set(cache.folder.glob("*.safetensors"))
    load(twin, "int8", cache)
    assert set(cache.folder.glob("*.safetensors")) == kept


def test_of_both_the_safetensors_file_is_read(twin: Path, tiny_folder: Path, tmp_path: Path) -> None:
    both = Path(shutil.copytree(twin, tmp_path / "both"))
    shutil.copy(tiny_folder / "ve.safetensors", both)
    _, files = source.find(source=both)
    assert {path.name for path in files.paths.values()} >= {"ve.safetensors", "s3gen.pt"}

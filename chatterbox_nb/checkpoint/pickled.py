"""Which tensors a `.pt` of `torch.save` holds and where their numbers lie, without reading a number or running code.

A pickle is a program. Here its calls make nothing but records of what it says of each tensor: every name that it asks
for is looked up in a table of a few, and what is not in there is refused, as `torch.load(weights_only=True)` does. The
numbers lie behind the pickle, or beside it, as they are: `tensorfile` reads them one tensor at a time. `torch.load`
reads the whole file, or maps it, and mapped pages stay counted as the process's memory.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch

from chatterbox_nb.errors import SourceError, TensorError, summary

_STORAGES = {
    "LongStorage": torch.int64,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "IntStorage": torch.int32,
    "BFloat16Storage": torch.bfloat16,
    "HalfStorage": torch.float16,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_WRAPPERS = ("model", "state_dict")  # keys behind which programs that train put a state dict
_LONGEST_PICKLE = 100_000_000  # bytes; a state dict of thousands of tensors has half a million
_ZIP_MAGIC = b"PK\3\4"
_LOCAL_HEADER_BYTES = 30
_OLD_MAGIC = 0x1950A86A20F9469CFC6C  # what torch before 1.6 began a file with, which was no zip archive

_Records = dict[str, tuple[int, int]]  # a storage's key → where it begins in the file, and its length in bytes


@dataclass(frozen=True)
class Place:
    """Where a tensor lies: dtype, shape, steps between its numbers along each axis, offset in the file in bytes."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    @property
    def numbers(self) -> int:
        """From its first to its last, those in between that are not its own included."""
        if 0 in self.shape:
            return 0
        return 1 + sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))


class _Storage(NamedTuple):
    dtype: torch.dtype
    key: str


class _Tensor(NamedTuple):
    """What a pickle says of a tensor: not yet checked, since it may change what it made until it ends."""

    storage: Any
    offset: Any
    shape: Any
    stride: Any


class _Reader(pickle._Unpickler):
    """Unpickles a state dict with `_Tensor`s for tensors, and nothing else.

    It is the one in Python: that in C makes as much room as a file claims that it needs.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, torch.dtype] = {}
        # Methods of this reader, and no functions or classes: a pickle can set attributes of what it is given.
        self._known: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch._utils", "_rebuild_parameter"): self._parameter,
            **{("torch", name): dtype for name, dtype in _STORAGES.items()},
        }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no plain tensor, and nothing was run")
        return self._known[module, name]

    def persistent_load(self, what: Any) -> _Storage:
        kind, dtype, key, _location, _count, *view = what
        if kind != "storage" or any(part is not None for part in view) or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError("it holds something else than tensors")
        self.storages[key] = dtype
        return _Storage(dtype, key)

    def _tensor(
        self, storage: Any, offset: Any, shape: Any, stride: Any, _gradient: Any, _hooks: Any, metadata: Any = None
    ) -> _Tensor:
        if metadata:
            raise pickle.UnpicklingError(f"it holds a tensor that is more than its numbers ({metadata})")
        return _Tensor(storage, offset, shape, stride)

    def _parameter(self, tensor: Any, _gradient: Any, _hooks: Any) -> Any:
        return tensor


def places(path: Path) -> dict[str, Place]:
    """The tensors of a state dict by name, in the order it has them.

    Args:
        path: a zip archive or the older form; of `{name: tensor}`, or of `{"model": [...]}`, as the package itself
            takes T3, or `{"state_dict": ...}` around it.

    Raises:
        SourceError: there is no such file.
        TensorError: it is cut off, or holds code or anything but plain tensors.
    """
    problem = ""
    try:
        with path.open("rb") as file:
            size, zipped = path.stat().st_size, file.read(4) == _ZIP_MAGIC
            file.seek(0)
            root, records = _read_archive(file) if zipped else _read_old(file)
        if cut := next((key for key, (begin, length) in records.items() if begin + length > size), None):
            raise ValueError(f"it has {size} bytes, and its part {cut} ends at {sum(records[cut])}: it was cut off")
        return {name: _place(name, tensor, records) for name, tensor in _state_dict(root).items()}
    except FileNotFoundError:
        raise SourceError(f"There is no file {path}. Load again to fetch it, or name the right folder.") from None
    except (pickle.UnpicklingError, zipfile.BadZipFile, OSError, ValueError) as error:
        problem = " ".join(str(error).split()).rstrip(".")
    except Exception as error:  # a pickle that is none may make its reader raise anything
        problem = summary(error)
    raise TensorError(
        f"{path} is no whole file of plain tensors: {problem}. "
        f"Put {path.stem}.safetensors beside it, or delete it and load again."
    )


def _read_archive(file: BinaryIO) -> tuple[Any, _Records]:
    """What the pickle in a zip archive says, and the records beside it, which lie there as they are."""
    if not zipfile.is_zipfile(file):
        raise ValueError("it has no end, so it was cut off")
    with zipfile.ZipFile(file) as archive:
        listed = {info.filename: info for info in archive.infolist()}
        found = [name for name in listed if name.endswith("/data.pkl")]
        folder = found[0].removesuffix("data.pkl") if found else ""
        if len(found) != 1 or f"{folder}constants.pkl" in listed:
            raise ValueError("torch.save did not write it")
        order = f"{folder}byteorder"
        if order in listed and archive.read(order) != b"little":
            raise ValueError("its numbers have their highest byte first")
        if listed[found[0]].file_size > _LONGEST_PICKLE:
            raise ValueError(f"its list of tensors has {listed[found[0]].file_size} bytes")
        root = _Reader(io.BytesIO(archive.read(found[0]))).load()
    storages = {name: info for name, info in listed.items() if name.startswith(f"{folder}data/")}
    return root, {name.removeprefix(f"{folder}data/"): _record(file, info) for name, info in storages.items()}


def _record(file: BinaryIO, info: zipfile.ZipInfo) -> tuple[int, int]:
    """Where a record's bytes begin, and how many they are: behind a header of its own, with a name and padding."""
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise ValueError(f"its part {info.filename} is compressed or encrypted")
    file.seek(info.header_offset)
    header = file.read(_LOCAL_HEADER_BYTES)
    name_length, padding = struct.unpack("<HH", header[-4:])
    return info.header_offset + _LOCAL_HEADER_BYTES + name_length + padding, info.file_size


def _read_old(file: BinaryIO) -> tuple[Any, _Records]:
    """The older form: a magic number, a version, the machine, the state dict, the storages' keys, then the storages."""
    magic, _version, machine = (_Reader(file).load() for _ in range(3))
    if magic != _OLD_MAGIC:
        raise ValueError("torch.save did not write it")
    if not machine["little_endian"]:
        raise ValueError("its numbers have their highest byte first")
    reader = _Reader(file)
    root = reader.load()
    records = {}
    for key in _Reader(file).load():
        (count,) = struct.unpack("<q", file.read(8))
        records[key] = (file.tell(), count * reader.storages[key].itemsize)
        file.seek(sum(records[key]))
    return root, records


def _state_dict(root: Any) -> Mapping[Any, Any]:
    for key in _WRAPPERS:
        if isinstance(root, dict) and isinstance(root.get(key), (dict, list)):
            root = root[key]
            root = root[0] if isinstance(root, list) else root
    if not isinstance(root, dict):
        raise ValueError(f"it holds {_kind(root)} and no tensors by name")
    return root


def _place(name: Any, tensor: Any, records: _Records) -> Place:
    """Where a tensor lies, once what the pickle says of it is found to be possible."""
    if not isinstance(name, str):
        raise ValueError(f"a name in it is {_kind(name)} and no text")
    if not isinstance(tensor, _Tensor) or not isinstance(tensor.storage, _Storage):
        raise ValueError(f"'{name}' holds {_kind(tensor)} and no tensor")
    (dtype, key), shape, stride = tensor.storage, tuple(tensor.shape), tuple(tensor.stride)
    if not all(type(count) is int and count >= 0 for count in (tensor.offset, *shape, *stride)):
        raise ValueError(f"'{name}' has the shape {list(shape)} and the strides {list(stride)}")
    if key not in records:
        raise ValueError(f"the numbers of '{name}' are not in it")
    begin, length = records[key]
    place = Place(dtype, shape, stride, begin + tensor.offset * dtype.itemsize)
    if (tensor.offset + place.numbers) * dtype.itemsize > length:
        raise ValueError(f"'{name}' is {list(shape)} and lies in {length} bytes, so its end is missing")
    return place


def _kind(value: Any) -> str:
    return "one tensor" if isinstance(value, _Tensor) else f"the type {type(value).__name__}"

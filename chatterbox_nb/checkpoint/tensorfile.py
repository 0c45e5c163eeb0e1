"""A file of tensors, safetensors or a `.pt`, checked before it is trusted and read one tensor at a time.

`safetensors` maps the whole file, and every page it touches stays counted as this process's memory while the map
lives. `read` reads bytes straight into the tensor that keeps them, so that a load peaks one tensor above what stays.
`view` does map: for a file whose tensors are used as they are, by several processes.
The format: eight bytes of header length, a JSON header, the data.

One thing is our own: a matrix `NAME` [R, D] may stand beside `NAME.rows` [V], int16 or int32. Then row i of the
published tensor [V, D] is the stored row `rows[i]`: rows that are equal are stored once. Whoever opens the file sees
`NAME` [V, D] alone, put together when it is read; `read_all` gives the published tensors to those who know no rows.
"""

from __future__ import annotations

import json
import math
import mmap
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import torch
from torch import Tensor

from chatterbox_nb.checkpoint import pickled
from chatterbox_nb.errors import SourceError, TensorError, nearest
from chatterbox_nb.precision import huge

# In the order that `safetensors` writes them.
DTYPES = {
    "I64": torch.int64,
    "F64": torch.float64,
    "F32": torch.float32,
    "I32": torch.int32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
ROWS = ".rows"  # ends the name of what tells where each row is stored
_ROW_DTYPES = (torch.int16, torch.int32)
_LINE = 64  # bytes of the processor's cache
_LONGEST_HEADER = 100_000_000  # the format's own limit, in bytes


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies: dtype, shape, offset in the file and length in bytes, as it is read."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int
    length: int


@dataclass(frozen=True)
class _Shared:
    """A tensor whose equal rows are stored once: where they lie, and which of them each row is."""

    stored: Entry
    rows: Tensor


class TensorFile:
    """A safetensors file opened for reading; a context manager.

    Args:
        path: the file.
        on_read: given the name and the bytes of each tensor that is read; the bytes are the same whether its rows are
            shared or not.

    Raises:
        SourceError: the file is missing, truncated, or not safetensors, or its shared rows make no sense.
    """

    def __init__(self, path: Path, on_read: Callable[[str, memoryview], None] | None = None) -> None:
        self.path = path
        self._on_read = on_read
        self.entries, self._shared, self.metadata = self._header()
        self._file: BinaryIO = path.open("rb", buffering=0)
        self._map: mmap.mmap | None = None

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends reading; what was viewed stays."""
        self._file.close()

    def _header(self) -> tuple[dict[str, Entry], dict[str, _Shared], dict[str, str]]:
        return _read_header(self.path)

    def view(self, name: str) -> Tensor:
        """One tensor, mapped: every process that views it shares its memory, until one writes to it.

        One whose rows are shared is put together in memory of its own.
        """
        if name in self._shared:
            return self.read(name)
        if self._map is None:
            self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_COPY)
            huge.prefer(self._map)
        entry = self.entries[name]
        count = entry.length // entry.dtype.itemsize
        if not count:
            return torch.empty(entry.shape, dtype=entry.dtype)
        return torch.frombuffer(self._map, dtype=entry.dtype, count=count, offset=entry.offset).view(entry.shape)

    def read(self, name: str) -> Tensor:
        """One tensor, in the file's dtype, in memory of its own."""
        tensor = self._read(name)
        if self._on_read is not None:
            self._on_read(name, _data(tensor))
        return tensor

    def _read(self, name: str) -> Tensor:
        shared = self._shared.get(name)
        if shared is None:
            return self._stretch(name, self.entries[name])
        return self._stretch(name, shared.stored).index_select(0, shared.rows)

    def _stretch(self, name: str, entry: Entry) -> Tensor:
        raw = torch.empty(entry.length, dtype=torch.uint8)
        if not _read_into(self._file, entry, raw):
            raise SourceError(f"{self.path} ended while '{name}' was read. Delete it and load again.")
        return raw.view(entry.dtype).view(entry.shape)


class PickledFile(TensorFile):
    """A `.pt` of `torch.save`, opened for reading as a safetensors file is.

    Its entries are those of a safetensors file with the same tensors. So they are read in the same order from either,
    and the weights' hash is the same.

    Raises:
        SourceError: there is no such file.
        TensorError: it is cut off, or holds anything but plain tensors.
    """

    def _header(self) -> tuple[dict[str, Entry], dict[str, _Shared], dict[str, str]]:
        self._tensors = pickled.tensors(self.path, DTYPE_NAMES)
        listed = [(name, DTYPE_NAMES[tensor.dtype], tuple(tensor.shape)) for name, tensor in self._tensors.items()]
        header, order = make_header(listed)
        lengths = {name: DTYPES[kind].itemsize * math.prod(shape) for name, kind, shape in listed}
        offsets = accumulate((lengths[name] for name in order), initial=len(header))
        entries = {
            name: Entry(self._tensors[name].dtype, tuple(self._tensors[name].shape), offset, lengths[name])
            for name, offset in zip(order, offsets, strict=False)
        }
        return entries, {}, {}

    def __exit__(self, *reason: Any) -> None:
        super().__exit__(*reason)
        self._tensors = {}  # and so the map

    def view(self, name: str) -> Tensor:
        """The same as `read`."""
        return self.read(name)

    def _read(self, name: str) -> Tensor:
        return self._tensors[name].clone(memory_format=torch.contiguous_format)


def open_tensors(path: Path, on_read: Callable[[str, memoryview], None] | None = None) -> TensorFile:
    """Opens a file of tensors by its name: a `.pt`, or a safetensors file.

    Args and errors: those of `TensorFile` and `PickledFile`.
    """
    return (PickledFile if path.suffix == ".pt" else TensorFile)(path, on_read)


def read_all(path: Path) -> dict[str, Tensor]:
    """Every tensor of a file as it is published: what the package itself can load, once it is saved again."""
    with open_tensors(path) as file:
        return {name: file.read(name) for name in file.entries}


def _data(tensor: Tensor) -> memoryview:
    return tensor.flatten().view(torch.uint8).numpy().data


def _read_into(file: BinaryIO, entry: Entry, raw: Tensor) -> bool:
    """Fills bytes from the file; False when it ends before."""
    view, done = _data(raw), 0
    file.seek(entry.offset)
    while done < entry.length:
        count = file.readinto(view[done:])  # type: ignore[attr-defined]
        if not count:
            return False
        done += count
    return True


def _read_header(path: Path) -> tuple[dict[str, Entry], dict[str, _Shared], dict[str, str]]:
    problem = ""
    try:
        size = path.stat().st_size
        if size < 8:
            raise ValueError(f"it has only {size} bytes")
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(_LONGEST_HEADER, size - 8):
                raise ValueError(f"its header claims {length} of its {size} bytes")
            header = json.loads(file.read(length))
            metadata = dict(header.pop("__metadata__", None) or {})
            entries = {name: _entry(name, info, 8 + length) for name, info in header.items()}
            if (end := _end(entries, 8 + length)) != size:
                cut = ", so it was cut off" if size < end else ""
                raise ValueError(f"it has {size} bytes and should have {end}{cut}")
            shared = _companions(file, entries)
        return _published(entries, shared), shared, metadata
    except FileNotFoundError:
        raise SourceError(f"There is no file {path}. Load again to fetch it, or name the right folder.") from None
    except (OSError, struct.error, ValueError, TypeError, AttributeError, RecursionError) as error:
        problem = str(error)
    raise SourceError(f"{path} is not a whole safetensors file: {problem}. Delete it and load again.")


def _entry(name: str, info: dict, start: int) -> Entry:
    if lacking := {"dtype", "shape", "data_offsets"} - info.keys():
        raise ValueError(f"'{name}' has no {', '.join(sorted(lacking))}")
    if info["dtype"] not in DTYPES:
        raise ValueError(f"'{name}' is {info['dtype']}, which is none of {', '.join(DTYPES)}")
    begin, end = info["data_offsets"]
    dtype, shape = DTYPES[info["dtype"]], tuple(info["shape"])
    if not all(type(count) is int and count >= 0 for count in (begin, end, *shape)):
        raise ValueError(f"'{name}' has the shape {list(shape)} from byte {begin} to {end}")
    wanted = dtype.itemsize
    for size in shape:
        wanted *= size
    if end - begin != wanted:
        raise ValueError(f"'{name}' takes {end - begin} bytes and its shape {list(shape)} needs {wanted}")
    return Entry(dtype, shape, start + begin, wanted)


def _end(entries: dict[str, Entry], start: int) -> int:
    """Where the last tensor ends. They must lie one after another: no byte is shared, none is nobody's."""
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].offset, item[1].length)):
        if entry.offset != start:
            raise ValueError(f"'{name}' begins at byte {entry.offset}, and the one before it ends at {start}")
        start += entry.length
    return start


def _companions(file: BinaryIO, entries: Mapping[str, Entry]) -> dict[str, _Shared]:
    """The tensors that have a companion. Companions are small: they are read, and checked, when a file is opened."""
    found = {}
    for companion, entry in entries.items():
        name = companion.removesuffix(ROWS)
        if name == companion:
            continue
        if name not in entries:
            raise ValueError(f"'{companion}' tells the rows of '{name}', which is not there")
        found[name] = _Shared(entries[name], _rows(file, companion, entry, entries[name].shape))
    return found


def _rows(file: BinaryIO, name: str, entry: Entry, stored: tuple[int, ...]) -> Tensor:
    """Which stored row each row is: int32, [V]."""
    if entry.dtype not in _ROW_DTYPES:
        raise ValueError(f"'{name}' is {DTYPE_NAMES[entry.dtype]}, and rows are numbered in I16 or I32")
    if len(entry.shape) != 1 or len(stored) != 2:
        raise ValueError(f"'{name}' is {list(entry.shape)} for a tensor {list(stored)}, and should be [V] for [R, D]")
    raw = torch.empty(entry.length, dtype=torch.uint8)
    if not _read_into(file, entry, raw):
        raise ValueError(f"it ended while '{name}' was read")
    rows = raw.view(entry.dtype).int()
    if wrong := rows[(rows < 0) | (rows >= stored[0])].tolist():
        raise ValueError(f"'{name}' names row {wrong[0]} of {stored[0]}")
    return rows


def _published(entries: Mapping[str, Entry], shared: Mapping[str, _Shared]) -> dict[str, Entry]:
    """The entries without companions, each with the shape it is read in."""
    found = {name: entry for name, entry in entries.items() if not name.endswith(ROWS)}
    for name, item in shared.items():
        stored = item.stored
        shape = (len(item.rows), stored.shape[1])
        found[name] = Entry(stored.dtype, shape, stored.offset, stored.dtype.itemsize * math.prod(shape))
    return found


def share_rows(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix with each distinct row once, for `save`.

    Args:
        tensor: [V, D]. Rows are the same when their bits are.

    Returns:
        The distinct rows [R, D] in the order they first stand in, and which of them each row is: [V], int16 where
        that can count them, else int32. `stored[rows.int()]` is the tensor.

    Raises:
        TensorError: it is no matrix.
    """
    if tensor.ndim != 2:
        raise TensorError(f"Only a matrix can share rows, and this tensor is {list(tensor.shape)}.")
    first: dict[bytes, int] = {}  # a row's bits → where it first stands
    bits = tensor.detach().cpu().contiguous().view(torch.uint8).numpy()
    places = [first.setdefault(row.tobytes(), place) for place, row in enumerate(bits)]
    number = {place: count for count, place in enumerate(first.values())}
    dtype = torch.int16 if len(first) <= torch.iinfo(torch.int16).max + 1 else torch.int32
    stored = tensor[torch.tensor(list(number), dtype=torch.int64)]
    return stored, torch.tensor([number[place] for place in places], dtype=dtype)


def save(
    path: Path, tensors: Mapping[str, Tensor], shared: Iterable[str] = (), metadata: Mapping[str, str] | None = None
) -> None:
    """Writes a safetensors file.

    Args:
        path: overwritten if it is there.
        tensors: by published name, in the dtypes they are to have.
        shared: the names of those whose equal rows are stored once.

    Raises:
        TensorError: a shared name is not among the tensors or no matrix, or a name ends as companions do.
        OSError.
    """
    parts = dict(tensors)
    if reserved := [name for name in parts if name.endswith(ROWS)]:
        raise TensorError(f"'{reserved[0]}' cannot be saved: names that end in {ROWS} tell where rows are stored.")
    for name in shared:
        if name not in tensors:
            raise TensorError(f"There is no tensor '{name}' whose rows could be shared.{nearest(name, tensors)}")
        parts[name], parts[name + ROWS] = share_rows(tensors[name])
    listed = [(name, DTYPE_NAMES[tensor.dtype], tuple(tensor.shape)) for name, tensor in parts.items()]
    header, order = make_header(listed, metadata)
    with path.open("wb") as file:
        file.write(header)
        for name in order:
            file.write(_data(parts[name].detach().cpu()))


def make_header(
    tensors: list[tuple[str, str, tuple[int, ...]]], metadata: Mapping[str, str] | None = None, aligned: bool = False
) -> tuple[bytes, list[str]]:
    """The header, length included, and the names in the order their data follows: by dtype, then name.

    Args:
        aligned: tensors of whole cache lines come first, and so begin at one.
    """
    dtypes = list(DTYPES)

    def place(tensor: tuple[str, str, tuple[int, ...]]) -> tuple[bool, int, str]:
        name, dtype, shape = tensor
        partial = aligned and DTYPES[dtype].itemsize * math.prod(shape) % _LINE > 0
        return partial, dtypes.index(dtype), name

    ordered = sorted(tensors, key=place)
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name, dtype, shape in ordered:
        length = DTYPES[dtype].itemsize
        for size in shape:
            length *= size
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + length]}
        offset += length
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(8 + len(text)) % (_LINE if aligned else 8))
    return struct.pack("<Q", len(text)) + text, [name for name, _, _ in ordered]

"""A safetensors file, checked before it is trusted and read one tensor at a time.

`safetensors` maps the whole file, and every page it touches stays counted as this process's memory while the map
lives. `read` reads bytes straight into the tensor that keeps them, so that a load peaks one tensor above what stays.
`view` does map: for a file whose tensors are used as they are, by several processes.
The format: eight bytes of header length, a JSON header, the data.
"""

from __future__ import annotations

import json
import math
import mmap
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import torch
from torch import Tensor

from chatterbox_nb.errors import SourceError
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
_LINE = 64  # bytes of the processor's cache
_LONGEST_HEADER = 100_000_000  # the format's own limit, in bytes


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies: dtype, shape, offset in the file and length in bytes."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int
    length: int


class TensorFile:
    """A safetensors file opened for reading; a context manager.

    Args:
        path: the file.
        on_bytes: told how many bytes each read took.

    Raises:
        SourceError: the file is missing, truncated, or not safetensors.
    """

    def __init__(self, path: Path, on_bytes: Callable[[bytes | memoryview], None] | None = None) -> None:
        self.path = path
        self._on_bytes = on_bytes
        self.entries, self.metadata = _read_header(path)
        self._file: BinaryIO = path.open("rb", buffering=0)
        self._map: mmap.mmap | None = None

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def view(self, name: str) -> Tensor:
        """One tensor, mapped: every process that views it shares its memory, until one writes to it."""
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
        entry = self.entries[name]
        raw = torch.empty(entry.length, dtype=torch.uint8)
        view = memoryview(raw.numpy().data) if entry.length else memoryview(b"")
        self._file.seek(entry.offset)
        done = 0
        while done < entry.length:
            count = self._file.readinto(view[done:])  # type: ignore[attr-defined]
            if not count:
                raise SourceError(f"{self.path} ended while '{name}' was read. Delete it and load again.")
            done += count
        if self._on_bytes is not None:
            self._on_bytes(view)
        return raw.view(entry.dtype).view(entry.shape)


def _read_header(path: Path) -> tuple[dict[str, Entry], dict[str, str]]:
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
        end = _end(entries, 8 + length)
        if end == size:
            return entries, metadata
        problem = f"it has {size} bytes and should have {end}" + (", so it was cut off" if size < end else "")
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

"""The quantized form of a model on disk: int8 is quantized once, and read as int8 from then on.

One safetensors file for each content × spec × plan × version, whose header names its key and a checksum of its data.
What is not whole, not ours or not of this key is never trusted: it is removed, and made anew from the checkpoint.

Content is known by hash, and a hash takes as long as a load. So, as git's index does, a small note remembers the hash
of files by their path, size, times and inode; a file that was touched is read again.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor, nn

from chatterbox_nb import events
from chatterbox_nb.checkpoint.catalog import ModelSpec
from chatterbox_nb.checkpoint.source import Files
from chatterbox_nb.checkpoint.tensorfile import DTYPE_NAMES, DTYPES, TensorFile, make_header
from chatterbox_nb.errors import TensorError
from chatterbox_nb.events import CancelToken, Observer, Progress
from chatterbox_nb.precision.layers import finish
from chatterbox_nb.precision.plan import Plan

_FORMAT = "2"  # of these files; a change of how numbers are quantized, or of their names, is a new one
_KEPT = 4  # files of this many models and plans; the ones used longest ago go


class QuantizedCache:
    """A folder of quantized models. Nothing here fails a load: what cannot be read or written is told in words."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def content(self, files: Files) -> str | None:
        """The SHA-256 of a checkpoint that was read before and has not been touched since."""
        with suppress(OSError):
            return self._note(files).read_text(encoding="ascii").strip() or None
        return None

    def path(self, spec: ModelSpec, planned: Plan, content: str) -> Path:
        """Where a model's quantized form is, or would be."""
        return self.folder / f"{spec.name}-{key(spec, planned, content)[:32]}.safetensors"

    def remember(self, files: Files, content: str) -> None:
        """Notes the hash of a checkpoint's files. Raises OSError."""
        note = self._note(files)
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(content, encoding="ascii")

    def write(self, spec: ModelSpec, planned: Plan, content: str, modules: Mapping[str, nn.Module]) -> None:
        """Keeps the modules' tensors. Raises OSError, and leaves no part of a file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        target = self.path(spec, planned, content)
        handle, name = tempfile.mkstemp(dir=self.folder, prefix=".writing-")
        part = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                _write(file, modules, key(spec, planned, content))
            part.chmod(0o600 | (self.folder.stat().st_mode & 0o044))  # whoever may list the folder may share it
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        by_age = sorted(self.folder.glob("*.safetensors"), key=lambda path: path.stat().st_atime, reverse=True)
        for old in [path for path in by_age if path != target][_KEPT - 1 :]:
            old.unlink(missing_ok=True)

    def discard(self, path: Path) -> None:
        """Removes what turned out not to be usable."""
        with suppress(OSError):
            path.unlink()

    def _note(self, files: Files) -> Path:
        stamp = json.dumps([list(map(str, entry)) for entry in files.stamp])
        return self.folder / "known" / hashlib.sha256(stamp.encode()).hexdigest()[:32]


def key(spec: ModelSpec, planned: Plan, content: str) -> str:
    """Tells apart everything that decides the bytes: the weights, the spec, how each row is stored, the version."""
    from chatterbox_nb import __version__

    rows = [(row.name, row.storage) for row in planned.rows if row.component in ("t3", "flow", "vocoder")]
    parts = [_FORMAT, __version__, spec.to_json(), rows, content]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _tensors(modules: Mapping[str, nn.Module]) -> Iterator[tuple[str, Tensor]]:
    """Every stored tensor, by `component.name`, a layer at a time: packed weights are unpacked as they come."""
    for component, module in modules.items():
        for name, layer in module.named_modules():
            own: dict[str, Tensor] = {}
            layer._save_to_state_dict(own, f"{component}.{name}." if name else f"{component}.", False)
            yield from own.items()


def _write(out: BinaryIO, modules: Mapping[str, nn.Module], key: str) -> None:
    """Header, then each tensor at its place; the header again, with the checksums, once they are known."""
    listed = [(name, DTYPE_NAMES[tensor.dtype], tuple(tensor.shape)) for name, tensor in _tensors(modules)]
    metadata = {"chatterbox_nb": _FORMAT, "key": key, "checksum": "0" * 8}
    header, order = make_header(listed, metadata, aligned=True)
    lengths = {name: DTYPES[kind].itemsize * math.prod(shape) for name, kind, shape in listed}
    offsets = dict(zip(order, accumulate((lengths[name] for name in order), initial=len(header)), strict=False))
    sums: dict[str, int] = {}
    for name, tensor in _tensors(modules):
        data = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
        out.seek(offsets[name])
        out.write(data)
        sums[name] = zlib.crc32(data)
    out.seek(0)
    out.write(make_header(listed, {**metadata, "checksum": _combined(sums)}, aligned=True)[0])


def _combined(sums: Mapping[str, int]) -> str:
    return f"{zlib.crc32(json.dumps(sorted(sums.items())).encode()):08x}"


def read(
    path: Path,
    key: str,
    modules: Mapping[str, nn.Module],
    device: torch.device,
    observer: Observer = events.ignore,
    cancel: CancelToken | None = None,
    shared: bool = False,
) -> None:
    """Fills modules, converted by the plan, from the cache.

    Args:
        shared: tensors are views of the file: all processes that do so hold it in memory once.

    Raises:
        CheckpointError: the file is missing, cut off, damaged, of another key, or holds other tensors. The modules are
            of no use then.
    """
    wanted = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in _tensors(modules)}
    with TensorFile(path) as file:
        if file.metadata.get("key") != key:
            raise TensorError(f"{path} is of another model, plan or version.")
        if {name: (entry.shape, entry.dtype) for name, entry in file.entries.items()} != wanted:
            raise TensorError(f"{path} holds other tensors than this model has.")
        total = sum(entry.length for entry in file.entries.values())
        done, sums = 0, {}
        for module in modules.values():
            module.requires_grad_(False)
        for name, entry in sorted(file.entries.items(), key=lambda item: item[1].offset):
            if cancel is not None:
                cancel.check()
            tensor = file.view(name) if shared else file.read(name)
            sums[name] = zlib.crc32(tensor.flatten().view(torch.uint8).numpy().data)
            component, _, rest = name.partition(".")
            layer, _, last = rest.rpartition(".")
            own = {last: tensor.to(device)}
            modules[component].get_submodule(layer).load_state_dict(own, strict=False, assign=True)
            done += entry.length
            observer(Progress("weights", done, total, fraction=done / total, detail=f"{component}, from the cache"))
        if file.metadata.get("checksum") != _combined(sums):
            raise TensorError(f"{path} is damaged: its checksum is another.")
    for module in modules.values():
        finish(module)

"""The quantized form of components on disk: int8 is quantized once, and read as int8 from then on.

One safetensors file for each content × sizes × plan × version of a component, whose header names its key and a checksum
of its data: models that share a component share its file. What is not whole, not ours or not of this key is never
trusted: it is removed, and made anew from the checkpoint.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import re
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor, nn

from chatterbox_nb.checkpoint import content
from chatterbox_nb.checkpoint.content import Contents
from chatterbox_nb.checkpoint.spec import ModelSpec
from chatterbox_nb.checkpoint.tensorfile import DTYPE_NAMES, DTYPES, TensorFile, make_header
from chatterbox_nb.errors import TensorError
from chatterbox_nb.events import CancelToken
from chatterbox_nb.precision.layers import finish
from chatterbox_nb.precision.plan import Plan

_FORMAT = "3"  # of these files; a change of how numbers are quantized, or of their names, is a new one
_KEPT = 4  # files of each component; the ones used longest ago go
_COMPONENTS = ("t3", "flow", "vocoder")
_OURS = re.compile(r"(.+)-[0-9a-f]{32}\.safetensors")


class QuantizedCache:
    """A folder of quantized components. Nothing here fails a load: what cannot be read or written is told in words."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def note(self, state: str) -> Contents | None:
        """What a file in this state (`content.state`) is known to hold."""
        with suppress(OSError, ValueError):
            found = json.loads(self._note(state).read_text(encoding="ascii"))
            return found if isinstance(found, dict) else None
        return None

    def remember(self, state: str, contents: Contents) -> None:
        """Notes what a file in this state holds. Raises OSError."""
        note = self._note(state)
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps(dict(contents)), encoding="ascii")

    def path(self, component: str, key: str) -> Path:
        """Where a component's quantized form is, or would be."""
        return self.folder / f"{component}-{key[:32]}.safetensors"

    def write(self, component: str, key: str, module: nn.Module) -> None:
        """Keeps a module's tensors. Raises OSError, and leaves no part of a file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        target = self.path(component, key)
        handle, name = tempfile.mkstemp(dir=self.folder, prefix=".writing-")
        part = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                _write(file, module, key)
            part.chmod(0o600 | (self.folder.stat().st_mode & 0o044))  # whoever may list the folder may share it
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        self._clean(component, target)

    def _clean(self, component: str, newest: Path) -> None:
        """Removes a component's files that were used longest ago, and what an earlier format left."""
        ours = {path: match[1] for path in self.folder.iterdir() if (match := _OURS.fullmatch(path.name))}
        for path in [path for path, of in ours.items() if of not in _COMPONENTS]:
            path.unlink(missing_ok=True)
        same = [path for path, of in ours.items() if of == component and path != newest]
        for old in sorted(same, key=lambda path: path.stat().st_atime, reverse=True)[_KEPT - 1 :]:
            old.unlink(missing_ok=True)

    def discard(self, path: Path) -> None:
        """Removes what turned out not to be usable."""
        with suppress(OSError):
            path.unlink()

    def _note(self, state: str) -> Path:
        return self.folder / "known" / state


def key(component: str, spec: ModelSpec, planned: Plan, digest: str) -> str:
    """Tells apart everything that decides a component's bytes: its weights, sizes, how each row is stored, the version.

    Args:
        digest: of its content.
    """
    from chatterbox_nb import __version__

    rows = [(row.name, row.storage) for row in planned.rows if row.component == component]
    parts = [_FORMAT, __version__, component, content.dims(component, spec), rows, digest]
    return hashlib.sha256(json.dumps(parts, default=dataclasses.asdict).encode()).hexdigest()


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every stored tensor, a layer at a time: packed weights are unpacked as they come."""
    for name, layer in module.named_modules():
        own: dict[str, Tensor] = {}
        layer._save_to_state_dict(own, f"{name}." if name else "", False)
        yield from own.items()


def _write(out: BinaryIO, module: nn.Module, key: str) -> None:
    """Header, then each tensor at its place; the header again, with the checksums, once they are known."""
    listed = [(name, DTYPE_NAMES[tensor.dtype], tuple(tensor.shape)) for name, tensor in _tensors(module)]
    metadata = {"chatterbox_nb": _FORMAT, "key": key, "checksum": "0" * 8}
    header, order = make_header(listed, metadata, aligned=True)
    lengths = {name: DTYPES[kind].itemsize * math.prod(shape) for name, kind, shape in listed}
    offsets = dict(zip(order, accumulate((lengths[name] for name in order), initial=len(header)), strict=False))
    sums: dict[str, int] = {}
    for name, tensor in _tensors(module):
        data = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
        out.seek(offsets[name])
        out.write(data)
        sums[name] = zlib.crc32(data)
    out.seek(0)
    out.write(make_header(listed, {**metadata, "checksum": _combined(sums)}, aligned=True)[0])


def _combined(sums: Mapping[str, int]) -> str:
    return f"{zlib.crc32(json.dumps(sorted(sums.items())).encode()):08x}"


def opened(path: Path, key: str, module: nn.Module) -> TensorFile:
    """A file of the cache, of this key and with the tensors that the module, converted by the plan, has.

    Raises:
        CheckpointError: it is missing, cut off, of another key, or holds other tensors.
    """
    file = TensorFile(path)
    wanted = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in _tensors(module)}
    problem = ""
    if file.metadata.get("key") != key:
        problem = "is of another model, plan or version."
    elif {name: (entry.shape, entry.dtype) for name, entry in file.entries.items()} != wanted:
        problem = "holds other tensors than this model has."
    if problem:
        file.close()
        raise TensorError(f"{path} {problem}")
    return file


def read(
    file: TensorFile,
    module: nn.Module,
    device: torch.device,
    on_bytes: Callable[[int], None] = lambda count: None,
    cancel: CancelToken | None = None,
    shared: bool = False,
) -> None:
    """Fills a module from the cache.

    Args:
        file: `opened` for it.
        on_bytes: told the bytes of each tensor that was read.
        shared: tensors are views of the file: all processes that do so hold it in memory once.

    Raises:
        CheckpointError: the file is cut off or damaged. The module is of no use then.
    """
    sums = {}
    module.requires_grad_(False)
    for name, entry in sorted(file.entries.items(), key=lambda item: item[1].offset):
        if cancel is not None:
            cancel.check()
        tensor = file.view(name) if shared else file.read(name)
        sums[name] = zlib.crc32(tensor.flatten().view(torch.uint8).numpy().data)
        layer, _, last = name.rpartition(".")
        module.get_submodule(layer).load_state_dict({last: tensor.to(device)}, strict=False, assign=True)
        on_bytes(entry.length)
    if file.metadata.get("checksum") != _combined(sums):
        raise TensorError(f"{file.path} is damaged: its checksum is another.")
    finish(module)

"""What a component's tensors are, known by hash; and which state of a file is known to hold what.

A component's content is the SHA-256 of the tensors that a load reads of it: of their names, types, shapes and data,
wherever they lie. So two checkpoints that share a component are seen to.

To hash takes as long as to load. So, as git's index does, a note remembers what a file held, by its path, size, times
and inode; a file that was touched is read again. A note with no component says that the file was checked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from chatterbox_nb.checkpoint.source import Files
from chatterbox_nb.checkpoint.spec import ModelSpec
from chatterbox_nb.precision.plan import TensorInfo

if TYPE_CHECKING:
    from chatterbox_nb.checkpoint.tensorfile import Entry

Contents = Mapping[str, str]  # component → the hash of its tensors


class Sums:
    """The SHA-256 of each tensor that is read, by name. Give it to `TensorFile`."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}

    def __call__(self, name: str, data: memoryview) -> None:
        self.found[name] = hashlib.sha256(data).hexdigest()

    def of(self, component: str, tensors: Iterable[TensorInfo], entries: Mapping[str, Entry]) -> str:
        """The hash of a component, all of whose tensors were read."""
        names = sorted(sources(component, tensors))
        parts = [(name, str(entries[name].dtype), entries[name].shape, self.found[name]) for name in names]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def sources(component: str, tensors: Iterable[TensorInfo]) -> list[str]:
    """The published names that a load of the component reads."""
    return [tensor.name for tensor in tensors if tensor.component == component and tensor.used and tensor.file]


def dims(component: str, spec: ModelSpec) -> tuple[Any, ...]:
    """The sizes that decide a component: two models whose others differ share it all the same."""
    if component == "vocoder":
        return spec.s3gen.vocoder_width, spec.s3gen.f0_width, spec.sample_rate
    return (spec.t3 if component == "t3" else spec.s3gen,)


def of_model(contents: Contents) -> str:
    """The hash of a model: of its components' hashes."""
    return hashlib.sha256(json.dumps(sorted(contents.items())).encode()).hexdigest()


def state(spec: ModelSpec, files: Files, role: str, tensors: Iterable[TensorInfo]) -> str:
    """Names a state of a file, and what it is expected to hold: what a note is found by. Empty where there is none."""
    try:
        stamp = list(map(str, files.stamp_of(role)))
    except OSError:  # whoever opens it says so
        return ""
    name = spec.file(role).name
    listed = [(tensor.name, tensor.shape, tensor.component, tensor.used) for tensor in tensors if tensor.file == name]
    return hashlib.sha256(json.dumps([stamp, listed]).encode()).hexdigest()[:32]

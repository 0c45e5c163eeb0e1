"""How a model's components come in: from memory, where another model has them; from the quantized cache; or from the
checkpoint.

`look` finds out what is known of the checkpoint's files and what of them is in memory, `come_in` does the rest. What
came from memory is used as it is and not changed: another model may be using it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from chatterbox_nb.checkpoint import cache as caches
from chatterbox_nb.checkpoint import content, loader, reference
from chatterbox_nb.checkpoint.cache import QuantizedCache
from chatterbox_nb.checkpoint.content import Contents, Sums
from chatterbox_nb.checkpoint.source import Files
from chatterbox_nb.checkpoint.spec import ModelSpec
from chatterbox_nb.checkpoint.tensorfile import TensorFile, open_tensors
from chatterbox_nb.engine import assembly, compiling, store, vocoder
from chatterbox_nb.engine.assembly import RESIDENT, Fills, Modules
from chatterbox_nb.engine.store import Kind, Store
from chatterbox_nb.errors import CheckpointError
from chatterbox_nb.events import CancelToken, Observer, Progress
from chatterbox_nb.precision.plan import Plan, TensorInfo

if TYPE_CHECKING:
    from chatterbox_nb.engine.model import Prepared

# What is hashed to find out whether it is in memory already. To hash costs less than a third of what reading and
# converting does, and is in vain when the answer is no: T3 is a model's own, and found only where a note knows it.
_LOOKED_FOR = ("flow", "vocoder")


@dataclass(frozen=True)
class Known:
    """What is known of a checkpoint before it is read.

    Args:
        kinds: component → what it is by the plan.
        states: role → the state of its file, which notes are found by.
        contents: component → the hash of its tensors, where a note knows it or it was worth finding out.
        found: the components that are in memory, held from here on.
    """

    kinds: Mapping[str, Kind]
    states: Mapping[str, str]
    contents: Contents
    found: Modules


def look(
    spec: ModelSpec,
    files: Files,
    tensors: Sequence[TensorInfo],
    planned: Plan,
    shared: Store,
    cache: QuantizedCache | None,
    cancel: CancelToken | None,
) -> Known:
    """What is known of a checkpoint's files; those that are not are held against the inventory.

    Args:
        shared: the components in memory.
        cache: whose notes are read too.

    Raises:
        CheckpointError, Cancelled.
    """
    tiled = compiling.tiles_attention(planned, spec.s3gen)
    kinds = {component: store.kind(component, spec, planned, tiled) for component in RESIDENT}
    states = {role: content.state(spec, files, role, tensors) for role in assembly.TENSOR_FILES}
    notes: dict[str, Contents] = {}
    for role, state in states.items():
        note = shared.notes.get(state)
        if note is None and cache is not None:
            note = cache.note(state)
        if note is None:
            wanted = [one for one in _LOOKED_FOR if RESIDENT[one] == role and shared.has(kinds[one])]
            sums = Sums()
            with open_tensors(files.path(role), sums) as file:
                check(file, role, spec, tensors)
                if wanted:
                    note = _hashed(file, sums, wanted, tensors, cancel)
        if note is not None:
            notes[role] = note
    digests = {one: digest for role, note in notes.items() for one, digest in note.items() if RESIDENT.get(one) == role}
    found = {component: shared.get(kinds[component], digest) for component, digest in digests.items()}
    return Known(kinds, states, digests, {component: module for component, module in found.items() if module})


def bytes_of(planned: Plan, components: Iterable[str]) -> int:
    """Bytes of the tensors of some components, by the plan."""
    wanted = set(components)
    return sum(row.resident_bytes for row in planned.rows if row.component in wanted)


def check(file: TensorFile, role: str, spec: ModelSpec, tensors: Iterable[TensorInfo]) -> None:
    """Holds a file's header against the inventory. Raises TensorError."""
    name = spec.file(role).name
    loader.check_file(file, [tensor for tensor in tensors if tensor.file == name], spec.optional)


def _hashed(
    file: TensorFile, sums: Sums, components: Iterable[str], tensors: Sequence[TensorInfo], cancel: CancelToken | None
) -> Contents:
    found = {}
    for component in components:
        for name in content.sources(component, tensors):
            if cancel is not None:
                cancel.check()
            file.read(name)
        found[component] = sums.of(component, tensors, file.entries)
    return found


class _Told:
    """Tells how far the weights are, by the bytes that are read of files.

    Args:
        total: bytes that are read in this go.
        parts: what of all the weights was there before it, and will be after it.
    """

    def __init__(self, observer: Observer, total: int, parts: tuple[float, float]) -> None:
        self._observer, self._total, self._parts, self._done = observer, total, parts, 0

    def __call__(self, count: int, detail: str) -> None:
        self._done += count
        before, after = self._parts
        fraction = before + (after - before) * self._done / self._total
        self._observer(Progress("weights", self._done, self._total, fraction=fraction, detail=detail))


def come_in(prepared: Prepared, warnings: list[str]) -> tuple[Modules, Fills, Contents, str]:
    """Modules with their weights, how they are filled, the hashes of their contents, and what the cache did.

    Raises:
        CheckpointError, PrecisionError, Cancelled.
    """
    spec, planned, known = prepared.spec, prepared.plan, prepared.known
    with prepared.phase("weights"):
        modules, fills = _assembled(prepared)
        modules.update(known.found)
        lacking = [component for component in modules if component not in known.found]
        read = _from_cache(prepared, modules, lacking, warnings)
    made = [component for component in lacking if component not in read]
    contents = dict(known.contents)
    if made:
        contents |= _from_checkpoint(prepared, modules, fills, made, _part(prepared, read, lacking))
    if "vocoder" in lacking:
        vocoder.own_constants(modules["vocoder"], spec.sample_rate, planned.device)
    how = _keep(prepared, modules, made, contents, warnings)
    for component in lacking:
        prepared.store.put(known.kinds[component], contents[component], modules[component])
    prepared.store.notes.update(_notes(known, contents))
    return modules, fills, contents, how if lacking else "not needed"


def _assembled(prepared: Prepared) -> tuple[Modules, Fills]:
    return assembly.assemble(prepared.spec, prepared.built, prepared.tensors, prepared.plan, prepared.device)


def _notes(known: Known, contents: Contents) -> dict[str, Contents]:
    """State of a file → what it holds; of one that no component in memory comes from, that it was checked."""
    return {
        state: {component: contents[component] for component, of in RESIDENT.items() if of == role}
        for role, state in known.states.items()
    }


def _part(prepared: Prepared, components: Iterable[str], of: Iterable[str]) -> float:
    """What some of the components are of others, by their bytes."""
    whole = bytes_of(prepared.plan, of)
    return bytes_of(prepared.plan, components) / whole if whole else 1.0


def _from_cache(prepared: Prepared, modules: Modules, lacking: Sequence[str], warnings: list[str]) -> list[str]:
    """Fills the components whose quantized form is on disk, and names them; one that is spoiled is made anew."""
    cache, contents = prepared.cache, prepared.known.contents
    if cache is None:
        return []
    keys = {one: _key(prepared, one, contents[one]) for one in lacking if one in contents}
    paths = {one: path for one, key in keys.items() if (path := cache.path(one, key)).exists()}
    total = sum(path.stat().st_size for path in paths.values())
    told, read = _Told(prepared.phase.observer, total, (0.0, _part(prepared, paths, lacking))), []
    for component, path in paths.items():
        problem = ""
        try:
            with caches.opened(path, keys[component], modules[component]) as file:
                _read(prepared, component, file, modules, told)
        except CheckpointError as error:
            problem = str(error)
        if not problem:
            read.append(component)
            continue
        cache.discard(path)
        warnings.append(f"The quantized form on disk was not used and is made anew: {problem}")
        prepared.built = reference.build(prepared.spec)
        modules[component] = _assembled(prepared)[0][component]
    return read


def _key(prepared: Prepared, component: str, digest: str) -> str:
    return caches.key(component, prepared.spec, prepared.plan, digest)


def _read(prepared: Prepared, component: str, file: TensorFile, modules: Modules, told: _Told) -> None:
    def on_bytes(count: int) -> None:
        told(count, f"{component}, from the cache")

    on_bytes(min(entry.offset for entry in file.entries.values()))  # the header
    device, cancel = torch.device(prepared.plan.device), prepared.phase.cancel
    caches.read(file, modules[component], device, on_bytes, cancel, _shares(prepared.plan))


def _shares(planned: Plan) -> bool:
    """Whether int8 weights are used as they lie in the cache, so that all kernels of a machine map the same memory."""
    return planned.device == "cpu" and planned.kernel != "dynamic" and os.name == "posix"


def _from_checkpoint(
    prepared: Prepared, modules: Modules, fills: Fills, made: Sequence[str], before: float
) -> dict[str, str]:
    """Fills components from the checkpoint's files, and returns the hashes of what was read."""
    phase, roles = prepared.phase, sorted({RESIDENT[component] for component in made})
    sums = {role: Sums() for role in roles}
    with ExitStack() as stack:
        with phase("check"):
            opened = {role: stack.enter_context(open_tensors(prepared.files.path(role), sums[role])) for role in roles}
            for role, file in opened.items():
                check(file, role, prepared.spec, prepared.tensors)
        with phase("weights"):
            total = sum(assembly.length(fills[one], opened[RESIDENT[one]]) for one in made)
            told = _Told(phase.observer, total, (before, 1.0))
            parts = {component: modules[component] for component in made}
            assembly.fill(parts, fills, opened, prepared.plan.device, told, phase.cancel)
    return {one: sums[RESIDENT[one]].of(one, prepared.tensors, opened[RESIDENT[one]].entries) for one in made}


def _keep(prepared: Prepared, modules: Modules, made: Sequence[str], contents: Contents, warnings: list[str]) -> str:
    """Keeps on disk what was made, and notes what the files hold. What the cache did."""
    cache = prepared.cache
    if cache is None:
        return "off"
    try:
        if made:
            with prepared.phase("cache"):
                for component in made:
                    _write(prepared, cache, component, modules[component], contents[component])
        for state, held in _notes(prepared.known, contents).items():
            if cache.note(state) != held:
                cache.remember(state, held)
        return "written" if made else "read"
    except OSError as error:
        reason = error.strerror or str(error)
    warnings.append(
        f"The int8 form was not kept in {cache.folder} ({reason}); the next load quantizes again. "
        "Free some space, or set QUANTIZED_CACHE_DIR."
    )
    return "not written"


def _write(prepared: Prepared, cache: QuantizedCache, component: str, module: nn.Module, digest: str) -> None:
    """Keeps a component; where kernels share it, its own copy is given back for the file's, layer by layer."""
    key = _key(prepared, component, digest)
    cache.write(component, key, module)
    if _shares(prepared.plan):
        with caches.opened(cache.path(component, key), key, module) as file:
            caches.read(file, module, torch.device("cpu"), shared=True)

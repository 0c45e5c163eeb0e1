"""Where a checkpoint's files are: embedded in the package, in a folder, in the hub's cache, or fetched from the hub.

Checked before anything is loaded: that every file is there. That each is whole, `tensorfile` and the hub check.
Weights may lie as `NAME.pt` where `NAME.safetensors` is absent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chatterbox_nb import events
from chatterbox_nb.checkpoint import catalog
from chatterbox_nb.checkpoint.catalog import DEMO_FOLDER
from chatterbox_nb.checkpoint.spec import ModelSpec
from chatterbox_nb.errors import SourceError, nearest
from chatterbox_nb.events import CancelToken, Observer

_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# A voice is not needed to load a model, only to speak without naming a clip.
OPTIONAL_ROLES = ("voice",)


@dataclass(frozen=True)
class Files:
    """The files of one checkpoint.

    Args:
        origin: for people: "embedded", a folder, `repo@revision`.
        paths: role → file.
        warnings: what the user should know of them, such as another licence than expected.
    """

    origin: str
    paths: Mapping[str, Path]
    warnings: tuple[str, ...] = ()

    def has(self, role: str) -> bool:
        return role in self.paths

    def path(self, role: str) -> Path:
        return self.paths[role]

    @property
    def stamp(self) -> tuple[tuple[Any, ...], ...]:
        """Tells one state of the files from another: role, path, size, times and inode of each."""
        return tuple((role, *self.stamp_of(role)) for role in sorted(self.paths))

    def stamp_of(self, role: str) -> tuple[Any, ...]:
        """The same of one file: path, size, times and inode. Raises OSError."""
        path = self.paths[role]
        stat = path.stat()
        return path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def find(
    model: str = "demo",
    source: str | Path | None = None,
    cache: Path | None = None,
    token: str | None = None,
    observer: Observer = events.ignore,
    cancel: CancelToken | None = None,
) -> tuple[ModelSpec, Files]:
    """The spec and the files of a model.

    Args:
        model: a name of the catalog.
        source: a folder, which must have every file, or a hub repo `owner/name`, or None for the model's own repo. A
            file that the spec has in another repo comes from there, unless the named repo has it.
        cache: where downloads are kept; the hub's own cache if None.
        token: for private repos; otherwise the one `hf auth login` stored.
        observer, cancel: told of a download; may stop it.

    Raises:
        CheckpointError: no such model, folder or repo, or a file is missing; names the file and the cure.
    """
    if source is not None and (folder := _folder(source)) is not None:
        spec = catalog.read_spec(folder) if catalog.carries_spec(folder) else catalog.spec(model)
        return spec, in_folder(spec, folder, str(folder))
    spec = catalog.spec(model)
    if source is None and spec.repo is None:
        return spec, in_folder(spec, DEMO_FOLDER, "embedded")
    from chatterbox_nb.checkpoint import hub

    return spec, hub.fetch(spec, str(source or spec.repo), cache, token, observer, cancel)


def _folder(source: str | Path) -> Path | None:
    """The folder that a source means, or None when it is a repo."""
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        raise SourceError(f"{path} is a file. Name the folder that holds the checkpoint's files.")
    if isinstance(source, str) and _REPO_ID.fullmatch(source) and not source.startswith((".", "~")):
        return None
    near = nearest(path.name, [entry.name for entry in path.parent.iterdir()]) if path.parent.is_dir() else ""
    raise SourceError(f"There is no folder {path}, and it is no hub repo 'owner/name' either.{near}")


def in_folder(spec: ModelSpec, folder: Path, origin: str) -> Files:
    """The files of a spec in a folder.

    Raises:
        SourceError: one is missing.
    """
    paths = {}
    for file in spec.files:
        path = next((folder / name for name in file.names if (folder / name).is_file()), None)
        if path is not None:
            paths[file.role] = path
        elif file.role not in OPTIONAL_ROLES:
            there = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
            elsewhere = f" from {file.repo}" if file.repo else ""
            raise SourceError(
                f"{folder} has no {file.name}, which {spec.name} needs{elsewhere}.{nearest(file.name, there)} "
                f"Needed: {', '.join(entry.name for entry in spec.files)}."
            )
    return Files(origin, paths)

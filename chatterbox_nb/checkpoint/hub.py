"""Checkpoints from the Hugging Face hub, into its own cache.

What is cached is used without asking the network. What is missing is announced first: size, licence, free disk. A
download tells its progress, stops when cancelled, and goes on where it stopped: the hub's client starts a broken file
anew, so the bytes are fetched here and handed to its cache, which then links them.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from chatterbox_nb.checkpoint.source import OPTIONAL_ROLES, Files
from chatterbox_nb.checkpoint.spec import FileSpec, ModelSpec
from chatterbox_nb.errors import SourceError
from chatterbox_nb.events import CancelToken, Observer, Progress

_CHUNK = 1 << 20
_SPARE_DISK_BYTES = 200_000_000
_TRIES = 4
_PATIENCE_SECONDS = 30.0  # for an answer, and between two pieces of one


def fetch(
    spec: ModelSpec, repo: str, cache: Path | None, token: str | None, observer: Observer, cancel: CancelToken | None
) -> Files:
    """The files of a model, from the cache or the network; those of one repo all of one commit.

    Args:
        repo: the model's own, or another: then files that the spec has elsewhere come from there only where this repo
            does not have them.

    Raises:
        SourceError: offline, no such repo, no access, a file missing, no room, or a download that broke.
    """
    import huggingface_hub as hf
    import huggingface_hub.constants  # its submodules are there once somebody imports them
    import huggingface_hub.utils

    place = _Place(hf, spec, Path(cache or hf.constants.HF_HUB_CACHE), token)
    named = repo != spec.repo
    parts = [place.look(repo, [file for file in spec.files if named or file.repo in (None, repo)])]
    elsewhere: dict[str, list[FileSpec]] = {}
    for file in spec.files:
        if file.repo not in (None, repo) and file.role not in parts[0].roles:
            elsewhere.setdefault(file.repo, []).append(file)
    parts += [place.look(other, files) for other, files in elsewhere.items()]
    _download(place, parts, observer, cancel)
    paths = {role: path for part in parts for role, path in part.paths.items()}
    warnings = tuple(warning for part in parts for warning in _licence_warnings(part, spec))
    return Files(f"{repo}@{paths['t3'].parent.name[:7]}", paths, warnings)


@dataclass
class _Part:
    """What one repo has of a model, of one commit.

    Args:
        folder: the repo's, in the cache.
        paths: role → a file that is in the cache.
        absent: those that are not and can be fetched, by the names the repo has them under.
        info: what the hub says of the repo, where it was asked.
    """

    repo: str
    folder: Path
    paths: dict[str, Path]
    absent: list[FileSpec] = field(default_factory=list)
    info: Any = None

    @property
    def roles(self) -> set[str]:
        return {*self.paths, *(file.role for file in self.absent)}

    @property
    def entries(self) -> dict[str, Any]:
        return {entry.rfilename: entry for entry in self.info.siblings or ()}

    @property
    def licence(self) -> str | None:
        return getattr(self.info.card_data, "license", None)

    @property
    def total_bytes(self) -> int:
        """Of what is to be fetched."""
        return sum(self.entries[file.name].size or 0 for file in self.absent)

    @property
    def held_bytes(self) -> int:
        """Of that, what is on the disk already."""
        return sum(_held_bytes(self.folder / "blobs", self.entries[file.name]) for file in self.absent)


@dataclass(frozen=True)
class _Place:
    """A cache and the hub behind it, where the files of a model are looked for."""

    hf: Any
    spec: ModelSpec
    cache: Path
    token: str | None

    def look(self, repo: str, files: list[FileSpec]) -> _Part:
        """What a repo has of these files. The hub is asked only for what the cache cannot tell.

        Raises:
            SourceError: a file is missing that has to be here, or the hub was needed and cannot be asked.
        """
        from huggingface_hub.file_download import repo_folder_name

        hf = self.hf
        _ask(lambda: hf.utils.validate_repo_id(repo), repo)
        spare = {file.role for file in files if file.role in OPTIONAL_ROLES or file.repo not in (None, repo)}
        part = _Part(repo, self.cache / repo_folder_name(repo_id=repo, repo_type="model"), {})
        part.paths, unknown = self._cached(repo, files, spare, "main")
        if not unknown:
            return part
        lacking = [file.name for file in unknown if file.role not in spare]
        try:
            if hf.constants.HF_HUB_OFFLINE:
                raise SourceError(
                    f"HF_HUB_OFFLINE is set and {self.cache} lacks {', '.join(lacking)} of {repo}. Unset it and load "
                    f"once with a network, or name a folder: %tts_load {self.spec.name} --source FOLDER"
                )
            api = hf.HfApi(token=self.token)
            part.info = _ask(lambda: api.model_info(repo, files_metadata=True, timeout=_PATIENCE_SECONDS), repo)
        except SourceError:
            if lacking:
                raise
            return part  # only what can be done without, or may be elsewhere, was never fetched
        # The repo may have moved on since a part of it was cached: all files are taken from one commit.
        part.paths, unknown = self._cached(repo, files, spare, part.info.sha)
        for file in unknown:
            name = next((name for name in file.names if name in part.entries), None)
            if name is not None:
                part.absent.append(replace(file, name=name))
            elif file.role not in spare:
                raise SourceError(self._lacks(repo, file))
            else:  # noted where the hub's cache notes it, so that nobody asks again
                for name in file.names:
                    _touch(part.folder / ".no_exist" / part.info.sha / name)
        return part

    def _cached(
        self, repo: str, files: list[FileSpec], spare: set[str], revision: str
    ) -> tuple[dict[str, Path], list[FileSpec]]:
        """What the cache has of a revision, role → file, and the files it cannot tell of."""
        paths: dict[str, Path] = {}
        unknown: list[FileSpec] = []
        for file in files:
            found = [
                self.hf.try_to_load_from_cache(repo, name, cache_dir=self.cache, revision=revision)
                for name in file.names
            ]
            path = next((entry for entry in found if isinstance(entry, str)), None)
            if path is not None:
                paths[file.role] = Path(path)
            elif None in found or file.role not in spare:  # the cache also knows what a repo does not have
                unknown.append(file)
        return paths, unknown

    def _lacks(self, repo: str, file: FileSpec) -> str:
        if file.repo is None:
            return f"{repo} has no {file.name}, which {self.spec.name} needs. Is it the right repo for this model?"
        return (
            f"{repo} has no {file.name}, which {self.spec.name} takes from there. Put it into a folder with the other "
            f"files: %tts_load {self.spec.name} --source FOLDER"
        )


def _download(place: _Place, parts: list[_Part], observer: Observer, cancel: CancelToken | None) -> None:
    """Fetches what is absent, of all repos as one download, into the parts' paths."""
    asked = [part for part in parts if part.info is not None]
    fetched = [part for part in asked if part.absent]
    total = sum(part.total_bytes for part in fetched)
    if fetched:
        _check_disk(place.cache, fetched)
        announced = (
            f"{part.repo}, {part.total_bytes / 1e9:.2f} GB, licence {part.licence or 'unknown'}" for part in fetched
        )
        observer(Progress("download", 0, total, detail="; ".join(announced)))
    download = _Download(place, total, observer, cancel)
    for part in fetched:
        for file in part.absent:
            part.paths[file.role] = download.fetch(part, file)
    for part in asked:
        _remember_main(part.folder, part.info.sha)


def _ask(call: Any, repo: str) -> Any:
    """Asks the hub, and turns what goes wrong into one line."""
    import httpx
    from huggingface_hub import errors

    try:
        return call()
    except errors.GatedRepoError:
        problem = f"{repo} asks for your consent first. Accept it on its page, then run: hf auth login"
    except errors.RepositoryNotFoundError:
        problem = f"The hub has no repo {repo} that you may read. Check the name; for a private one run: hf auth login"
    except errors.HFValidationError as error:
        problem = f"'{repo}' is no name of a repo ({str(error).rstrip('.')}). Check it."
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        mend = "Try again later."
        if status in (401, 403):
            mend = "Your token does not open it; for another one run: hf auth login"
        problem = f"The hub answered {status} for {repo}. {mend}"
    except (errors.LocalEntryNotFoundError, httpx.HTTPError, OSError) as error:
        problem = (
            f"The hub cannot be reached ({type(error).__name__}). Try again with a network, or name a folder with the "
            "files: --source FOLDER"
        )
    except (ValueError, KeyError, TypeError) as error:  # a login page in between, or a mirror that is none
        problem = (
            f"What answered for {repo} is not the hub ({type(error).__name__}). Check HF_ENDPOINT and the network, or "
            "name a folder with the files: --source FOLDER"
        )
    raise SourceError(problem)


def _licence_warnings(part: _Part, spec: ModelSpec) -> tuple[str, ...]:
    """Told where the hub was asked, and of a repo that something is taken from."""
    if part.info is None or part.licence == spec.licence or not part.paths:
        return ()
    named = part.licence or "none named"
    return (f"{part.repo} is under the licence '{named}', not {spec.licence}. Check that you may use it.",)


def _check_disk(cache_dir: Path, parts: list[_Part]) -> None:
    total = sum(part.total_bytes - part.held_bytes for part in parts)
    place = next(folder for folder in (cache_dir, *cache_dir.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    if free < total + _SPARE_DISK_BYTES:
        need = "needs" if len(parts) == 1 else "together need"
        raise SourceError(
            f"{' and '.join(part.repo for part in parts)} {need} {total / 1e9:.2f} GB on disk and {place} has "
            f"{free / 1e9:.2f} GB free. Free some, or set MODEL_CACHE_DIR to a larger disk."
        )


def _held_bytes(blobs: Path, entry: Any) -> int:
    """Bytes of a file that are on the disk already, whole or in part."""
    etag = entry.lfs.sha256 if entry.lfs else entry.blob_id
    return next((path.stat().st_size for path in (blobs / f"{etag}", blobs / f"{etag}.part") if path.exists()), 0)


def _touch(path: Path) -> None:
    """Makes an empty file and the folders around it."""
    problem = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        problem = error.strerror or type(error).__name__
    if problem:
        raise SourceError(f"{path.parent} cannot be written to ({problem}). Set MODEL_CACHE_DIR to a folder of yours.")


@dataclass
class _Download:
    """Fetches files into the hub's cache, and tells of all of them together."""

    place: _Place
    total: int
    observer: Observer
    cancel: CancelToken | None
    done: int = 0

    def tell(self, file: FileSpec, more: int = 0) -> None:
        done = self.done + more
        self.observer(Progress("download", done, self.total, fraction=done / max(1, self.total), detail=file.name))

    def fetch(self, part: _Part, file: FileSpec) -> Path:
        """One file: its bytes to where the cache looks for them, then the cache's own link to them."""
        from filelock import FileLock

        hf, token, repo, revision = self.place.hf, self.place.token, part.repo, part.info.sha
        url = hf.hf_hub_url(repo, file.name, revision=revision)
        meta = _ask(lambda: hf.get_hf_file_metadata(url, token=token), repo)
        if meta.etag is None or meta.size is None:
            raise SourceError(f"What answered for {repo} tells no size or ETag of {file.name}. Check HF_ENDPOINT.")
        blob = part.folder / "blobs" / meta.etag
        begun = blob.with_name(f"{meta.etag}.part")
        lock = blob.with_name(f"{meta.etag}.part.lock")
        _touch(lock)
        with FileLock(lock):  # of two kernels, the second finds what the first fetched
            if blob.exists():
                begun.unlink(missing_ok=True)
            else:
                _touch(begun)  # not before: what the first fetched may have been wrong, and deleted
                self._fill(begun, meta, file)
                _verify(begun, meta, file)
                begun.rename(blob)
        path = _ask(
            lambda: hf.hf_hub_download(repo, file.name, revision=revision, cache_dir=self.place.cache, token=token),
            repo,
        )
        self.done += meta.size
        self.tell(file)
        return Path(path)

    def _fill(self, part: Path, meta: Any, file: FileSpec) -> None:
        """Goes on from where a broken download stopped."""
        for attempt in range(1, _TRIES + 1):
            have = part.stat().st_size
            if have >= meta.size:
                break
            problem = ""
            try:
                self._stream(part, meta, have, file)
            except OSError as error:
                problem = f"{type(error).__name__}: {error}"
            got = part.stat().st_size
            if got < meta.size and attempt == _TRIES:
                raise SourceError(
                    f"The download of {file.name} broke at {got / 1e9:.2f} of {meta.size / 1e9:.2f} GB "
                    f"({problem or 'cut off'}). Load again: it goes on from there."
                )

    def _stream(self, part: Path, meta: Any, have: int, file: FileSpec) -> None:
        import httpx

        headers = {"Accept-Encoding": "identity"}  # a part of a compressed file is no part of the file
        if have:
            headers["Range"] = f"bytes={have}-"
        # A token is for the hub alone.
        if urlsplit(meta.location).netloc == urlsplit(self.place.hf.constants.ENDPOINT).netloc:
            headers |= self.place.hf.utils.build_hf_headers(token=self.place.token)
        problem = ""
        try:
            with httpx.stream(
                "GET", meta.location, headers=headers, follow_redirects=True, timeout=_PATIENCE_SECONDS
            ) as answer:
                if answer.status_code not in (200, 206):
                    raise ConnectionError(f"HTTP {answer.status_code}")
                resumed = answer.status_code == 206
                done = have if resumed else 0
                with part.open("ab" if resumed else "wb") as out:
                    for data in answer.iter_bytes(_CHUNK):
                        if self.cancel is not None:
                            self.cancel.check()
                        out.write(data)
                        done += len(data)
                        self.tell(file, done)
        except httpx.HTTPError as error:
            problem = str(error) or type(error).__name__
        if problem:
            raise ConnectionError(problem)


def _verify(part: Path, meta: Any, file: FileSpec) -> None:
    """Large files are named by their SHA-256; a file of another content is thrown away."""
    size = part.stat().st_size
    problem = "" if size == meta.size else f"has {size} bytes of {meta.size}"
    if not problem and len(meta.etag) == 64:
        digest = hashlib.sha256()
        with part.open("rb") as data:
            while block := data.read(_CHUNK):
                digest.update(block)
        problem = "" if digest.hexdigest() == meta.etag else "has another SHA-256 than the hub announced"
    if problem:
        part.unlink()
        raise SourceError(f"{file.name} {problem}. It was deleted; load again.")


def _remember_main(folder: Path, revision: str) -> None:
    """Files were asked for by commit; the next load looks for `main`."""
    ref = folder / "refs" / "main"
    ref.parent.mkdir(parents=True, exist_ok=True)
    ref.write_text(revision)

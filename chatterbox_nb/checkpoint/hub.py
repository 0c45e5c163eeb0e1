"""Checkpoints from the Hugging Face hub, into its own cache.

What is cached is used without asking the network. What is missing is announced first: size, licence, free disk. A
download tells its progress, stops when cancelled, and goes on where it stopped: the hub's client starts a broken file
anew, so the bytes are fetched here and handed to its cache, which then links them.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from chatterbox_nb.checkpoint.catalog import FileSpec, ModelSpec
from chatterbox_nb.checkpoint.source import OPTIONAL_ROLES, Files
from chatterbox_nb.errors import SourceError
from chatterbox_nb.events import CancelToken, Observer, Progress

_CHUNK = 1 << 20
_SPARE_DISK_BYTES = 200_000_000
_TRIES = 4
_PATIENCE_SECONDS = 30.0  # for an answer, and between two pieces of one


def fetch(
    spec: ModelSpec, repo: str, cache: Path | None, token: str | None, observer: Observer, cancel: CancelToken | None
) -> Files:
    """The files of a repo, from the cache or the network; all of one commit.

    Raises:
        SourceError: offline, no such repo, no access, a file missing, no room, or a download that broke.
    """
    import huggingface_hub as hf

    _ask(lambda: hf.utils.validate_repo_id(repo), repo)
    cache_dir = Path(cache or hf.constants.HF_HUB_CACHE)
    paths, absent = _cached(hf, spec, repo, cache_dir, "main")
    if not absent:
        return _files(repo, paths, ())
    lacking = [file.name for file in absent if file.role not in OPTIONAL_ROLES]
    try:
        if hf.constants.HF_HUB_OFFLINE:
            raise SourceError(
                f"HF_HUB_OFFLINE is set and {cache_dir} lacks {', '.join(lacking)} of {repo}. Unset it and load once "
                f"with a network, or name a folder: %tts_load {spec.name} --source FOLDER"
            )
        api = hf.HfApi(token=token)
        info = _ask(lambda: api.model_info(repo, files_metadata=True, timeout=_PATIENCE_SECONDS), repo)
    except SourceError:
        if lacking:
            raise
        return _files(repo, paths, ())  # only what can be done without was never fetched
    folder = cache_dir / hf.file_download.repo_folder_name(repo_id=repo, repo_type="model")
    # The repo may have moved on since a part of it was cached: all files are taken from one commit.
    paths, absent = _cached(hf, spec, repo, cache_dir, info.sha)
    entries = {entry.rfilename: entry for entry in info.siblings or ()}
    for file in [file for file in absent if file.name not in entries]:
        if file.role not in OPTIONAL_ROLES:
            raise SourceError(
                f"{repo} has no {file.name}, which {spec.name} needs. Is it the right repo for this model?"
            )
        _touch(folder / ".no_exist" / info.sha / file.name)  # where the hub's cache notes it, so that nobody asks again
        absent.remove(file)
    warnings = _licence_warnings(info, spec, repo)
    total = sum(entries[file.name].size or 0 for file in absent)
    if absent:
        held = sum(_held_bytes(folder / "blobs", entries[file.name]) for file in absent)
        _check_disk(cache_dir, total - held, repo)
        licence = getattr(info.card_data, "license", None) or "unknown"
        observer(Progress("download", 0, total, detail=f"{repo}, {total / 1e9:.2f} GB, licence {licence}"))
    download = _Download(hf, repo, info.sha, folder, token, total, observer, cancel)
    for file in absent:
        paths[file.role] = download.fetch(file, cache_dir)
    _remember_main(folder, info.sha)
    return _files(repo, paths, warnings)


def _cached(
    hf: Any, spec: ModelSpec, repo: str, cache_dir: Path, revision: str
) -> tuple[dict[str, Path], list[FileSpec]]:
    """What the cache has of a revision, role → file, and the files it cannot tell of."""
    paths: dict[str, Path] = {}
    absent: list[FileSpec] = []
    for file in spec.files:
        found = hf.try_to_load_from_cache(repo, file.name, cache_dir=cache_dir, revision=revision)
        if isinstance(found, str):
            paths[file.role] = Path(found)
        elif found is None or file.role not in OPTIONAL_ROLES:  # the cache also knows what a repo does not have
            absent.append(file)
    return paths, absent


def _files(repo: str, paths: dict[str, Path], warnings: tuple[str, ...]) -> Files:
    return Files(f"{repo}@{paths['t3'].parent.name[:7]}", paths, warnings)


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


def _licence_warnings(info: Any, spec: ModelSpec, repo: str) -> tuple[str, ...]:
    licence = getattr(info.card_data, "license", None)
    if licence == spec.licence:
        return ()
    return (f"{repo} is under the licence '{licence or 'none named'}', not {spec.licence}. Check that you may use it.",)


def _check_disk(cache_dir: Path, total: int, repo: str) -> None:
    place = next(folder for folder in (cache_dir, *cache_dir.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    if free < total + _SPARE_DISK_BYTES:
        raise SourceError(
            f"{repo} needs {total / 1e9:.2f} GB on disk and {place} has {free / 1e9:.2f} GB free. "
            "Free some, or set MODEL_CACHE_DIR to a larger disk."
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

    hf: Any
    repo: str
    revision: str
    folder: Path  # the repo's, in the cache
    token: str | None
    total: int
    observer: Observer
    cancel: CancelToken | None
    done: int = 0

    def tell(self, file: FileSpec, more: int = 0) -> None:
        done = self.done + more
        self.observer(Progress("download", done, self.total, fraction=done / max(1, self.total), detail=file.name))

    def fetch(self, file: FileSpec, cache_dir: Path) -> Path:
        """One file: its bytes to where the cache looks for them, then the cache's own link to them."""
        from filelock import FileLock

        hf = self.hf
        url = hf.hf_hub_url(self.repo, file.name, revision=self.revision)
        meta = _ask(lambda: hf.get_hf_file_metadata(url, token=self.token), self.repo)
        if meta.etag is None or meta.size is None:
            raise SourceError(f"What answered for {self.repo} tells no size or ETag of {file.name}. Check HF_ENDPOINT.")
        blob = self.folder / "blobs" / meta.etag
        part = blob.with_name(f"{meta.etag}.part")
        lock = blob.with_name(f"{meta.etag}.part.lock")
        _touch(lock)
        with FileLock(lock):  # of two kernels, the second finds what the first fetched
            if blob.exists():
                part.unlink(missing_ok=True)
            else:
                _touch(part)  # not before: what the first fetched may have been wrong, and deleted
                self._fill(part, meta, file)
                _verify(part, meta, file)
                part.rename(blob)
        path = _ask(
            lambda: hf.hf_hub_download(
                self.repo, file.name, revision=self.revision, cache_dir=cache_dir, token=self.token
            ),
            self.repo,
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
        if urlsplit(meta.location).netloc == urlsplit(self.hf.constants.ENDPOINT).netloc:
            headers |= self.hf.utils.build_hf_headers(token=self.token)
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

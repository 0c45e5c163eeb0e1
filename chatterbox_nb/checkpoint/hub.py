"""Checkpoints from the Hugging Face hub, into its own cache.

What is cached is used without asking the network. What is missing is announced first: size, licence, free disk. A
download tells its progress, stops when cancelled, and goes on where it stopped: the hub's client starts a broken file
anew, so the bytes are fetched here and handed to its cache, which then links them.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from chatterbox_nb.checkpoint.catalog import FileSpec, ModelSpec
from chatterbox_nb.checkpoint.source import Files
from chatterbox_nb.errors import SourceError
from chatterbox_nb.events import CancelToken, Observer, Progress

_CHUNK = 1 << 20
_SPARE_DISK_BYTES = 200_000_000
_TRIES = 4


def fetch(
    spec: ModelSpec, repo: str, cache: Path | None, token: str | None, observer: Observer, cancel: CancelToken | None
) -> Files:
    """The files of a repo, from the cache or the network.

    Raises:
        SourceError: offline, no such repo, no access, a file missing, no room, or a download that broke.
    """
    import huggingface_hub as hf

    cache_dir = Path(cache or hf.constants.HF_HUB_CACHE)
    cached = {file.role: hf.try_to_load_from_cache(repo, file.name, cache_dir=cache_dir) for file in spec.files}
    absent = [file for file in spec.files if not isinstance(cached[file.role], str)]
    if not absent:
        return _files(repo, {role: Path(str(path)) for role, path in cached.items()}, ())
    if hf.constants.HF_HUB_OFFLINE:
        names = ", ".join(file.name for file in absent)
        raise SourceError(
            f"HF_HUB_OFFLINE is set and {cache_dir} lacks {names} of {repo}. Unset it and load once with a network, "
            f"or name a folder: %tts_load {spec.name} --source FOLDER"
        )
    info = _ask(lambda: hf.HfApi(token=token).model_info(repo, files_metadata=True), repo)
    sizes = {entry.rfilename: entry.size or 0 for entry in info.siblings}
    for file in absent:
        if file.name not in sizes:
            raise SourceError(
                f"{repo} has no {file.name}, which {spec.name} needs. Is it the right repo for this model?"
            )
    warnings = _licence_warnings(info, spec, repo)
    total = sum(sizes[file.name] for file in absent)
    _check_disk(cache_dir, total, repo)
    licence = getattr(info.card_data, "license", None) or "unknown"
    observer(Progress("download", 0, total, detail=f"{repo}, {total / 1e9:.2f} GB, licence {licence}"))

    done = 0
    paths = {role: Path(str(path)) for role, path in cached.items() if isinstance(path, str)}
    for file in absent:
        _fetch_file(hf, repo, info.sha, file, cache_dir, token, done, total, observer, cancel)
        done += sizes[file.name]
        paths[file.role] = Path(
            _ask(lambda: hf.hf_hub_download(repo, file.name, revision=info.sha, cache_dir=cache_dir, token=token), repo)  # noqa: B023
        )
    _remember_main(paths["t3"], info.sha)
    return _files(repo, paths, warnings)


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
    except errors.HfHubHTTPError as error:
        problem = f"The hub answered {error.response.status_code} for {repo}. Try again later."
    except (errors.LocalEntryNotFoundError, httpx.HTTPError, OSError) as error:
        problem = (
            f"The hub cannot be reached ({type(error).__name__}). Try again with a network, or name a folder with the "
            "files: --source FOLDER"
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


def _fetch_file(
    hf: Any,
    repo: str,
    revision: str,
    file: FileSpec,
    cache_dir: Path,
    token: str | None,
    before: int,
    total: int,
    observer: Observer,
    cancel: CancelToken | None,
) -> None:
    """Puts one file's bytes where the hub's cache looks for them, from where a broken download stopped."""
    meta = _ask(lambda: hf.get_hf_file_metadata(hf.hf_hub_url(repo, file.name, revision=revision), token=token), repo)
    folder = cache_dir / hf.file_download.repo_folder_name(repo_id=repo, repo_type="model") / "blobs"
    blob, part = folder / meta.etag, folder / f"{meta.etag}.part"
    if blob.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, _TRIES + 1):
        have = part.stat().st_size if part.exists() else 0
        if have >= meta.size:
            break
        problem = ""
        try:
            _stream(hf, meta, part, have, file, token, before, total, observer, cancel)
        except (OSError, ConnectionError) as error:
            problem = f"{type(error).__name__}: {error}"
        got = part.stat().st_size if part.exists() else 0
        if got < meta.size and attempt == _TRIES:
            raise SourceError(
                f"The download of {file.name} broke at {got / 1e9:.2f} of {meta.size / 1e9:.2f} GB "
                f"({problem or 'cut off'}). Load again: it goes on from there."
            )
    _verify(part, meta, file)
    part.rename(blob)


def _stream(
    hf: Any,
    meta: Any,
    part: Path,
    have: int,
    file: FileSpec,
    token: str | None,
    before: int,
    total: int,
    observer: Observer,
    cancel: CancelToken | None,
) -> None:
    import httpx

    headers = {"Range": f"bytes={have}-"} if have else {}
    if urlsplit(meta.location).netloc == urlsplit(hf.constants.ENDPOINT).netloc:  # a token is for the hub alone
        headers |= hf.utils.build_hf_headers(token=token)
    try:
        with httpx.stream("GET", meta.location, headers=headers, follow_redirects=True, timeout=30.0) as answer:
            if answer.status_code not in (200, 206):
                raise ConnectionError(f"HTTP {answer.status_code}")
            resumed = answer.status_code == 206
            done = have if resumed else 0
            with part.open("ab" if resumed else "wb") as out:
                for data in answer.iter_bytes(_CHUNK):
                    if cancel is not None:
                        cancel.check()
                    out.write(data)
                    done += len(data)
                    observer(
                        Progress(
                            "download", before + done, total, fraction=(before + done) / max(1, total), detail=file.name
                        )
                    )
    except httpx.HTTPError as error:
        raise ConnectionError(str(error) or type(error).__name__) from None


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


def _remember_main(snapshot_file: Path, revision: str) -> None:
    """Files were asked for by commit; the next load looks for `main`."""
    ref = snapshot_file.parent.parent.parent / "refs" / "main"
    if not ref.exists():
        ref.parent.mkdir(parents=True, exist_ok=True)
        ref.write_text(revision)

"""A Hugging Face hub on the loopback interface: the parts of its HTTP API that `huggingface_hub` asks, and its faults.

    GET  /api/models/{repo}[/revision/{rev}]   commit, licence, files with sizes and hashes
    HEAD /{repo}/resolve/{rev}/{file}          ETag, size, commit, and where the bytes are
    GET  /{repo}/resolve/{rev}/{file}          the bytes, or a range of them

Real requests over real sockets, so that what is tested is what a user's machine would do.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from urllib.parse import unquote, urlsplit

import huggingface_hub
import pytest
from huggingface_hub import constants

from chatterbox_nb.errors import SourceError

_BLOCK = 1 << 16


@dataclass
class Repo:
    """A model repo.

    Args:
        files: name → content.
        commit: of `main`.
        licence: as its card says it, or None.
        token: who shows it may read; None for a public repo.
        gated: readers must have agreed to something first, which nobody has.
    """

    files: dict[str, bytes]
    commit: str = "c0ffee" + 34 * "0"
    licence: str | None = "mit"
    token: str | None = None
    gated: bool = False


@dataclass(frozen=True)
class Request:
    """What was asked for."""

    method: str
    path: str
    range: str | None
    token: str | None

    @property
    def file(self) -> str:
        return self.path.rpartition("/")[2]


@dataclass
class Faults:
    """What goes wrong.

    Args:
        cut_bytes: a download's connection breaks after so many bytes of the answer.
        cuts: how many downloads break so.
        ignore_range: the whole file is sent, whatever part was asked for.
        compress: answers are compressed where the client allows it.
        garble: name of a file whose bytes are not those that were announced.
        longer: name of a file that is sent with a byte too many.
        send_to, only_get: downloads are redirected to this address; for GET alone.
        status: every answer is this error.
        page: every answer is this HTML page.
        silent: no answer ever comes.
        no_etag: nothing is said of a file's hash.
    """

    cut_bytes: int = 0
    cuts: int = 0
    ignore_range: bool = False
    compress: bool = False
    garble: str = ""
    longer: str = ""
    send_to: str = ""
    only_get: bool = False
    status: int = 0
    page: str = ""
    silent: bool = False
    no_etag: bool = False


@dataclass
class LocalHub:
    """The server; a context manager. `requests` are those so far."""

    repos: dict[str, Repo]
    host: str = "127.0.0.1"
    faults: Faults = field(default_factory=Faults)
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> LocalHub:
        hub = self

        class Bound(_Handler):
            pass

        Bound.hub = hub
        self.closed = threading.Event()
        self._server = ThreadingHTTPServer((self.host, 0), Bound)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closed.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self._server.server_port}"

    def downloads(self, file: str, repo: str = "") -> list[Request]:
        """The GETs of a file, from one repo or any."""
        return [
            request
            for request in self.requests
            if request.method == "GET" and request.file == file and request.path.startswith(f"/{repo}")
        ]

    def listings(self, repo: str) -> list[Request]:
        """What was asked about a repo as a whole."""
        return [request for request in self.requests if request.path.startswith(f"/api/models/{repo}")]


@contextmanager
def connected(server: LocalHub, patch: pytest.MonkeyPatch, folder: Path) -> Iterator[None]:
    """The hub's client speaks to the local server, and knows no token. It read its settings when it was imported."""
    huggingface_hub.close_session()
    set_endpoint(server.url, patch)
    patch.setattr(constants, "HF_HUB_OFFLINE", False)  # the tests' conftest sets it
    patch.setattr(constants, "HF_TOKEN_PATH", str(folder / "token"))
    patch.setattr(constants, "HF_HUB_CACHE", str(folder / "the hub's own cache"))
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE"):
        patch.delenv(variable, raising=False)
    patch.setenv("NO_PROXY", "127.0.0.1,localhost")
    yield
    huggingface_hub.close_session()


def refused(fetch: Callable[[], object]) -> str:
    """The one line that a fetch fails with."""
    with pytest.raises(SourceError) as caught:
        fetch()
    message = str(caught.value)
    assert "\n" not in message
    return message


def set_endpoint(url: str, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(constants, "ENDPOINT", url)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


def etag(content: bytes) -> str:
    """As the hub does: SHA-256 for what is large, git's SHA-1 for what is small."""
    if len(content) > 10_000:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: LocalHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        faults, path = self.hub.faults, unquote(urlsplit(self.path).path)
        if path == "/api/agent-harnesses":  # the client asks this once a process, whatever it is used for
            self._send(404, b"")
            return
        token = (self.headers["Authorization"] or "").removeprefix("Bearer ") or None
        self.hub.requests.append(Request(self.command, path, self.headers["Range"], token))
        if faults.silent:
            self.hub.closed.wait()
            self.close_connection = True
        elif faults.status:
            self._send(faults.status, b"")
        elif faults.page:
            self._send(200, faults.page.encode(), {"Content-Type": "text/html"})
        elif path.startswith("/api/models/"):
            name = path.removeprefix("/api/models/").partition("/revision/")[0]
            if repo := self._readable(name, token):
                self._send(200, json.dumps(self._info(name, repo)).encode(), {"Content-Type": "application/json"})
        elif "/resolve/" in path:
            name, _, rest = path.strip("/").partition("/resolve/")
            if repo := self._readable(name, token):
                self._file(repo, *rest.split("/", 1))
        else:
            self._send(404, b"")

    def _readable(self, name: str, token: str | None) -> Repo | None:
        """The repo, or None after the refusal was sent: the hub does not tell a private repo from none."""
        repo = self.hub.repos.get(name)
        if token is not None and token not in [known.token for known in self.hub.repos.values()]:
            self._send(401, b"", {"X-Error-Message": "Invalid credentials in Authorization header"})
        elif repo is not None and repo.gated:
            self._send(403, b"", {"X-Error-Code": "GatedRepo"})
        elif repo is None or (repo.token is not None and repo.token != token):
            self._send(401 if token is None else 404, b"", {"X-Error-Code": "RepoNotFound"})
        else:
            return repo
        return None

    def _info(self, name: str, repo: Repo) -> dict[str, object]:
        siblings = [
            {"rfilename": file, "size": len(content), "blobId": etag(content)}
            | (
                {"lfs": {"sha256": etag(content), "size": len(content), "pointerSize": 130}}
                if len(content) > 10_000
                else {}
            )
            for file, content in repo.files.items()
        ]
        card = {"license": repo.licence} if repo.licence else {}
        return {"id": name, "sha": repo.commit, "private": False, "cardData": card, "siblings": siblings, "tags": []}

    def _file(self, repo: Repo, revision: str, name: str) -> None:
        faults = self.hub.faults
        if revision not in ("main", repo.commit):
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
            return
        if name not in repo.files:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": repo.commit})
            return
        content = repo.files[name]
        headers = {"X-Repo-Commit": repo.commit, "Accept-Ranges": "bytes"}
        if not faults.no_etag:
            headers["ETag"] = f'"{etag(content)}"'
        if faults.send_to and not (faults.only_get and self.command == "HEAD"):
            headers |= {"X-Linked-ETag": f'"{etag(content)}"', "X-Linked-Size": str(len(content))}
            self._send(302, b"", {**headers, "Location": faults.send_to + self.path})
            return
        if self.command == "GET":
            if name == faults.garble:
                content = content[:-1] + bytes([content[-1] ^ 1])
            if name == faults.longer:
                content += b"x"
            if faults.compress and "gzip" in (self.headers["Accept-Encoding"] or ""):
                content, headers["Content-Encoding"] = gzip.compress(content), "gzip"
        status, wanted = 200, self.headers["Range"]
        if wanted and not faults.ignore_range:
            status, start = 206, int(wanted.removeprefix("bytes=").rstrip("-"))
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            content = content[start:]
        self._send(status, content, headers, breakable=True)

    def _send(
        self, status: int, content: bytes, headers: dict[str, str] | None = None, breakable: bool = False
    ) -> None:
        faults = self.hub.faults
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if breakable and faults.cuts and len(content) > faults.cut_bytes:
            faults.cuts -= 1
            content, self.close_connection = content[: faults.cut_bytes], True
        try:
            for start in range(0, len(content), _BLOCK):
                self.wfile.write(content[start : start + _BLOCK])
        except OSError:  # the client went away
            self.close_connection = True

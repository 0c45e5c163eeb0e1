"""Downloads, over real sockets from a hub of our own (`local_hub.py`): what is fetched, kept, gone on with, refused."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillWaiting
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from filelock import FileLock
from huggingface_hub import constants
from local_hub import LocalHub, Repo, etag, refused, set_endpoint

from chatterbox_nb import events
from chatterbox_nb.checkpoint import catalog, hub, source
from chatterbox_nb.checkpoint.source import Files
from chatterbox_nb.checkpoint.synthetic import TINY
from chatterbox_nb.engine import model as engine
from chatterbox_nb.errors import Cancelled
from chatterbox_nb.events import CancelToken, Observer, Progress
from chatterbox_nb.precision import device

pytestmark = [pytest.mark.xdist_group("hub"), pytest.mark.usefixtures("online")]

REPO = "somebody/tiny"
LARGE = "s3gen.safetensors"
CUT = 3_000_000  # bytes after which a broken connection breaks, inside LARGE


@pytest.fixture(scope="module")
def contents(tiny_folder: Path) -> dict[str, bytes]:
    """The tiny checkpoint's files, without its spec: a repo brings weights, the catalog knows the model."""
    return {file.name: (tiny_folder / file.name).read_bytes() for file in TINY.files}


@pytest.fixture
def server(contents: dict[str, bytes]) -> Iterator[LocalHub]:
    with LocalHub({REPO: Repo(dict(contents))}) as running:
        yield running


@contextmanager
def nobody() -> Iterator[str]:
    """An address at which nobody answers: the port is taken, so that nobody else is given it, and not listened at."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def fetch(
    cache: Path,
    repo: str = REPO,
    token: str | None = None,
    observer: Observer = events.ignore,
    cancel: CancelToken | None = None,
) -> Files:
    return hub.fetch(TINY, repo, cache, token, observer, cancel)


def refusal(cache: Path, repo: str = REPO, token: str | None = None) -> str:
    return refused(lambda: fetch(cache, repo, token))


def blobs(cache: Path, repo: str = REPO) -> Path:
    return cache / f"models--{repo.replace('/', '--')}" / "blobs"


def part_of(cache: Path, content: bytes) -> Path:
    return blobs(cache) / f"{etag(content)}.part"


def assert_whole(files: Files, contents: dict[str, bytes]) -> None:
    assert {path.name: path.read_bytes() for path in files.paths.values()} == contents


# What is fetched, and what is kept


def test_every_file_comes_as_it_is_on_the_hub(cache: Path, server: LocalHub, contents: dict[str, bytes]) -> None:
    files = fetch(cache)
    assert_whole(files, contents)
    assert files.origin == f"{REPO}@{server.repos[REPO].commit[:7]}"
    assert files.warnings == ()


def test_a_download_tells_its_progress_from_nothing_to_the_whole(cache: Path, contents: dict[str, bytes]) -> None:
    told: list[Progress] = []
    fetch(cache, observer=told.append)
    total = sum(map(len, contents.values()))
    assert {step.stage for step in told} == {"download"}
    assert {step.total for step in told} == {total}
    done = [step.done for step in told]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, total)
    assert told[-1].fraction == 1.0
    assert len(set(done)) > 6, "a large file tells more than its end"


def test_a_download_is_announced_with_size_and_licence(cache: Path, contents: dict[str, bytes]) -> None:
    told: list[Progress] = []
    fetch(cache, observer=told.append)
    total = sum(map(len, contents.values()))
    assert told[0].detail == f"{REPO}, {total / 1e9:.2f} GB, licence mit"


def test_what_was_downloaded_loads(cache: Path) -> None:
    model = engine.load(TINY, fetch(cache), "int8", device.facts("cpu"))
    assert model.report.source.startswith(REPO)
    assert model.builtin is not None


def test_a_models_own_repo_is_where_it_is_looked_for(
    cache: Path, contents: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = replace(TINY, repo=REPO)
    monkeypatch.setattr(catalog, "CATALOG", {**catalog.CATALOG, "tiny": own})
    spec, files = source.find("tiny", cache=cache)
    assert spec == own
    assert_whole(files, contents)


def test_the_second_time_nobody_is_asked(cache: Path, server: LocalHub) -> None:
    first = fetch(cache)
    server.requests.clear()
    assert fetch(cache) == first
    assert server.requests == []


def test_without_a_folder_of_its_own_the_hubs_cache_is_used(server: LocalHub) -> None:
    files = hub.fetch(TINY, REPO, None, None, events.ignore, None)
    assert files.path("t3").is_relative_to(constants.HF_HUB_CACHE)


def test_the_hubs_own_client_finds_what_was_downloaded(
    cache: Path, server: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = fetch(cache)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for path in files.paths.values():
        assert huggingface_hub.hf_hub_download(REPO, path.name, cache_dir=cache) == str(path)


def test_no_part_of_a_file_is_left_behind(cache: Path) -> None:
    fetch(cache)
    assert [path for path in cache.rglob("*") if path.name.endswith((".part", ".incomplete"))] == []


# Two kernels


def test_two_kernels_fetch_each_file_once(cache: Path, server: LocalHub, contents: dict[str, bytes]) -> None:
    with ThreadPoolExecutor(2) as kernels:
        for files in kernels.map(lambda _: fetch(cache), range(2)):
            assert_whole(files, contents)
    assert [len(server.downloads(name)) for name in contents] == [1] * len(contents)


def test_the_second_kernel_begins_anew_where_the_first_deleted_what_was_wrong(
    cache: Path, server: LocalHub, contents: dict[str, bytes]
) -> None:
    part = part_of(cache, contents["t3_cfg.safetensors"])
    part.parent.mkdir(parents=True)
    with nobody() as address, ThreadPoolExecutor(1) as kernels:
        server.faults.send_to = address.replace("127.0.0.1", "localhost")
        with FileLock(f"{part}.lock"):  # the first kernel
            second = kernels.submit(refusal, cache)
            with pytest.raises(StillWaiting):
                second.result(2.0)
            part.unlink(missing_ok=True)
        assert second.result().startswith("The download of t3_cfg.safetensors broke at 0.00")


# Offline


def test_what_the_hubs_own_client_downloaded_is_used_offline(
    cache: Path, server: LocalHub, contents: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in contents:
        huggingface_hub.hf_hub_download(REPO, name, cache_dir=cache)
    server.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert_whole(fetch(cache), contents)
    assert server.requests == []


def test_a_cache_in_the_standard_layout_is_used_offline(
    cache: Path, contents: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, commit = blobs(cache).parent, 40 * "b"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    (folder / "snapshots" / commit).mkdir(parents=True)
    (folder / "blobs").mkdir()
    for name, content in contents.items():
        (folder / "blobs" / etag(content)).write_bytes(content)
        (folder / "snapshots" / commit / name).symlink_to(f"../../blobs/{etag(content)}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    files = fetch(cache)
    assert_whole(files, contents)
    assert files.origin == f"{REPO}@bbbbbbb"


def test_offline_a_missing_file_is_named_with_both_ways_out(
    cache: Path, server: LocalHub, contents: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in contents.keys() - {LARGE, "tokenizer.json"}:
        huggingface_hub.hf_hub_download(REPO, name, cache_dir=cache)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    message = refusal(cache)
    assert f"{cache} lacks {LARGE}, tokenizer.json of {REPO}" in message
    assert "Unset it" in message
    assert "--source FOLDER" in message


def test_offline_the_voice_may_be_missing(
    cache: Path, contents: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in contents.keys() - {"conds.pt"}:
        huggingface_hub.hf_hub_download(REPO, name, cache_dir=cache)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert not fetch(cache).has("voice")


# Downloads that break


def test_a_connection_that_breaks_once_is_taken_up_at_once(
    cache: Path, server: LocalHub, contents: dict[str, bytes]
) -> None:
    server.faults.cut_bytes, server.faults.cuts = CUT, 1
    assert_whole(fetch(cache), contents)
    first, second = server.downloads(LARGE)
    assert first.range is None
    assert second.range == "bytes=2097152-"  # whole mebibytes are kept


def test_a_download_that_keeps_breaking_goes_on_with_the_next_load(
    cache: Path, server: LocalHub, contents: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "_TRIES", 1)
    server.faults.cut_bytes, server.faults.cuts = CUT, 1
    message = refusal(cache)
    assert message.startswith(f"The download of {LARGE} broke at 0.00 of 0.00 GB (ConnectionError: ")
    assert message.endswith("Load again: it goes on from there.")
    kept = part_of(cache, contents[LARGE]).stat().st_size
    assert kept > 0

    server.requests.clear()
    assert_whole(fetch(cache), contents)
    assert [request.range for request in server.downloads(LARGE)] == [f"bytes={kept}-"]


def test_progress_of_a_resumed_download_starts_where_it_broke(
    cache: Path, server: LocalHub, contents: dict[str, bytes]
) -> None:
    part = part_of(cache, contents["t3_cfg.safetensors"])
    part.parent.mkdir(parents=True)
    part.write_bytes(contents["t3_cfg.safetensors"][:1_500_000])
    told: list[Progress] = []
    fetch(cache, observer=told.append)
    assert told[1].done > 1_500_000
    assert told[-1].done == told[-1].total


def test_a_server_that_ignores_ranges_sends_it_all_again(
    cache: Path, server: LocalHub, contents: dict[str, bytes]
) -> None:
    server.faults.ignore_range = True
    part = part_of(cache, contents[LARGE])
    part.parent.mkdir(parents=True)
    part.write_bytes(contents[LARGE][:1_500_000])
    assert_whole(fetch(cache), contents)
    assert [request.range for request in server.downloads(LARGE)] == ["bytes=1500000-"]


def test_a_server_that_compresses_is_asked_not_to(cache: Path, server: LocalHub, contents: dict[str, bytes]) -> None:
    """A range of a compressed file is not a range of the file."""
    server.faults.compress = True
    part = part_of(cache, contents[LARGE])
    part.parent.mkdir(parents=True)
    part.write_bytes(contents[LARGE][:1_500_000])
    assert_whole(fetch(cache), contents)


def test_a_file_of_other_content_is_deleted_and_reported(
    cache: Path, server: LocalHub, contents: dict[str, bytes]
) -> None:
    server.faults.garble = LARGE
    message = refusal(cache)
    assert message == f"{LARGE} has another SHA-256 than the hub announced. It was deleted; load again."
    assert not part_of(cache, contents[LARGE]).exists()
    assert not (blobs(cache) / etag(contents[LARGE])).exists()
    server.faults.garble = ""
    assert_whole(fetch(cache), contents)


def test_a_file_of_another_size_is_deleted_and_reported(
    cache: Path, server: LocalHub, contents: dict[str, bytes]
) -> None:
    server.faults.longer = "tokenizer.json"
    size = len(contents["tokenizer.json"])
    message = refusal(cache)
    assert message == f"tokenizer.json has {size + 1} bytes of {size}. It was deleted; load again."
    assert not part_of(cache, contents["tokenizer.json"]).exists()


def test_an_empty_file_is_a_file(cache: Path, server: LocalHub) -> None:
    server.repos[REPO].files["tokenizer.json"] = b""
    assert fetch(cache).path("tokenizer").read_bytes() == b""


def test_a_cancelled_download_keeps_its_part_and_the_next_goes_on(
    cache: Path, server: LocalHub, contents: dict[str, bytes]
) -> None:
    cancel = CancelToken()

    def stop_inside_the_large_file(step: Progress) -> None:
        if step.detail == LARGE:
            cancel.cancel()

    with pytest.raises(Cancelled):
        fetch(cache, observer=stop_inside_the_large_file, cancel=cancel)
    kept = part_of(cache, contents[LARGE]).stat().st_size
    assert 0 < kept < len(contents[LARGE])

    server.requests.clear()
    assert_whole(fetch(cache), contents)
    assert [request.range for request in server.downloads(LARGE)] == [f"bytes={kept}-"]
    assert server.downloads("t3_cfg.safetensors") == [], "what was whole is not fetched again"


def test_a_repo_that_moved_on_is_taken_whole_from_one_commit(
    cache: Path, server: LocalHub, contents: dict[str, bytes]
) -> None:
    for name in contents.keys() - {"tokenizer.json"}:
        huggingface_hub.hf_hub_download(REPO, name, cache_dir=cache)
    changed = {**contents, LARGE: contents[LARGE][:-4] + b"\0\0\0\0"}
    server.repos[REPO] = Repo(changed, commit=40 * "d")
    server.requests.clear()
    files = fetch(cache)
    assert_whole(files, changed)
    assert {path.parent.name for path in files.paths.values()} == {40 * "d"}
    assert server.downloads("t3_cfg.safetensors") == [], "what did not change is linked, not fetched"
    server.requests.clear()
    assert fetch(cache) == files
    assert server.requests == []


# Repos that are not what they should be


def test_a_repo_without_a_needed_file_is_refused_before_anything_is_fetched(cache: Path, server: LocalHub) -> None:
    del server.repos[REPO].files["ve.safetensors"]
    message = refusal(cache)
    assert message == f"{REPO} has no ve.safetensors, which tiny needs. Is it the right repo for this model?"
    assert server.downloads("t3_cfg.safetensors") == []


def test_a_repo_without_a_voice_is_fetched_without_it_and_not_asked_again(cache: Path, server: LocalHub) -> None:
    del server.repos[REPO].files["conds.pt"]
    files = fetch(cache)
    assert not files.has("voice")
    server.requests.clear()
    assert fetch(cache) == files
    assert server.requests == []


def test_an_unknown_repo(cache: Path) -> None:
    message = refusal(cache, "somebody/else")
    assert message.startswith("The hub has no repo somebody/else that you may read.")
    assert "hf auth login" in message


def test_a_name_that_no_repo_can_have(cache: Path) -> None:
    assert refusal(cache, "some--body/tiny").startswith("'some--body/tiny' is no name of a repo")


def test_another_licence_than_the_models_is_a_warning(cache: Path, server: LocalHub) -> None:
    server.repos[REPO].licence = "cc-by-nc-4.0"
    assert fetch(cache).warnings == (
        f"{REPO} is under the licence 'cc-by-nc-4.0', not mit. Check that you may use it.",
    )


def test_a_repo_without_a_licence_is_a_warning(cache: Path, server: LocalHub) -> None:
    server.repos[REPO].licence = None
    assert fetch(cache).warnings == (f"{REPO} is under the licence 'none named', not mit. Check that you may use it.",)


# Private repos and tokens


@pytest.fixture
def private(server: LocalHub) -> str:
    server.repos[REPO].token = "hf_ours"
    return "hf_ours"


def test_a_private_repo_without_a_token_is_refused_with_the_cure(cache: Path, private: str) -> None:
    message = refusal(cache)
    assert REPO in message
    assert "hf auth login" in message


def test_a_private_repo_with_a_token_is_fetched(cache: Path, private: str, contents: dict[str, bytes]) -> None:
    assert_whole(fetch(cache, token=private), contents)


def test_the_token_of_the_environment_is_used(
    cache: Path, private: str, contents: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", private)
    assert_whole(fetch(cache), contents)


def test_a_token_that_is_not_valid_is_refused_with_the_cure(cache: Path, private: str) -> None:
    message = refusal(cache, token="hf_stale")
    assert message.startswith(f"The hub answered 401 for {REPO}. Your token does not open it")
    assert "hf auth login" in message


def test_a_gated_repo_asks_for_consent(cache: Path, server: LocalHub) -> None:
    server.repos[REPO].gated = True
    message = refusal(cache)
    assert message.startswith(f"{REPO} asks for your consent first. Accept it on its page")


@pytest.mark.parametrize("only_get", [False, True], ids=["told with the size", "told with the bytes"])
def test_the_token_goes_to_the_hub_and_never_where_it_sends_us(
    cache: Path, server: LocalHub, private: str, contents: dict[str, bytes], only_get: bool
) -> None:
    """Large files lie with a storage provider, whose address the hub signs: it needs no token and must not see one."""
    with LocalHub({REPO: Repo(dict(contents))}, host="localhost") as storage:
        server.faults.send_to, server.faults.only_get = storage.url, only_get
        assert_whole(fetch(cache, token=private), contents)
        assert storage.downloads(LARGE) != []
        assert {request.token for request in storage.requests} == {None}
    assert {request.token for request in server.requests} == {private}


# Machines and networks that are not what they should be


def test_a_full_disk_is_told_before_the_download(
    cache: Path, server: LocalHub, contents: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    free = sum(map(len, contents.values())) + hub._SPARE_DISK_BYTES - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=free))
    message = refusal(cache)
    assert message.startswith(f"{REPO} needs 0.01 GB on disk and {cache.parent} has 0.21 GB free.")
    assert "MODEL_CACHE_DIR" in message
    assert [request for request in server.requests if "/resolve/" in request.path] == []


def test_what_is_on_the_disk_already_needs_no_room(
    cache: Path, contents: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    part = part_of(cache, contents[LARGE])
    part.parent.mkdir(parents=True)
    part.write_bytes(contents[LARGE][:1_500_000])
    free = sum(map(len, contents.values())) + hub._SPARE_DISK_BYTES - 1_500_000
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=free))
    assert_whole(fetch(cache), contents)


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = tmp_path / "file" / "cache"
    message = refusal(cache)
    assert f"{cache}" in message
    assert "MODEL_CACHE_DIR" in message


def test_a_hub_that_cannot_be_reached(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with nobody() as address:
        set_endpoint(address, monkeypatch)
        message = refusal(cache)
    assert message.startswith("The hub cannot be reached (ConnectError).")
    assert "--source FOLDER" in message


def test_a_storage_provider_that_cannot_be_reached_is_told_as_a_broken_download(
    cache: Path, server: LocalHub, contents: dict[str, bytes]
) -> None:
    with nobody() as address:
        server.faults.send_to = address.replace("127.0.0.1", "localhost")
        message = refusal(cache)
    assert message.startswith("The download of t3_cfg.safetensors broke at 0.00 of 0.00 GB (ConnectionError: ")
    server.faults.send_to = ""
    assert_whole(fetch(cache), contents)


def test_a_hub_that_never_answers_is_not_waited_for_forever(
    cache: Path, server: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "_PATIENCE_SECONDS", 0.2)
    server.faults.silent = True
    assert refusal(cache).startswith("The hub cannot be reached (ReadTimeout).")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_hub_in_trouble_is_named_with_its_answer(cache: Path, server: LocalHub, status: int) -> None:
    server.faults.status = status
    assert refusal(cache) == f"The hub answered {status} for {REPO}. Try again later."


def test_a_login_page_in_between_is_not_the_hub(cache: Path, server: LocalHub) -> None:
    server.faults.page = "<html>Welcome to the airport</html>"
    message = refusal(cache)
    assert message.startswith(f"What answered for {REPO} is not the hub")
    assert "HF_ENDPOINT" in message


def test_a_mirror_that_tells_no_etag_is_refused(cache: Path, server: LocalHub) -> None:
    server.faults.no_etag = True
    message = refusal(cache)
    assert message.startswith(f"What answered for {REPO} tells no size or ETag of t3_cfg.safetensors")


def test_what_is_cached_loads_without_any_of_it(
    cache: Path, server: LocalHub, contents: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch(cache)
    server.faults.status = 500
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=0))
    assert_whole(fetch(cache), contents)

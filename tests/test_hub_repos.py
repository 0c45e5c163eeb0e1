"""Models whose files are in several repos, and weights that the hub or its cache has as `.pt`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import constants
from local_hub import LocalHub, Repo, refused

from chatterbox_nb import events
from chatterbox_nb.checkpoint import hub, source
from chatterbox_nb.checkpoint.source import Files
from chatterbox_nb.checkpoint.synthetic import TINY
from chatterbox_nb.errors import SourceError
from chatterbox_nb.events import Observer, Progress

pytestmark = [pytest.mark.xdist_group("hub"), pytest.mark.usefixtures("online")]

OWN, SHARED, FORK = "somebody/pack", "somebody/shared", "me/fork"
COMMITS = {OWN: 40 * "a", SHARED: 40 * "b", FORK: 40 * "c"}
ELSEWHERE = {"voice_encoder": "ve.safetensors", "voice": "conds.pt"}
# A language pack: what reads a clip's speaker, and a voice, are in the repo of another model.
PACK = replace(
    TINY,
    name="pack",
    repo=OWN,
    files=tuple(replace(file, repo=SHARED if file.role in ELSEWHERE else None) for file in TINY.files),
)


@pytest.fixture
def server() -> Iterator[LocalHub]:
    """Files of the right names, each with its repo's name in it; the large ones are fetched by their SHA-256."""
    contents = {
        repo: {
            file.name: f"{file.name} of {repo} ".encode() * 1000 for file in PACK.files if (file.repo or OWN) == repo
        }
        for repo in (OWN, SHARED)
    }
    contents[FORK] = {name: content + b"fork" for name, content in contents[OWN].items()}
    with LocalHub({repo: Repo(files, COMMITS[repo]) for repo, files in contents.items()}) as running:
        yield running


def fetch(cache: Path, repo: str = OWN, observer: Observer = events.ignore) -> Files:
    return hub.fetch(PACK, repo, cache, None, observer, None)


def refusal(cache: Path, repo: str = OWN) -> str:
    return refused(lambda: fetch(cache, repo))


def origins(files: Files) -> dict[str, str]:
    """Role → the commit that its file was taken from."""
    return {role: path.parent.name for role, path in files.paths.items()}


def commits(own: str, elsewhere: str = SHARED) -> dict[str, str]:
    return {file.role: COMMITS[elsewhere if file.repo else own] for file in PACK.files}


def total_bytes(server: LocalHub, *repos: str) -> int:
    return sum(len(content) for repo in repos for content in server.repos[repo].files.values())


# Several repos


def test_each_file_comes_from_its_repo_at_one_commit(cache: Path, server: LocalHub) -> None:
    files = fetch(cache)
    assert origins(files) == commits(OWN)
    assert files.origin == f"{OWN}@aaaaaaa"
    assert files.path("voice").read_bytes() == server.repos[SHARED].files["conds.pt"]


def test_the_second_time_nobody_is_asked_and_no_network_is_needed(
    cache: Path, server: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fetch(cache)
    server.requests.clear()
    assert fetch(cache) == first
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch(cache) == first
    assert server.requests == []


def test_only_the_repo_that_lacks_something_is_asked(cache: Path, server: LocalHub) -> None:
    for name in server.repos[SHARED].files:
        huggingface_hub.hf_hub_download(SHARED, name, cache_dir=cache)
    server.requests.clear()
    assert origins(fetch(cache)) == commits(OWN)
    assert server.listings(SHARED) == []


def test_what_another_model_fetched_is_not_fetched_again(cache: Path, server: LocalHub) -> None:
    huggingface_hub.hf_hub_download(SHARED, "ve.safetensors", cache_dir=cache)
    server.requests.clear()
    fetch(cache)
    assert server.downloads("ve.safetensors") == []
    assert len(server.downloads("conds.pt", SHARED)) == 1


def test_progress_has_one_total_over_all_repos(cache: Path, server: LocalHub) -> None:
    told: list[Progress] = []
    fetch(cache, observer=told.append)
    total = total_bytes(server, OWN, SHARED)
    assert {step.total for step in told} == {total}
    done = [step.done for step in told]
    assert (done[0], done[-1]) == (0, total)
    assert done == sorted(done)
    assert told[0].detail == f"{OWN}, 0.00 GB, licence mit; {SHARED}, 0.00 GB, licence mit"


def test_each_repos_licence_is_told(cache: Path, server: LocalHub) -> None:
    server.repos[OWN].licence, server.repos[SHARED].licence = "apache-2.0", None
    assert fetch(cache).warnings == (
        f"{OWN} is under the licence 'apache-2.0', not mit. Check that you may use it.",
        f"{SHARED} is under the licence 'none named', not mit. Check that you may use it.",
    )


def test_the_disk_must_have_room_for_all_of_them(
    cache: Path, server: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = total_bytes(server, OWN, SHARED) + hub._SPARE_DISK_BYTES
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=free - 1))
    assert refusal(cache).startswith(f"{OWN} and {SHARED} together need 0.00 GB on disk")
    assert [request for request in server.requests if "/resolve/" in request.path] == []
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=free))
    assert origins(fetch(cache)) == commits(OWN)


def test_a_file_that_the_other_repo_lacks_is_told_with_its_repo_before_anything_is_fetched(
    cache: Path, server: LocalHub
) -> None:
    del server.repos[SHARED].files["ve.safetensors"]
    message = refusal(cache)
    assert message.startswith(f"{SHARED} has no ve.safetensors, which pack takes from there.")
    assert "%tts_load pack --source FOLDER" in message
    assert server.downloads("t3_cfg.safetensors") == []


def test_an_other_repo_that_cannot_be_read_is_named(cache: Path, server: LocalHub) -> None:
    del server.repos[SHARED]
    assert refusal(cache).startswith(f"The hub has no repo {SHARED} that you may read.")


def test_a_voice_that_the_other_repo_lacks_can_be_done_without(cache: Path, server: LocalHub) -> None:
    del server.repos[SHARED].files["conds.pt"]
    files = fetch(cache)
    assert not files.has("voice")
    server.requests.clear()
    assert fetch(cache) == files
    assert server.requests == []


def test_offline_what_is_missing_is_told_with_its_repo(
    cache: Path, server: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in server.repos[OWN].files:
        huggingface_hub.hf_hub_download(OWN, name, cache_dir=cache)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert f"{cache} lacks ve.safetensors of {SHARED}. Unset it" in refusal(cache)


# Another repo than the model's own


def test_of_a_named_repo_what_it_lacks_comes_from_where_the_spec_has_it(cache: Path, server: LocalHub) -> None:
    files = fetch(cache, FORK)
    assert origins(files) == commits(FORK)
    assert files.origin == f"{FORK}@ccccccc"
    server.requests.clear()
    assert fetch(cache, FORK) == files
    assert server.requests == [], "what a repo does not have is remembered"


def test_of_a_named_repo_what_it_has_itself_is_taken(cache: Path, server: LocalHub) -> None:
    server.repos[FORK].files["conds.pt"] = b"a voice of my own"
    files = fetch(cache, FORK)
    assert files.path("voice").read_bytes() == b"a voice of my own"
    assert origins(files) == {**commits(FORK), "voice": COMMITS[FORK]}
    assert server.downloads("conds.pt", SHARED) == []


def test_of_the_models_own_repo_a_file_that_is_elsewhere_is_not_taken(cache: Path, server: LocalHub) -> None:
    server.repos[OWN].files["conds.pt"] = b"some other voice"
    assert origins(fetch(cache)) == commits(OWN)


def test_a_named_repo_must_have_what_is_the_models_own(cache: Path, server: LocalHub) -> None:
    del server.repos[FORK].files["tokenizer.json"]
    assert refusal(cache, FORK).startswith(f"{FORK} has no tokenizer.json, which pack needs. Is it the right repo")


def test_offline_a_named_repo_that_the_hubs_own_client_fetched_is_enough(
    cache: Path, server: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    for repo in (FORK, SHARED):
        for name in server.repos[repo].files:
            huggingface_hub.hf_hub_download(repo, name, cache_dir=cache)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert origins(fetch(cache, FORK)) == commits(FORK)


# A folder


def test_a_folder_must_have_every_file_and_says_where_one_comes_from(server: LocalHub, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for repo in (OWN, SHARED):
        for name, content in server.repos[repo].files.items():
            (folder / name).write_bytes(content)
    assert source.in_folder(PACK, folder, "").paths.keys() == {file.role for file in PACK.files}
    (folder / "ve.safetensors").unlink()
    with pytest.raises(SourceError) as caught:
        source.in_folder(PACK, folder, "")
    assert str(caught.value).startswith(f"{folder} has no ve.safetensors, which pack needs from {SHARED}.")


# Weights as .pt


def as_pt(server: LocalHub, repo: str, name: str) -> str:
    """Gives a repo the same file as `.pt`, as the published ones have it."""
    pickled = name.replace("safetensors", "pt")
    server.repos[repo].files[pickled] = b"pickled " + server.repos[repo].files[name]
    return pickled


def names(files: Files) -> set[str]:
    return {path.name for path in files.paths.values()}


def test_a_pt_in_the_cache_is_used_and_its_safetensors_file_not_fetched(
    cache: Path, server: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the package's own multilingual class leaves them."""
    for repo, name in ((OWN, "s3gen.safetensors"), (SHARED, "ve.safetensors")):
        huggingface_hub.hf_hub_download(repo, as_pt(server, repo, name), cache_dir=cache)
    files = fetch(cache)
    assert names(files) >= {"t3_cfg.safetensors", "s3gen.pt", "ve.pt"}
    assert server.downloads("s3gen.safetensors") == []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch(cache) == files


def test_of_both_in_the_cache_the_safetensors_file_is_used(cache: Path, server: LocalHub) -> None:
    pickled = as_pt(server, OWN, "s3gen.safetensors")
    for name in (pickled, "s3gen.safetensors"):
        huggingface_hub.hf_hub_download(OWN, name, cache_dir=cache)
    assert pickled not in names(fetch(cache))


def test_of_both_on_the_hub_the_safetensors_file_is_fetched(cache: Path, server: LocalHub) -> None:
    pickled = as_pt(server, OWN, "s3gen.safetensors")
    assert pickled not in names(fetch(cache))
    assert server.downloads(pickled) == []


def test_a_repo_that_has_the_pt_alone_is_fetched_with_it(cache: Path, server: LocalHub) -> None:
    pickled = as_pt(server, OWN, "s3gen.safetensors")
    del server.repos[OWN].files["s3gen.safetensors"]
    files = fetch(cache)
    assert pickled in names(files)
    server.requests.clear()
    assert fetch(cache) == files
    assert server.requests == []


def test_a_process_that_has_imported_nothing_else_is_told_too(tmp_path: Path) -> None:
    """The client's submodules are attributes only once somebody has imported them."""
    asked = (
        "from pathlib import Path; from chatterbox_nb.checkpoint import source; "
        f"source.find('turbo', cache=Path({str(tmp_path)!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    assert "SourceError: HF_HUB_OFFLINE is set and" in done.stderr

"""Where a checkpoint's files are found, and what is said when they are not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from chatterbox_nb.checkpoint import catalog, source
from chatterbox_nb.checkpoint.catalog import DEMO_FOLDER, ENGLISH
from chatterbox_nb.checkpoint.synthetic import TINY
from chatterbox_nb.errors import CheckpointError, SourceError, TTSError

NAMES = [file.name for file in ENGLISH.files]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of the right names, without a spec of their own."""
    folder = tmp_path / "voices" / "chatterbox"
    folder.mkdir(parents=True)
    for name in NAMES:
        (folder / name).touch()
    return folder


def refusal(model: str, where: str | Path) -> str:
    with pytest.raises(SourceError) as caught:
        source.find(model, where)
    message = str(caught.value)
    assert "\n" not in message
    return message


# Found


def test_the_demo_is_embedded() -> None:
    spec, files = source.find("demo")
    assert spec == catalog.spec("demo")
    assert files.origin == "embedded"
    assert files.path("t3") == DEMO_FOLDER / "t3_cfg.safetensors"
    assert all(path.is_file() for path in files.paths.values())


def test_the_demo_is_what_is_found_when_nothing_is_named() -> None:
    assert source.find() == source.find("demo")


def test_a_folder_without_a_spec_holds_the_named_model(folder: Path) -> None:
    spec, files = source.find("english", folder)
    assert spec is ENGLISH
    assert files.origin == str(folder)
    assert dict(files.paths) == {file.role: folder / file.name for file in ENGLISH.files}


def test_a_folder_with_a_spec_holds_what_it_says(tiny_folder: Path) -> None:
    spec, files = source.find("english", tiny_folder)
    assert spec == TINY
    assert files.path("t3").parent == tiny_folder


def test_another_programs_config_in_a_folder_is_overlooked(folder: Path) -> None:
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    assert source.find("english", folder)[0] is ENGLISH


def test_a_folder_may_be_named_as_text_and_from_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    by_path, by_text, by_home = (source.find("english", where) for where in (folder, str(folder), "~/chatterbox"))
    assert by_path == by_text == by_home


def test_a_folder_that_looks_like_a_repo_is_a_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent.parent)
    _, files = source.find("english", "voices/chatterbox")
    assert files.path("t3").is_file()
    assert files.origin == "voices/chatterbox"


def test_the_voice_may_be_missing(folder: Path) -> None:
    (folder / "conds.pt").unlink()
    _, files = source.find("english", folder)
    assert not files.has("voice")
    assert files.has("t3")


# Not found


def test_a_file_instead_of_a_folder(folder: Path) -> None:
    path = folder / "t3_cfg.safetensors"
    assert refusal("english", path) == f"{path} is a file. Name the folder that holds the checkpoint's files."


def test_a_missing_folder_is_named_with_the_nearest(folder: Path) -> None:
    wrong = folder.parent / "chaterbox"
    assert refusal("english", wrong) == (
        f"There is no folder {wrong}, and it is no hub repo 'owner/name' either. Did you mean chatterbox?"
    )


def test_a_missing_folder_in_a_missing_folder_has_no_nearest(tmp_path: Path) -> None:
    wrong = tmp_path / "nowhere" / "chatterbox"
    assert refusal("english", wrong) == f"There is no folder {wrong}, and it is no hub repo 'owner/name' either."


@pytest.mark.parametrize("name", [file.name for file in ENGLISH.files if file.role != "voice"])
def test_a_missing_file_is_named_with_what_is_needed(folder: Path, name: str) -> None:
    (folder / name).unlink()
    message = refusal("english", folder)
    assert message.startswith(f"{folder} has no {name}, which english needs.")
    assert message.endswith(f"Needed: {', '.join(NAMES)}.")


def test_a_file_of_a_similar_name_is_pointed_at(folder: Path) -> None:
    (folder / "t3_cfg.safetensors").rename(folder / "t3_cfg.safetensor")
    assert "Did you mean t3_cfg.safetensor?" in refusal("english", folder)


def test_a_folder_in_the_place_of_a_file_is_no_file(folder: Path) -> None:
    (folder / "ve.safetensors").unlink()
    (folder / "ve.safetensors").mkdir()
    assert refusal("english", folder).startswith(f"{folder} has no ve.safetensors")


def test_a_spec_that_cannot_be_read_is_told_and_not_overlooked(tiny_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_folder, tmp_path / "copy")
    text = (copy / "config.json").read_text().replace('"chatterbox_nb": 1', '"chatterbox_nb": 2')
    (copy / "config.json").write_text(text)
    assert "is not a model spec this version reads" in refusal("english", copy)


def test_an_unknown_model_is_told_before_anything_is_looked_for(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="There is no model 'german'"):
        source.find("german", folder)


# Repos. The tests are offline (conftest), so that a repo shows in the message.


@pytest.mark.parametrize("repo", ["ResembleAI/chatterbox", "a/b", "me/my-voice_v2.1"])
def test_owner_slash_name_is_a_repo(repo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError) as caught:
        source.find("english", repo, cache=tmp_path / "cache")
    assert f"lacks {', '.join(NAMES[:4])} of {repo}" in str(caught.value)


def test_a_models_own_repo_is_asked_when_no_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="of ResembleAI/chatterbox"):
        source.find("english", cache=tmp_path)


@pytest.mark.parametrize(
    "where", ["./voices/mine", "../mine", "~/mine", "/nowhere/mine", "mine", "a/b/c", "-a/b", "owner/", "owner/na me"]
)
def test_what_cannot_be_a_repo_is_a_missing_folder(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert refusal("english", where).startswith("There is no folder ")


def test_a_path_is_never_a_repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert refusal("english", Path("owner/name")).startswith("There is no folder owner/name")


@pytest.mark.parametrize("where", ["/nowhere", "owner/name"])
def test_every_refusal_is_one_of_ours(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TTSError):
        source.find("demo", where, cache=tmp_path / "cache")


# Weights as .pt


def test_in_a_folder_weights_may_be_pt_where_there_is_no_safetensors_file(folder: Path) -> None:
    (folder / "ve.safetensors").rename(folder / "ve.pt")
    (folder / "s3gen.pt").touch()
    paths = source.find("english", folder)[1].paths
    assert (paths["voice_encoder"].name, paths["s3gen"].name) == ("ve.pt", "s3gen.safetensors")


def test_only_weights_have_a_second_name() -> None:
    assert {file.name: file.names[1:] for file in ENGLISH.files} == {
        "t3_cfg.safetensors": ("t3_cfg.pt",),
        "s3gen.safetensors": ("s3gen.pt",),
        "ve.safetensors": ("ve.pt",),
        "tokenizer.json": (),
        "conds.pt": (),
    }

"""Text to text tokens: the package's own, for what it can say; nothing a text contains is a command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatterbox_nb.checkpoint.catalog import DEMO_FOLDER
from chatterbox_nb.checkpoint.reference import import_package
from chatterbox_nb.engine.model import Model
from chatterbox_nb.engine.tokenizers.graphemes import English
from chatterbox_nb.errors import SourceError

SPEAKABLE = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,!?'-\":;—–…“”‘’"
SPECIAL = ["[STOP]", "[START]", "[UNK]", "[SPACE]"]


@pytest.fixture(scope="module", params=["demo", "tiny"])
def model(request: pytest.FixtureRequest) -> Model:
    return request.getfixturevalue("demo")() if request.param == "demo" else request.getfixturevalue("tiny")


@pytest.fixture(scope="module")
def tokenizer(model: Model) -> Any:
    return model.tokenizer


@pytest.fixture(scope="module")
def package(model: Model) -> Callable[[str], list[int]]:
    """`ChatterboxTTS.generate`'s own way from text to ids."""
    import_package()
    from chatterbox.models.tokenizers import EnTokenizer
    from chatterbox.tts import punc_norm

    theirs = EnTokenizer(str(model.files.path("tokenizer")))
    return lambda text: theirs.encode(punc_norm(text))


@settings(deadline=None, max_examples=300)
@given(text=st.text(SPEAKABLE, min_size=1, max_size=80).filter(lambda text: bool(text.strip())))
def test_ids_are_the_packages_for_text_it_can_say(
    tokenizer: Any, package: Callable[[str], list[int]], text: str
) -> None:
    assert tokenizer.encode(text) == package(text)


@pytest.mark.parametrize("text", ["hello there", "Is it you? Yes: 1, 2...", "don't — stop", 'say "this"', "x"])
def test_sentences_are_the_packages(tokenizer: Any, package: Callable[[str], list[int]], text: str) -> None:
    assert tokenizer.encode(text) == package(text)
    assert tokenizer.unspeakable(text) == ""


def test_a_chunk_begins_with_start_and_ends_with_stop(model: Model) -> None:
    ids = model.text_ids("hello").tolist()
    assert ids == [model.spec.t3.start_text, *model.tokenizer.encode("hello", "en"), model.spec.t3.stop_text]


# What cannot be said


@pytest.mark.parametrize("text", ["he😀llo", "hello 世界", "hello\u200b", "~hello~", "he|llo"])
def test_what_it_cannot_say_is_skipped_never_fed_as_unknown(
    tokenizer: Any, package: Callable[[str], list[int]], text: str
) -> None:
    unknown, theirs = tokenizer._unknown, package(text)
    assert unknown in theirs
    assert tokenizer.encode(text) == [token for token in theirs if token != unknown]


@settings(deadline=None, max_examples=200)
@given(text=st.text(min_size=1, max_size=40).filter(lambda text: bool(text.strip())))
def test_any_text_becomes_ids_of_the_vocabulary_without_a_command(model: Model, text: str) -> None:
    tokenizer: Any = model.tokenizer
    ids = tokenizer.encode(text)
    assert all(0 <= token < model.spec.t3.text_vocab for token in ids)
    assert not {model.spec.t3.start_text, model.spec.t3.stop_text, tokenizer._unknown} & set(ids)


def test_unspeakable_lists_each_character_once_in_order(tokenizer: Any) -> None:
    assert tokenizer.unspeakable("日 hello 😀 日本 {x}") == "日😀本{}"


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_nothing_is_unspeakable_of_nothing(tokenizer: Any, text: str) -> None:
    assert tokenizer.unspeakable(text) == ""


def test_what_is_only_written_otherwise_can_be_said(tokenizer: Any) -> None:
    """Typographic quotes and dashes are replaced before they are looked up."""
    assert tokenizer.unspeakable("“Don’t” – he said… wait: yes; no—") == ""


# Commands


@pytest.mark.parametrize("token", SPECIAL)
@pytest.mark.parametrize(
    "text", ["say {} now", "{}", "{0}{0}", "[{}]", "[[{}]]", "[ST{}OP]", "[STOP{}", "{}]", "[{}[{}]]"]
)
def test_a_special_token_in_a_text_is_a_word(model: Model, token: str, text: str) -> None:
    """Else "[STOP]" would end a chunk, and what a cell speaks may come from anywhere."""
    text = text.format(token, token) if "0" not in text else text.format(token)
    tokenizer: Any = model.tokenizer
    inner = tokenizer._tokenizer
    spoken = tokenizer.encode(text)
    commands = {inner.token_to_id(special) for special in SPECIAL if special != "[SPACE]"}
    assert not commands & set(spoken)
    assert spoken.count(inner.token_to_id("[SPACE]")) == text.count(" ")
    assert spoken == tokenizer.encode(text.replace("[", "").replace("]", ""))


def test_special_tokens_in_other_widths_are_no_commands(model: Model) -> None:
    """NFKD turns full-width brackets into plain ones."""
    full_width = "［ＳＴＯＰ］"
    assert model.spec.t3.stop_text not in model.tokenizer.encode(f"say {full_width} now", "en")


# Files


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is not this model's tokenizer"):
        English(tmp_path / "tokenizer.json", 100)


def test_a_file_that_is_no_tokenizer_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(SourceError, match=r"is not this model's tokenizer.*Delete it and load again"):
        English(tmp_path / "tokenizer.json", 100)


def test_a_tokenizer_of_a_larger_model_is_an_error_with_both_numbers() -> None:
    with pytest.raises(SourceError, match="it has 48 tokens and the model 47"):
        English(DEMO_FOLDER / "tokenizer.json", 47)


def test_a_tokenizer_without_start_and_stop_is_an_error(tmp_path: Path) -> None:
    content: dict[str, Any] = json.loads((DEMO_FOLDER / "tokenizer.json").read_text())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] != "[STOP]"]
    del content["model"]["vocab"]["[STOP]"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(SourceError, match=r"it lacks \[STOP\]"):
        English(tmp_path / "tokenizer.json", 48)

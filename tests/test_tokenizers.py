"""The tokenizers of Turbo and of the multilingual models: the package's own ids, and what each says it cannot read."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatterbox_nb.checkpoint import synthetic_text
from chatterbox_nb.checkpoint.catalog import MULTILINGUAL_V3, TURBO
from chatterbox_nb.checkpoint.reference import import_package
from chatterbox_nb.checkpoint.source import Files
from chatterbox_nb.checkpoint.spec import ModelSpec
from chatterbox_nb.checkpoint.synthetic import TINY_MULTILINGUAL
from chatterbox_nb.engine import oracle
from chatterbox_nb.engine.tokenizers.readers import HELP, Reader
from chatterbox_nb.engine.tokens import TextTokenizer, tokenizer_of
from chatterbox_nb.errors import SourceError
from chatterbox_nb.languages import LANGUAGES
from chatterbox_nb.tags import TAGS
from chatterbox_nb.text import normalize_punctuation

SENTENCES = {
    "ar": "مرحبا، كيف حالك اليوم؟", "da": "Hvor er æblet på øen?", "de": "Grüße aus Köln, schöne Straße!",
    "el": "Καλημέρα, τι κάνεις;", "en": "Don't stop: it's fine…", "es": "¿Dónde está el niño?", "fi": "Hyvää päivää.",
    "fr": "Où est la forêt, ça va ?", "he": "שלום, מה שלומך?", "hi": "नमस्ते, आप कैसे हैं।", "it": "Perché no?",
    "ja": "今日は東京へ行きます。カタカナ、がぎぐ！", "ko": "안녕하세요. 어떻게 지내세요?", "ms": "Apa khabar?",
    "nl": "Één, twee.", "no": "Blåbær på fjellet.", "pl": "Zażółć gęślą jaźń.", "pt": "Olá, não é?",
    "ru": "Привет, как дела?", "sv": "Räksmörgås på ö.", "sw": "Habari yako?", "tr": "Güneş ışığı çok İyi.",
    "zh": "你好，世界！今天是 A 日。",
}  # fmt: skip


def files_of(spec: ModelSpec, folder: Path) -> Files:
    synthetic_text.write(spec, folder)
    roles = {file.role: folder / file.name for file in spec.files}
    return Files(str(folder), {role: path for role, path in roles.items() if path.exists()})


@pytest.fixture(scope="module", params=[TINY_MULTILINGUAL, MULTILINGUAL_V3], ids=lambda spec: spec.name)
def multilingual(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[TextTokenizer, Any]:
    """Ours, and the package's way from text and language to ids."""
    import_package()
    from chatterbox.mtl_tts import punc_norm

    spec = request.param
    files = files_of(spec, tmp_path_factory.mktemp(spec.name))
    theirs = oracle.text_tokenizer(spec, files)
    return tokenizer_of(spec, files), lambda text, code: theirs.encode(punc_norm(text), language_id=code)


@pytest.fixture(scope="module")
def turbo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("turbo")
    files_of(TURBO, folder)
    return folder


@pytest.fixture(scope="module")
def turbo(turbo_folder: Path) -> TextTokenizer:
    return tokenizer_of(TURBO, files_of(TURBO, turbo_folder))


@pytest.fixture(scope="module")
def auto(turbo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[int]]:
    """`ChatterboxTurboTTS.generate`'s own way from text to ids."""
    import_package()
    from chatterbox.tts_turbo import punc_norm
    from transformers import AutoTokenizer

    with oracle.quiet():
        theirs = AutoTokenizer.from_pretrained(turbo_folder)
    return lambda text: theirs(punc_norm(text)).input_ids


# The multilingual models


@pytest.mark.parametrize("code", LANGUAGES)
def test_ids_are_the_packages_in_every_language(multilingual: tuple[TextTokenizer, Any], code: str) -> None:
    ours, theirs = multilingual
    ids = ours.encode(SENTENCES[code], code)
    assert ids == theirs(SENTENCES[code], code)
    assert ours.unspeakable(SENTENCES[code], code) == ""


@settings(deadline=None, max_examples=80)
@given(
    text=st.text("abcXYZ 你好国國曱甲日本へは東がカ한국어éß.,…:;—、。？！", min_size=1, max_size=30),
    code=st.sampled_from(["zh", "ja", "ko", "fr"]),
)
def test_ids_are_the_packages_less_the_unknown_on_any_text(
    multilingual: tuple[TextTokenizer, Any], text: str, code: str
) -> None:
    ours, theirs = multilingual
    if not text.strip():
        return
    unknown = ours._unknown  # type: ignore[attr-defined]
    assert ours.encode(text, code) == [token for token in theirs(text, code) if token != unknown]


def test_characters_that_share_a_code_differ_by_their_place(multilingual: tuple[TextTokenizer, Any]) -> None:
    ours, _ = multilingual
    assert len(ours.encode("甲", "zh")) == len(ours.encode("曱", "zh")) + 1


@pytest.mark.parametrize("text", ["say [fr] now", "[cj_a][cj_.]", "［ｆｒ］", "[STOP][SPACE]", "[[fr]fr]"])
def test_nothing_in_a_text_is_a_command(multilingual: tuple[TextTokenizer, Any], text: str) -> None:
    ours, _ = multilingual
    inner = ours._tokenizer  # type: ignore[attr-defined]
    first, *others = ours.encode(text, "en")
    assert first == inner.token_to_id("[en]")
    special = set(inner.get_added_tokens_decoder()) - {inner.token_to_id("[SPACE]")}
    assert not special & set(others)


@pytest.mark.parametrize(
    ("text", "code", "missing"),
    [
        ("你好龘😀", "zh", "龘😀"),
        ("hello ☃", "en", "☃"),
        ("東京☃", "ja", "☃"),
        ("東京", "en", "東京"),
        ("  ", "fr", ""),
    ],
)
def test_what_it_cannot_say_is_named(
    multilingual: tuple[TextTokenizer, Any], text: str, code: str, missing: str
) -> None:
    assert multilingual[0].unspeakable(text, code) == missing


# What a language needs


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("he", "Hebrew is read without vowel points: dicta_onnx is not installed. %pip install dicta-onnx"),
        ("ru", "Russian is read without stress marks: russian_text_stresser is not installed. %pip install git+"),
        ("ja", "Kanji are not read as they are said: pykakasi is not installed. %pip install pykakasi"),
        ("zh", "Chinese is not cut into words: spacy_pkuseg is not installed. %pip install spacy-pkuseg"),
    ],
)
def test_a_package_that_is_not_installed_is_named_with_its_command(
    monkeypatch: pytest.MonkeyPatch, code: str, says: str
) -> None:
    monkeypatch.setitem(sys.modules, HELP[code].module.split(".")[0], None)
    reader = Reader(HELP[code])
    assert reader("text") == "text"
    assert reader.problem("text").startswith(says)


def test_a_segmenter_without_its_model_says_how_to_fetch_it_and_does_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = pytest.importorskip("spacy_pkuseg.config").config  # Colab's stack does without
    monkeypatch.setattr(config, "pkuseg_home", str(tmp_path))
    reader = Reader(HELP["zh"])
    assert reader("你好") == "你好"
    assert "spacy_pkuseg's model is not on this machine. To fetch it: !python -c" in reader.problem("你好")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("text", "read"), [("abc", "abc!"), ("bad", "bad")])
def test_a_text_that_a_package_fails_on_is_read_as_it_is_and_said(
    monkeypatch: pytest.MonkeyPatch, text: str, read: str
) -> None:
    class Dicta:
        def add_diacritics(self, text: str) -> str:
            if text == "bad":
                raise ValueError("no model")
            return text + "!"

    package = types.ModuleType("dicta_onnx")
    package.Dicta = Dicta  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "dicta_onnx", package)
    reader = Reader(HELP["he"])
    assert reader(text) == read
    problem = "Hebrew is read without vowel points: dicta_onnx failed (ValueError: no model)."
    assert reader.problem(text) == (problem if text == "bad" else "")


def test_a_language_that_needs_nothing_is_not_warned_about(multilingual: tuple[TextTokenizer, Any]) -> None:
    assert multilingual[0].warnings(SENTENCES["fr"], "fr") == []
    assert multilingual[0].warnings(SENTENCES["ja"], "ja") == []


# Turbo


@settings(deadline=None, max_examples=150)
@given(text=st.text(min_size=1, max_size=40).filter(lambda text: bool(text.strip())))
def test_turbos_ids_are_the_packages_on_any_text(
    turbo: TextTokenizer, auto: Callable[[str], list[int]], text: str
) -> None:
    assert turbo.encode(text, "en") == auto(text)
    assert turbo.unspeakable(text, "en") == ""


@pytest.mark.parametrize(
    "text", ["Oh [laugh] no.", "[clear throat]Hm", "[sigh] [sigh]", "x[gasp]y", "[laughs] [Laugh]"]
)
def test_tags_are_the_packages(turbo: TextTokenizer, auto: Callable[[str], list[int]], text: str) -> None:
    assert turbo.encode(text, "en") == auto(text)


def test_every_tag_is_one_token_at_its_published_place(turbo: TextTokenizer) -> None:
    assert turbo.tags == TAGS
    assert [turbo.encode(tag, "en")[0] for tag in TAGS] == list(range(50257, 50276))


def test_the_end_of_a_text_is_words_in_a_text(turbo: TextTokenizer) -> None:
    assert 50256 not in turbo.encode("a <|endoftext|> b", "en")


@pytest.mark.parametrize("text", ["Wait... what?", "One - two; three: four…", "“Yes” — he said,", "so ,"])
def test_turbos_punctuation_is_the_packages(text: str) -> None:
    import_package()
    from chatterbox.tts_turbo import punc_norm

    assert normalize_punctuation(text, TURBO.text) == punc_norm(text)


@pytest.mark.parametrize("text", ["你好。", "好，", "好、", "好？", "好！", "好", "a; b... c", "Γεια"])
def test_multilingual_punctuation_is_the_packages(text: str) -> None:
    import_package()
    from chatterbox.mtl_tts import punc_norm

    assert normalize_punctuation(text, MULTILINGUAL_V3.text) == punc_norm(text)


# Files


@pytest.mark.parametrize(
    ("role", "content", "says"),
    [
        ("tokenizer", "{}", "it lacks 256 of the 256 bytes"),
        ("merges", "#version: 0.2\nz q\n", "is not of this model's tokenizer"),
        ("added_tokens", '{"[laugh]": 50300}', r"\[laugh\] would not be the tokens that it says"),
        ("added_tokens", "[", "is not of this model's tokenizer"),
    ],
)
def test_a_file_that_is_not_of_turbos_tokenizer_is_an_error(tmp_path: Path, role: str, content: str, says: str) -> None:
    files = files_of(TURBO, tmp_path)
    files.path(role).write_text(content)
    with pytest.raises(SourceError, match=says):
        tokenizer_of(TURBO, files)


def test_a_tokenizer_without_a_token_for_a_language_is_an_error(tmp_path: Path) -> None:
    files = files_of(TINY_MULTILINGUAL, tmp_path)
    with pytest.raises(SourceError, match=r"it lacks \[tlh\]"):
        tokenizer_of(replace(TINY_MULTILINGUAL, languages=("en", "tlh")), files)


def test_a_table_that_is_none_is_an_error(tmp_path: Path) -> None:
    files = files_of(TINY_MULTILINGUAL, tmp_path)
    files.path("cangjie").write_text('["no tab"]')
    with pytest.raises(SourceError, match="is not a table of Cangjie codes"):
        tokenizer_of(TINY_MULTILINGUAL, files)

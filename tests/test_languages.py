"""Languages: how one is named, and what of a text's rules differs with it."""

from __future__ import annotations

import pytest

from chatterbox_nb.checkpoint.reference import import_package
from chatterbox_nb.errors import SettingError
from chatterbox_nb.languages import LANGUAGES, find, rules_of
from chatterbox_nb.text import TextRules, chunks

ALL = tuple(LANGUAGES)


def test_they_are_the_packages_with_its_names() -> None:
    import_package()
    from chatterbox.mtl_tts import SUPPORTED_LANGUAGES

    assert {code: row.name for code, row in LANGUAGES.items()} == SUPPORTED_LANGUAGES


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("fr", "fr"), (" FR ", "fr"), ("french", "fr"), ("French", "fr"), ("zh-cn", "zh"), ("zh_CN", "zh"),
        ("pt-br", "pt"), ("en-US", "en"), ("cmn", "zh"), ("Mandarin", "zh"), ("nb", "no"), ("iw", "he"),
    ],
)  # fmt: skip
def test_a_language_is_known_by_code_region_and_english_name(said: str, code: str) -> None:
    assert find(said, ALL, "multilingual") == code


@pytest.mark.parametrize(
    ("said", "near"), [("frnch", "Did you mean French?"), ("Chinees", "Did you mean Chinese?"), ("tlh", "")]
)
def test_a_wrong_one_is_refused_with_the_list_and_the_nearest(said: str, near: str) -> None:
    with pytest.raises(SettingError) as caught:
        find(said, ALL, "multilingual")
    message = str(caught.value)
    assert message.startswith(f"multilingual does not speak '{said}'; it speaks ar (Arabic), da (Danish), ")
    assert message.endswith(near or ".")


def test_one_that_another_model_speaks_is_refused() -> None:
    with pytest.raises(SettingError, match=r"english does not speak 'fr'; it speaks en \(English\)\."):
        find("fr", ("en",), "english")


def test_the_rules_of_english_are_the_models_own() -> None:
    rules = TextRules(max_chars=120, lowercase=True)
    assert rules_of(rules, "en") == rules


def test_a_chinese_chunk_is_shorter_and_its_many_text_tokens_give_no_larger_budget() -> None:
    english = TextRules()
    chinese = rules_of(english, "zh")
    assert chinese.max_chars == 98
    five_to_a_character = 5 * chinese.max_chars
    assert chinese.budget(five_to_a_character) < english.budget(five_to_a_character) / 2


def test_sentences_of_a_script_without_spaces_are_joined_without_one() -> None:
    text = "你好。世界很大。\n今天很好。"
    assert [chunk.text for chunk in chunks(text, rules_of(TextRules(), "zh"))] == ["你好。世界很大。今天很好。"]
    hello = "Hei. Hva?"
    assert [chunk.text for chunk in chunks(hello, rules_of(TextRules(), "no"))] == [hello]


def test_a_long_sentence_without_spaces_is_cut_after_its_commas() -> None:
    text = "今天天气很好，我们去公园，看花，吃饭，然后回家。"
    found = [chunk.text for chunk in chunks(text, rules_of(TextRules(), "zh"), max_chars=12)]
    assert found == ["今天天气很好，", "我们去公园，看花，吃饭，", "然后回家。"]
    assert "".join(found) == text


def test_words_of_latin_script_keep_their_spaces_there() -> None:
    found = [chunk.text for chunk in chunks("我们用 Jupyter Notebook 写字", rules_of(TextRules(), "zh"), max_chars=16)]
    assert found == ["我们用 Jupyter", "Notebook 写字"]


@pytest.mark.parametrize("code", ALL)
def test_two_sentences_are_told_apart_in_every_language(code: str) -> None:
    first, second = {
        "ar": ("مرحبا.", "كيف حالك؟"), "hi": ("नमस्ते।", "आप कैसे हैं?"), "zh": ("今天天气很好。", "你在哪里？"),
        "ja": ("こんにちは。", "元気ですか？"), "el": ("Γεια.", "Τι κάνεις;"), "ru": ("Привет.", "Как дела?"),
    }.get(code, ("Alba rosa.", "Dove sono?"))  # fmt: skip
    rules = rules_of(TextRules(max_chars=40), code)
    found = chunks(first + rules.joiner + second, rules, max_chars=len(first + second) - 1)
    assert [chunk.text for chunk in found] == [first, second]

"""Tags: which there are, what is said of others, and that no chunk cuts one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatterbox_nb.tags import DELIVERIES, SOUNDS, TAGS, problems
from chatterbox_nb.text import TextRules, chunks

RULES = TextRules(tags=TAGS)


def test_there_are_nine_sounds_and_ten_deliveries() -> None:
    assert (len(SOUNDS), len(DELIVERIES), len(set(TAGS))) == (9, 10, 19)


def test_a_word_in_brackets_that_is_no_tag_is_told_with_the_nearest() -> None:
    assert problems("Oh [laughs] well [laugh].", TAGS, "turbo") == [
        "[laughs] is no tag of turbo, it is read as text. Did you mean [laugh]?"
    ]


@pytest.mark.parametrize("text", ["[clear throat] Hm.", "a [3] b", "x[0]", "[]", "no brackets"])
def test_tags_and_what_is_no_word_are_not_told(text: str) -> None:
    assert problems(text, TAGS, "turbo") == []


def test_many_wrong_ones_are_told_in_short() -> None:
    told = problems(" ".join(f"[w{'x' * count}]" for count in range(9)), TAGS, "turbo")
    assert len(told) == 6
    assert told[-1] == "4 more words in brackets are no tags of turbo."


def test_a_model_without_tags_tells_those_of_others_alone() -> None:
    assert problems("[sigh] Ah [sic].", (), "english") == ["english has no tags: [sigh] is read as text."]


@pytest.mark.parametrize("limit", [10, 15, 40])
@given(words=st.lists(st.sampled_from([*TAGS, "well", "now,", "so.", "a" * 30, "x[clear throat]y"]), min_size=1))
@settings(deadline=None, max_examples=60)
def test_no_chunk_cuts_a_tag(limit: int, words: list[str]) -> None:
    text = " ".join(words)
    spoken = " ".join(chunk.text for chunk in chunks(text, RULES, limit))
    assert {tag: spoken.count(tag) for tag in TAGS} == {tag: text.count(tag) for tag in TAGS}


def test_a_tag_alone_is_spoken() -> None:
    assert [chunk.text for chunk in chunks("[clear throat]", RULES, 10)] == ["[clear throat]"]

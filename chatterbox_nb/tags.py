"""Tags in square brackets, which Turbo and Nano speak as a sound or a delivery: data, and what is wrong with others."""

from __future__ import annotations

import re
from collections.abc import Sequence

from chatterbox_nb.errors import nearest

SOUNDS = (
    "[laugh]", "[chuckle]", "[gasp]", "[cough]", "[sigh]", "[groan]", "[sniff]", "[shush]", "[clear throat]",
)  # fmt: skip
DELIVERIES = (
    "[whispering]", "[angry]", "[fear]", "[surprised]", "[crying]", "[happy]", "[sarcastic]", "[dramatic]",
    "[narration]", "[advertisement]",
)  # fmt: skip
TAGS = (*SOUNDS, *DELIVERIES)

_BRACKETED = re.compile(r"\[[^\W\d_][^\[\]\n]{0,30}\]")
_MOST = 5  # that are told one by one


def problems(text: str, tags: Sequence[str], model: str) -> list[str]:
    """What a listener should know of the words in brackets that are no tags of a model.

    Args:
        tags: the model's own; of a model without any, only words that are tags elsewhere are told.
    """
    wrong = [word for word in dict.fromkeys(_BRACKETED.findall(text)) if word not in tags]
    if not tags:
        wrong = [word for word in wrong if word in TAGS]
        return [f"{model} has no tags: {', '.join(wrong)} is read as text."] if wrong else []
    told = [f"{word} is no tag of {model}, it is read as text.{nearest(word, tags)}" for word in wrong[:_MOST]]
    more = len(wrong) - _MOST
    return [*told, f"{more} more words in brackets are no tags of {model}."] if more > 0 else told

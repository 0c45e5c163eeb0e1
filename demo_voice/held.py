"""What the ruler of precisions reads: held-out utterances with their tokens, and sentences by kind."""

from __future__ import annotations

from pathlib import Path

from demo_voice import store, t3, texts
from demo_voice.recipe import NEUTRAL, Recipe

_UTTERANCES = 120


def write(folder: Path, recipe: Recipe) -> dict[str, int]:
    """`data/heldout.json` and `data/sentences.json`. Utterances are neutral, the first speaker's."""
    speech = t3.Speech(folder)
    chosen = [
        i
        for i in range(speech.trained, len(speech.texts))
        if speech.speaker[i] == 0 and speech.exaggeration[i] == NEUTRAL
    ]
    data = [
        {"text": _as_written(speech.texts[i]), "speech_tokens": speech.of(i).tolist()} for i in chosen[:_UTTERANCES]
    ]
    store.save_json(folder / "data/heldout.json", data)
    store.save_json(folder / "data/sentences.json", texts.evaluation())
    return {"utterances": len(data)}


def _as_written(text: str) -> str:
    """With a capital first letter, as the text rules write a sentence."""
    return text[0].upper() + text[1:]

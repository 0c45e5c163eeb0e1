"""The model card, docs/demo-voice.md, made from `results/demo_voice.json`: `python -m demo_voice.card` rewrites it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import pages
from demo_voice import stages, store
from demo_voice.recipe import SPEAKERS, STRANGERS, USED_CODES
from demo_voice.traits import ALIKE

RESULTS, PAGE = pages.results_of("demo_voice"), pages.page_of("demo-voice")
_KINDS = {
    "template": "sentences by template, 50",
    "digits": "readings of four digits, 20",
    "unseen": "three words it was never trained on, 40",
    "natural": "natural sentences, heard openly, 24",
}


def results(folder: Path) -> dict[str, Any]:
    """What a run told, with the machine it ran on."""
    told = {stage.name: store.load_json(stages.report(folder, stage)) for stage in stages.STAGES}
    return {**pages.here("make demo-voice"), "stages": told}


def words(evaluation: dict[str, Any]) -> str:
    lines = pages.head(
        "words lost, %", "espeak-ng: first", "second", "its tokens, through flow and vocoder: first", "second",
        "**text to speech: first** [95 %]", "each seed", "second [95 %]",
    )  # fmt: skip
    for kind, about in _KINDS.items():
        found = evaluation["words"][kind]
        cells = [
            *(f"{one['wer']:.1f}" for one in (*found["espeak"], *found["resynthesis"])),
            f"**{found['first']['wer']:.1f}** {_between(found['first'])}",
            ", ".join(f"{run:.1f}" for run in found["first"]["runs"]),
            f"{found['second']['wer']:.1f} {_between(found['second'])}",
        ]
        lines.append(f"| {about} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _between(rate: dict[str, Any]) -> str:
    low, high = rate["interval"]
    return f"[{low:.1f}, {high:.1f}]"


def rows(told: list[dict[str, float]]) -> str:
    """A table of dictionaries with the same keys."""
    lines = pages.head(*(key.replace("_", " ") for key in told[0]))
    return "\n".join([*lines, *(f"| {' | '.join(f'{value:g}' for value in one.values())} |" for one in told)])


def trained(told: dict[str, Any]) -> str:
    """What each stage took and came to."""
    lines = pages.head("stage", "minutes", "told")
    for name, one in told.items():
        if name != "evaluation":
            said = ", ".join(f"{key.replace('_', ' ')} {value:g}" for key, value in one.items() if "seconds" not in key)
            lines.append(f"| {name} | {one['stage_seconds'] / 60:.1f} | {said} |")
    return "\n".join(lines)


def page(found: dict[str, Any]) -> str:
    told = found["stages"]
    strangers = ", ".join(f"`{voice}`" for voice in STRANGERS)
    evaluation, checkpoint, like = told["evaluation"], told["checkpoint"], told["evaluation"]["likeness"]
    return f"""# The demo voice: a model card

Made by `python -m demo_voice.card` from `benchmarks/results/demo_voice.json`; a test holds it to that.

A text-to-speech model in Chatterbox's own architecture, {checkpoint["parameters"] / 1e6:.1f} million numbers in
{checkpoint["bytes"] / 1e6:.1f} MB, trained from nothing by `make demo-voice`. It is embedded in chatterbox-nb as `demo`.

## What it is for

Notebooks, tests and CI that must run without a network, and judging precisions by an ear: it is small, it really speaks,
and a program understands it. It is not for listening to: it sounds like the synthesizer it learned from, through a small
vocoder. Judge Chatterbox by `english`.

## What it learned from

* **Speech**: what espeak-ng says, voices `{SPEAKERS[0]}` and `{SPEAKERS[1]}`, {told["sound"]["hours"]:g} hours as audio and
  {told["speech"]["hours"]:g} as speech tokens. Exaggeration from 0 to 1 is the range of espeak-ng's pitch, and a tenth of
  its pace up or down. For the speaker encoders also {strangers}. No person's voice is in it.
* **Words**: `demo_voice/words.txt`, the likeliest 15,500 words that are both in the CMU pronouncing dictionary and in
  Debian's American word list, cleaned of rude and cruel ones by the list of PyPI's `better-profanity` and by reading it whole; words
  that are none, spelled by the statistics of those; sentences by pattern. 118 words, and all that begin with them, are
  held out.
* **Tokens**: the S3 tokenizer was trained with phonemes, pitch and both speakers' mels as its teachers. {USED_CODES} of its
  6561 codes are used; the other rows of the tables are one row, stored once.

## How well it speaks

pocketsphinx 5.0.4 with its own en-us acoustic model hears it: templates and digits with a grammar each, unseen words as
three of the 118, natural sentences with its model of English. Temperature 0.8, guidance 0.5, 10 steps, fp32. espeak-ng
says nothing twice the same to the sample: it is heard as often as there are seeds. Intervals are over sentences drawn anew
with replacement.

{words(evaluation)}

**Who speaks**, cosines by its voice encoder, of 12 sentences and two speakers. A clip of a speaker to that speaker's own:
{like["clip_own_mean"]:.3f}, at the least {like["clip_own"]:.3f}; to the other's at the most {like["clip_other"]:.3f}. What is
spoken with a speaker's clip to that clip: {like["take_own_mean"]:.3f}, at the least {like["take_own"]:.3f}, and {like["takes_like"]}
of {like["takes"]} takes at least {ALIKE}; to the other's at the most {like["take_other"]:.3f}. It knows two; a clip of anyone else
gives something between.

**Exaggeration**, built-in voice: spread of the pitch between the 10th and the 90th percentile, and pace.

{rows(evaluation["exaggeration"])}

**Guidance**, built-in voice: words lost of templates, and nats by which the drawn tokens are likelier with the text than
without it.

{rows(evaluation["guidance"])}

## How it was made

{trained(told)}

{found["date"]}, {pages.where(found)}; two stages side by side, a process of one thread each, other work beside them. A
stage that is done is not made again; one that broke goes on from its last 500 steps as if it had not. What a step sees
depends on the seed and its number alone: on one machine the same recipe gives the same data and the same losses. Another
processor rounds differently. {found.get("note", "")}

`make demo-voice-quick`, in CI, goes through every stage in minutes; what it makes is not understood.

## Limits

* One language, two voices, chunks of up to 120 characters. Numbers, abbreviations and capitals are written out by text
  rules first.
* Words unlike any it was trained on are often read wrongly, as the table says.
* Cloning: it tells its two speakers apart and gives them back. Nothing follows from it for a person's voice.

## Licences

* The weights are under this project's licence, MIT.
* espeak-ng is GPL-3.0 as a program and not contained; what it speaks is not covered by its licence.
* The word list is drawn from the CMU pronouncing dictionary (BSD) and Debian's `wamerican` (SCOWL, permissive).
* pocketsphinx and its en-us models (BSD) judge the voice and are not contained.
"""


def rewrite() -> None:
    PAGE.write_text(page(pages.committed(RESULTS)), encoding="utf-8")


if __name__ == "__main__":
    rewrite()

"""What quality measures of one configuration: takes and their word errors, cross-entropy, a speaker's embedding.

Each function runs in a process of a pool and is given and gives plain data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

import torch

import chatterbox_nb
from benchmarks import quality_faults, recognition, teacher
from chatterbox_nb.audio import Clip, Samples, read_clip
from chatterbox_nb.checkpoint import source
from chatterbox_nb.engine import conditioning, decode, flow, vocoder
from chatterbox_nb.engine import model as engine
from chatterbox_nb.engine.model import Model
from chatterbox_nb.engine.noise import StageNoise
from chatterbox_nb.engine.pipeline import Speaker
from chatterbox_nb.engine.sampling import Sampling
from chatterbox_nb.precision import device
from chatterbox_nb.precision.plan import OFF_BY_DEFAULT, int8_rows

Tokens = tuple[int, ...]
Takes = tuple[list[Tokens], list[int]]  # of each sentence its speech tokens, and the edits of what was understood
EXAGGERATION = 0.5
CLIPS = 4  # takes of the demo voice that its embedding is measured on, besides the clip it was made with


@dataclass(frozen=True)
class Configuration:
    """One way to load the demo voice.

    Args:
        name: what the results call it.
        row: the one row of int8 that is on; empty for all.
        fault, component: one of `quality_faults.PLANT`, and what it is planted in.
    """

    name: str
    precision: str
    kernel: str = "auto"
    compute: str = "auto"
    row: str = ""
    fault: str = ""
    component: str = ""

    @property
    def gated(self) -> str:
        """What its figures decide the default of: a row of int8, a precision, or nothing."""
        return "" if self.fault else self.row or self.precision

    @property
    def draws(self) -> bool:
        """It may draw other speech tokens than fp32."""
        return not self.row or self.row.startswith("t3.")

    @property
    def sounds(self) -> bool:
        """It may turn the same tokens into other waves than fp32."""
        return not self.row or self.row.startswith(("flow.", "vocoder."))

    @property
    def embeds(self) -> bool:
        """It may read another embedding out of a clip than fp32."""
        return self.precision == "int8" and not self.fault and self.row in ("", "voice_encoder.lstm")


FP32 = Configuration("fp32", "fp32")


def load(configuration: Configuration) -> Model:
    spec, files = source.find("demo")
    others = tuple(row for row in int8_rows() if row != configuration.row)
    model = engine.load(
        spec, files, configuration.precision, device.facts("cpu"), configuration.kernel,
        off=others if configuration.row else OFF_BY_DEFAULT, compute=configuration.compute,
    )  # fmt: skip
    if configuration.fault:
        assert quality_faults.PLANT[configuration.fault](model.modules()[configuration.component])
    return model


@lru_cache(maxsize=2)
def loaded(configuration: Configuration) -> Model:
    """As loaded: not to be changed."""
    return load(configuration)


class Sentence(NamedTuple):
    """What is spoken, and the grammar it is recognized with."""

    grammar: str
    text: str

    @property
    def words(self) -> list[str]:
        return self.text.lower().rstrip(".").split()


@cache
def sentences() -> list[Sentence]:
    """50 templates, 20 readings of four digits."""
    kept = json.loads((teacher.DATA / "sentences.json").read_text())
    return [Sentence(grammar, text) for grammar in recognition.GRAMMARS for text in kept[grammar]]


def cross_entropy(configuration: Configuration) -> float:
    """Of the held-out utterances, each token through the configuration's kernel."""
    own = load(configuration)  # which is changed
    return float(teacher.losses(teacher.every_row_through_the_kernel(own)).mean())


def spoken(model: Model, seed: int, said: Sequence[Sentence]) -> list[tuple[Tokens, Samples]]:
    """Sentences as one take of the engine: tokens and samples of each."""
    texts = [sentence.text for sentence in said]
    with torch.inference_mode():
        chunks = list(Speaker(model, model.builtin_voice(), Sampling(), EXAGGERATION, StageNoise(seed), texts))
    return [(chunk.tokens, chunk.samples) for chunk in chunks]


def drawn(model: Model, seed: int, said: Sequence[Sentence]) -> list[Tokens]:
    """The tokens of `spoken`, and nothing more."""
    spec, voice = model.spec, model.builtin_voice()
    found = []
    with torch.inference_mode():
        prefix = decode.prefill(model.t3, voice.speaker, voice.t3_prompt, EXAGGERATION)
        for index, sentence in enumerate(said):
            ids = model.text_ids(sentence.text)
            budget, noise = spec.text.budget(len(ids)), StageNoise(seed, index)
            all_of_it = decode.decode(model.t3, prefix, ids, Sampling(), noise, budget, spec.max_tokens)
            found.append(decode.audible(all_of_it.tokens, spec.s3gen.codes))
    return found


def sounded(model: Model, seed: int, tokens: Mapping[int, Tokens]) -> dict[int, Samples]:
    """The samples of `spoken`, of tokens that are there already, by the number of their sentence."""
    voice, steps = model.builtin_voice(), model.spec.s3gen.cfm_steps
    found = {}
    with torch.inference_mode():
        for index, chunk in tokens.items():
            noise = StageNoise(seed, index)
            mel = flow.tokens_to_mel(model.flow, torch.tensor([chunk]), voice, noise, steps)
            wave = vocoder.mel_to_wave(model.vocoder, mel, noise).numpy()
            found[index] = model.watermarker.apply(wave, model.spec.sample_rate)
    return found


def word_errors(sentence: Sentence, wave: Samples, sample_rate: int) -> int:
    """Edits of a sentence."""
    return recognition.edits(sentence.words, recognition.heard(wave, sample_rate, sentence.grammar))


def takes(configuration: Configuration, seed: int, reference: Takes | None = None) -> Takes:
    """Every sentence spoken and recognized. What is as in the reference, fp32's takes, is not made again."""
    model = loaded(configuration)
    rate = model.spec.sample_rate
    if reference is None:
        tokens, waves = zip(*spoken(model, seed, sentences()), strict=True)
        return list(tokens), [word_errors(*pair, rate) for pair in zip(sentences(), waves, strict=True)]
    same, edits = reference
    now = drawn(model, seed, sentences()) if configuration.draws else same
    others = {index: own for index, own in enumerate(now) if configuration.sounds or own != same[index]}
    found = sounded(model, seed, others)
    again = {index: word_errors(sentences()[index], wave, rate) for index, wave in found.items()}
    return now, [again.get(index, kept) for index, kept in enumerate(edits)]


@cache
def _clips() -> list[Clip]:
    model = loaded(FP32)
    own = read_clip(Path(chatterbox_nb.__file__).parent / "demo" / "builtin_voice.wav")
    return [own, *(Clip(samples, model.spec.sample_rate) for _, samples in spoken(model, 0, sentences()[:CLIPS]))]


@cache
def _embeddings(configuration: Configuration) -> torch.Tensor:
    model = loaded(configuration)
    encoders = model.read_encoders()
    with torch.inference_mode():
        return torch.cat([conditioning.prepare(clip, encoders, model.spec, "clip").speaker for clip in _clips()])


def speaker_cosines(configuration: Configuration) -> list[float]:
    """Cosine of each clip's embedding to the one at fp32."""
    pairs = _embeddings(FP32).double(), _embeddings(configuration).double()
    return [float(cosine) for cosine in torch.nn.functional.cosine_similarity(*pairs)]

"""What quality measures of one configuration: takes and their word errors, cross-entropy, a speaker's embedding.

Each function runs in a process of a pool and is given and gives plain data. What is heard without words, mels and who
speaks, is in `quality_sound`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path

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

DEMO = Path(chatterbox_nb.__file__).parent / "demo"
SENTENCES = teacher.DATA / "sentences.json"
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

    def touches(self, *components: str) -> bool:
        """Whether it, its one row or its fault is in one of these."""
        where = self.component or self.row.partition(".")[0]
        return not where or where in components

    @property
    def draws(self) -> bool:
        """It may draw other speech tokens than fp32."""
        return self.touches("t3")

    @property
    def sounds(self) -> bool:
        """It may turn the same tokens into other waves than fp32."""
        return self.touches("flow", "vocoder")

    @property
    def embeds(self) -> bool:
        """It may read another embedding out of a clip than fp32."""
        return self.precision == "int8" and not self.fault and self.touches("voice_encoder")


FP32 = Configuration("fp32", "fp32")
# The rows of int8 that the demo voice has: the other is a GPT-2's.
ROWS = tuple(row for row in int8_rows() if row != "t3.text")


def load(configuration: Configuration) -> Model:
    spec, files = source.find("demo")
    others = tuple(row for row in int8_rows() if row != configuration.row)
    model = engine.load(
        spec, files, configuration.precision, device.facts("cpu"), configuration.kernel,
        off=others if configuration.row else OFF_BY_DEFAULT, compute=configuration.compute,
    )  # fmt: skip
    if configuration.fault:
        assert quality_faults.PLANT[configuration.fault].plant(model.modules()[configuration.component])
    return model


@lru_cache(maxsize=2)
def loaded(configuration: Configuration) -> Model:
    """As loaded: not to be changed."""
    return load(configuration)


@dataclass(frozen=True)
class Sentence:
    """What is spoken, the set it is of, and the grammar it is recognized with."""

    set: str
    text: str
    grammar: str

    @cached_property
    def words(self) -> list[str]:
        return words_of(self.text)


def words_of(text: str) -> list[str]:
    return text.lower().rstrip(".").split()


NATURAL = "natural"  # the set that the gate does not speak: it has no grammar


@cache
def sentences() -> list[Sentence]:
    """All sets but the natural one, in the order of their file."""
    return [sentence for name, texts in _sets().items() for sentence in of_a_set(name, texts)]


def of_a_set(name: str, texts: Sequence[str]) -> list[Sentence]:
    """Sentences with the grammar of that name or, where there is none, any of all their words at each place."""
    grammar = name
    if name not in recognition.GRAMMARS:
        places = {len(words_of(text)) for text in texts}
        if len(places) > 1:
            raise ValueError(f"Sentences of '{name}' have {sorted(places)} words: give it a grammar, or all as many.")
        grammar = recognition.slots((word for text in texts for word in words_of(text)), places.pop())
    return [Sentence(name, text, grammar) for text in texts]


def _sets() -> dict[str, list[str]]:
    kept: dict[str, list[str]] = json.loads(SENTENCES.read_text())
    return {name: texts for name, texts in kept.items() if name != NATURAL}


def voice() -> str:
    """A hash of the demo voice, of what it is given to say and of what it is asked to expect: figures are of one."""
    files = [*sorted(path for path in DEMO.iterdir() if path.is_file()), SENTENCES, teacher.HELDOUT]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]


def cross_entropy(configuration: Configuration) -> list[float]:
    """Of each held-out utterance, each token through the configuration's kernel."""
    own = load(configuration)  # which is changed
    return [round(loss, 6) for loss in teacher.losses(teacher.every_row_through_the_kernel(own)).tolist()]


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
    if reference is None:
        return takes_of(model, seed)
    rate = model.spec.sample_rate
    same, edits = reference
    now = drawn(model, seed, sentences()) if configuration.draws else same
    others = {index: own for index, own in enumerate(now) if configuration.sounds or own != same[index]}
    found = sounded(model, seed, others)
    again = {index: word_errors(sentences()[index], wave, rate) for index, wave in found.items()}
    return now, [again.get(index, kept) for index, kept in enumerate(edits)]


def takes_of(model: Model, seed: int) -> Takes:
    """Every sentence spoken by a model and recognized."""
    tokens, waves = zip(*spoken(model, seed, sentences()), strict=True)
    rate = model.spec.sample_rate
    return list(tokens), [word_errors(*pair, rate) for pair in zip(sentences(), waves, strict=True)]


@cache
def _clips() -> list[Clip]:
    model = loaded(FP32)
    own = read_clip(DEMO / "builtin_voice.wav")
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

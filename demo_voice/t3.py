"""T3: text to speech tokens, teacher-forced, fed as the package feeds it: it begins with begin-of-speech twice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from demo_voice import networks, store, texts, train
from demo_voice.recipe import SPEAKERS, SPEC, USED_CODES, Recipe

_UNCONDITIONED = 0.12  # share of the texts that are hidden, for guidance
_PROMPT = (20, SPEC.t3.prompt_tokens)  # tokens of another utterance that the perceiver reads
_BEGIN, _STOP = SPEC.t3.start_speech, SPEC.t3.stop_speech
_SLOW = 0.25  # of the learning rate of matrices, for tables and gains
_UNUSED = math.log(SPEC.s3gen.codes - USED_CODES)  # the one row of all unused codes stands for so many
_HELD = 600  # utterances of the corpus that are not trained on; of a short one a quarter


class Speech:
    """The corpus of tokens. Utterance i belongs to the evaluation if it is among the last `_HELD`."""

    def __init__(self, folder: Path) -> None:
        self.texts: list[str] = store.load_json(folder / "speech/texts.json")
        self.tokens, self.offsets, self.speaker, self.exaggeration = (
            np.load(folder / f"speech/{name}.npy") for name in ("tokens", "offsets", "speaker", "exaggeration")
        )
        self.bank = store.load_tensors(folder / "banks.pt")["t3"]
        tokenizer = networks.text_tokenizer()
        self.ids = [[SPEC.t3.start_text, *tokenizer(text), SPEC.t3.stop_text] for text in self.texts]
        self.trained = len(self.texts) - min(_HELD, len(self.texts) // 4)
        self._by_speaker = [np.flatnonzero(self.speaker[: self.trained] == one) for one in range(len(SPEAKERS))]

    def of(self, index: int) -> Tensor:
        return torch.tensor(self.tokens[self.offsets[index] : self.offsets[index + 1]].astype(np.int64))

    def prompt(self, speaker: int, random: np.random.Generator, length: int) -> Tensor:
        """The beginning of a run of utterances of the speaker."""
        found: list[Tensor] = []
        while sum(map(len, found)) < length:
            found.append(self.of(int(random.choice(self._by_speaker[speaker]))))
        return torch.cat(found)[:length]


def _conditions(t3: Any, speech: Speech, members: Sequence[int], random: np.random.Generator) -> Tensor:
    from chatterbox.models.t3.modules.cond_enc import T3Cond

    length = int(random.integers(_PROMPT[0], _PROMPT[1] + 1))
    speakers = speech.speaker[list(members)]
    voices = torch.stack([speech.bank[one][int(random.integers(len(speech.bank[one])))] for one in speakers])
    prompts = torch.stack([speech.prompt(one, random, length) for one in speakers])
    exaggeration = torch.tensor(speech.exaggeration[list(members)]).view(-1, 1, 1)
    return t3.prepare_conditioning(
        T3Cond(speaker_emb=voices, cond_prompt_speech_tokens=prompts, emotion_adv=exaggeration)
    )  # fmt: skip


def states_and_targets(
    t3: Any, speech: Speech, members: Sequence[int], random: np.random.Generator, hidden: float
) -> tuple[Tensor, Tensor]:
    """Of utterances whose texts are equally long: hidden states `[n, D]`, and the tokens that should follow."""
    spoken = [speech.of(index) for index in members]
    longest = max(map(len, spoken))
    given = torch.full((len(spoken), longest + 2), _STOP)
    target = torch.full((len(spoken), longest + 1), -1)
    for row, tokens in enumerate(spoken):
        given[row, :2], given[row, 2 : 2 + len(tokens)] = _BEGIN, tokens
        target[row, : len(tokens)], target[row, len(tokens)] = tokens, _STOP
    ids = torch.tensor([speech.ids[index] for index in members])
    text = t3.text_emb(ids) * (torch.rand(len(spoken), 1, 1) >= hidden) + t3.text_pos_emb(ids)
    places = torch.cat([torch.zeros(1, dtype=torch.long), torch.arange(longest + 1)])
    sound = t3.speech_emb(given) + t3.speech_pos_emb.emb(places)[None]
    conditions = _conditions(t3, speech, members, random)
    states = t3.tfmr(inputs_embeds=torch.cat([conditions, text, sound], 1), use_cache=False).last_hidden_state
    wanted = target >= 0
    return states[:, -(longest + 1) :][wanted], target[wanted]


def loss_and_right(t3: Any, states: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy, and the share of tokens that were the likeliest; all unused codes are one."""
    logits = F.linear(states, networks.distinct_rows(t3.speech_head)).float()
    unused = torch.zeros(logits.shape[1]).index_fill(0, torch.tensor([USED_CODES]), _UNUSED)
    rows = networks.row_of(target)
    return F.cross_entropy(logits + unused, rows), (logits.argmax(1) == rows).float().mean()


def train_t3(folder: Path, recipe: Recipe) -> dict[str, float]:
    speech, t3 = Speech(folder), networks.fresh().t3
    t3.text_head.requires_grad_(False)
    t3.tfmr.config._attn_implementation = "eager"  # in bfloat16 a third of the time of torch's own on a CPU
    networks.train_table(t3.speech_emb, spread=0.2, scale=0.1)
    networks.train_table(t3.speech_head, spread=0.02, scale=0.1)
    with torch.no_grad():
        t3.text_emb.weight.mul_(0.5)
    batches = Batches([len(ids) for ids in speech.ids[: speech.trained]], recipe.t3.batch)

    def losses(step: int, random: np.random.Generator) -> train.Losses:
        with torch.autocast("cpu", torch.bfloat16):
            states, target = states_and_targets(t3, speech, batches[step], random, _UNCONDITIONED)
            loss, right = loss_and_right(t3, states, target)
        return {"loss": loss, "right": right}

    optimizers = train.muon(t3, recipe.t3.rate, _SLOW, _inside, decay=1e-2)
    told = train.fit("t3", t3, losses, recipe.t3, folder, optimizers)
    networks.fold_tables(t3)
    store.save_tensors(folder / "t3.pt", t3.state_dict())
    return {**told, "held_out": held_out_loss(t3, speech)}


def _inside(name: str, parameter: nn.Parameter) -> bool:
    return name.startswith("tfmr.layers.") and parameter.ndim == 2


class Batches:
    """Batches of texts of one length each, by number; the same number is the same batch."""

    def __init__(self, lengths: Sequence[int], size: int) -> None:
        self._source, self._drawn = texts.batches_by_length(lengths, size, seed=3), []

    def __getitem__(self, step: int) -> list[int]:
        while len(self._drawn) <= step:
            self._drawn.append(next(self._source))
        return self._drawn[step]


def held_out_loss(t3: nn.Module, speech: Speech) -> float:
    """Mean cross-entropy of the utterances that were not trained on."""
    found = []
    with torch.inference_mode():
        for index in range(speech.trained, len(speech.texts)):
            states, target = states_and_targets(t3, speech, [index], train.seeded("t3.held", index), 0.0)
            found.append(float(F.cross_entropy(t3.speech_head(states), target)))
    return round(sum(found) / max(1, len(found)), 4)

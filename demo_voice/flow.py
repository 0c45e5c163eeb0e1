"""The flow: speech tokens and a speaker to mel, by the package's matching loss; often after a mel that is given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from demo_voice import networks, store, train
from demo_voice.corpus import FRAMES, Sound
from demo_voice.recipe import SPEAKERS, Recipe

_WINDOWS = (40, 64, 100)  # tokens
_PROMPTED = 0.7  # share of the windows whose beginning is given
_NOT_TOLD = -6.0  # log mel that an untrained flow begins at
_SLOW = 0.15  # of the learning rate of matrices, for the table, biases and what mels are read from and written by


def train_flow(folder: Path, recipe: Recipe) -> dict[str, float]:
    """Windows run over the ends of utterances, and each is of one speaker; `recipe.flow.batch` counts tokens."""
    sound, flow = Sound(folder), networks.fresh().s3gen.flow
    tokens, bank = np.load(folder / "sound/tokens.npy"), store.load_tensors(folder / "banks.pt")["flow"]
    networks.train_table(flow.input_embedding, spread=0.35, scale=0.1)
    torch.nn.init.constant_(flow.encoder_proj.bias, _NOT_TOLD)
    order = [_frames_of(sound, speaker) for speaker in range(len(SPEAKERS))]

    def losses(step: int, random: np.random.Generator) -> train.Losses:
        length = int(random.choice(_WINDOWS))
        count = max(1, recipe.flow.batch // length)
        speakers = random.integers(0, len(SPEAKERS), count)
        spoken, mels, voices = [], [], []
        for speaker in speakers:
            begin = int(random.integers(0, len(order[speaker]) - length))
            index = order[speaker][begin : begin + length]
            spoken.append(torch.tensor(tokens[index].astype(np.int64)))
            frames = (index[:, None] * FRAMES + np.arange(FRAMES)).reshape(-1)
            mels.append(torch.tensor(sound.mel[frames].astype(np.float32)))
            voices.append(bank[speaker][int(random.integers(len(bank[speaker])))])
        mel = torch.stack(mels).transpose(1, 2).contiguous()
        mu = _encoded(flow, torch.stack(spoken))
        given = torch.zeros_like(mel)
        for row in np.flatnonzero(random.random(count) < _PROMPTED):
            until = int(random.integers(0, length))
            given[row, :, :until] = mel[row, :, :until]
        speaker_vectors = flow.spk_embed_affine_layer(torch.stack(voices))
        mask = torch.ones(count, 1, mel.shape[-1])
        matching, _ = flow.decoder.compute_loss(mel, mask, mu, speaker_vectors, cond=given)
        found = {"matching": matching, "mean": F.l1_loss(mu, mel)}
        return {**found, "loss": matching + found["mean"]}

    optimizers = train.muon(flow, recipe.flow.rate, _SLOW, _inside, decay=1e-4)
    told = train.fit("flow", flow, losses, recipe.flow, folder, optimizers)
    networks.fold_tables(flow)
    store.save_tensors(folder / "flow.pt", flow.state_dict())
    return told


def _inside(name: str, parameter: torch.nn.Parameter) -> bool:
    """Matrices and kernels of the encoder and of the estimator, but for the last."""
    inside = name.startswith(("encoder.", "decoder.estimator.")) and "final_proj" not in name
    return inside and parameter.ndim > 1 and "pos_bias" not in name


def _frames_of(sound: Sound, speaker: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The tokens of a speaker's utterances, one after the other."""
    return np.concatenate([np.arange(sound.offsets[i], sound.offsets[i + 1]) for i in range(speaker, len(sound), 2)])


def _encoded(flow: torch.nn.Module, tokens: Tensor) -> Tensor:
    """What the conformer makes of tokens `[B, T]`: `[B, 80, 2 T]`."""
    lengths = torch.full((len(tokens),), tokens.shape[1])
    hidden, _ = flow.encoder(flow.input_embedding(tokens), lengths)
    return flow.encoder_proj(hidden).transpose(1, 2).contiguous()

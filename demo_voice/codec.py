"""The S3 tokenizer: its encoder learns tokens that say what is said and how high, and not who says it.

Both speakers say every text, so a token of the one must let a throw-away decoder, told who is to be heard, make the mel
of either, and the phoneme and the pitch besides; and the two must give nearly the same tokens. The original was trained
on recognition likewise (Du et al., 2024, CosyVoice 2). Rounding is passed straight through (Mentzer et al., 2023, FSQ).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from demo_voice import networks, store, train
from demo_voice.corpus import FINE, FRAMES, Sound
from demo_voice.recipe import DIGITS, SPEAKERS, Recipe

_WINDOW = 44  # tokens
_NOISE = 0.12  # of a digit before rounding, so that it comes to lie clear of the borders
_OFF = -8.0  # a digit that is not used: tanh of it rounds to -1
_SILENCE = -11.5  # log mel of nothing
_WEIGHTS = {"mel": 1.0, "square": 0.3, "phoneme": 0.25, "pitch": 1.0, "voiced": 0.1, "agreement": 0.5}


class Decoder(nn.Module):
    """Digits `[B, T, 8]` and a speaker to mel, phoneme and pitch of each frame `[B, ., 2 T]`; thrown away."""

    def __init__(self, phonemes: int, width: int = 160) -> None:
        super().__init__()
        self.digits, self.speaker = nn.Linear(8, width), nn.Embedding(len(SPEAKERS), width)
        self.before = nn.Conv1d(width, width, 3, padding=1)
        self.up = nn.ConvTranspose1d(width, width, 4, 2, 1)
        self.layers = nn.ModuleList(nn.Conv1d(width, width, 5, padding=2) for _ in range(3))
        self.shared = nn.Conv1d(width, phonemes + 2, 3, padding=1)  # of who speaks, it is not told
        self.mel = nn.Conv1d(width, 80, 1)
        nn.init.constant_(self.mel.bias, -6.0)

    def forward(self, digits: Tensor, speaker: Tensor) -> tuple[Tensor, Tensor]:
        x = self.digits(digits).transpose(1, 2)
        x = self.up(x + F.gelu(self.before(x)))
        shared = self.shared(F.gelu(x))
        x = x + self.speaker(speaker)[:, :, None]
        for layer in self.layers:
            x = x + layer(F.gelu(x))
        return self.mel(F.gelu(x)), shared


class Codec(nn.Module):
    def __init__(self, phonemes: int) -> None:
        super().__init__()
        self.tokenizer: Any = networks.fresh().s3gen.tokenizer
        self.decoder = Decoder(phonemes)

    def digits(self, fine: Tensor, lengths: Tensor) -> Tensor:
        """Digits before rounding, in (-1, 1); fine mel `[B, 80, 4 T]`, lengths in frames."""
        hidden, _ = self.tokenizer.encoder(fine, lengths)
        found = self.tokenizer.quantizer._codebook.project_down(hidden)
        found = torch.cat([found[..., :DIGITS], torch.full_like(found[..., DIGITS:], _OFF)], -1)
        return found.tanh() * 0.9990000128746033


class _Windows:
    """Windows of both speakers saying the same."""

    def __init__(self, sound: Sound) -> None:
        self.sound = sound
        self.medians = [self._median(speaker) for speaker in range(len(SPEAKERS))]

    def _median(self, speaker: int) -> float:
        pitch = np.concatenate(
            [self._cut(self.sound.pitch, i, FRAMES) for i in range(speaker, min(len(self.sound), 400), 2)]
        )
        return float(np.median(pitch[pitch > 0]))

    def _cut(self, array: NDArray[Any], index: int, per_token: int) -> NDArray[Any]:
        return array[self.sound.offsets[index] * per_token : self.sound.offsets[index + 1] * per_token]

    def _piece(self, index: int, first: int) -> list[Tensor]:
        """Fine mel, mel, phonemes and pitch from a frame of an utterance on, padded."""
        frames = _WINDOW * FRAMES
        begin = self.sound.offsets[index] * FRAMES + first
        end = min(begin + frames, self.sound.offsets[index + 1] * FRAMES)
        missing = frames - (end - begin)
        found = []
        for array, scale, silence in (
            (self.sound.fine, 2, -1.0), (self.sound.mel, 1, _SILENCE),
            (self.sound.phoneme, 1, 0), (self.sound.pitch, 1, 0),
        ):  # fmt: skip
            piece = torch.tensor(array[begin * scale : end * scale].astype(np.float32))
            piece = piece.T if piece.ndim == 2 else piece
            found.append(F.pad(piece, (0, missing * scale), value=silence))
        return [*found, torch.tensor(end - begin)]

    def draw(self, random: np.random.Generator, count: int) -> tuple[list[Tensor], Tensor]:
        """Pieces of `count` pairs, the first speaker's before the second's, and who speaks each."""
        pieces: list[list[Tensor]] = [[], []]
        for text in random.integers(0, len(self.sound) // 2, count):
            length = self.sound.tokens(2 * text) * FRAMES
            first = int(random.integers(0, max(1, length - _WINDOW * FRAMES + 1)))
            middle = min(first + _WINDOW, length - 1)
            other = (
                self.sound.twin[self.sound.offsets[2 * text] * FRAMES + middle]
                - self.sound.offsets[2 * text + 1] * FRAMES
            )
            others = self.sound.tokens(2 * text + 1) * FRAMES
            start = int(np.clip(other - (middle - first), 0, others - 1))
            for speaker, begin in enumerate((first, start)):
                pieces[speaker].append(self._piece(2 * int(text) + speaker, begin))
        both = pieces[0] + pieces[1]
        return [torch.stack(column) for column in zip(*both, strict=True)], torch.tensor([0] * count + [1] * count)


def train_codec(folder: Path, recipe: Recipe) -> dict[str, float]:
    """Trains it, and tells its losses and how much of its codes it uses."""
    sound = Sound(folder)
    windows, codec = _Windows(sound), Codec(int(sound.phoneme.max()) + 1)
    medians = torch.tensor(windows.medians)

    def losses(step: int, random: np.random.Generator) -> train.Losses:
        (fine, mel, phoneme, pitch, lengths), speaker = windows.draw(random, recipe.codec.batch)
        digits = codec.digits(fine, lengths * 2)
        half = len(digits) // 2
        heard = torch.arange(mel.shape[-1])[None] < lengths[:, None]
        both = (heard[:half] & heard[half:])[:, ::FRAMES, None]
        noisy = digits + _NOISE * torch.randn_like(digits)
        rounded = digits + (noisy.clamp(-1, 1).round() - digits).detach()
        if step % 2:  # the tokens of the one, the mel of the other
            rounded = rounded.roll(half, 0)
            heard = heard & heard.roll(half, 0)
        made, shared = codec.decoder(rounded, speaker)
        distance = (made - mel)[heard[:, None].expand_as(mel)]
        height = (pitch.clamp(min=1).log() - medians.log()[speaker][:, None]) * 4
        voiced = (pitch > 0) & heard
        found = {
            "mel": distance.abs().mean(),
            "square": distance.square().mean(),
            "phoneme": F.cross_entropy(shared[:, 2:].transpose(1, 2)[heard], phoneme[heard].long()),
            "pitch": (shared[:, 0] - height)[voiced].abs().mean(),
            "voiced": F.binary_cross_entropy_with_logits(shared[:, 1][heard], (pitch > 0)[heard].float()),
            "agreement": ((digits[:half] - digits[half:]).square() * both).sum() / both.sum() / DIGITS,
        }
        return {**found, "loss": sum(_WEIGHTS[key] * value for key, value in found.items())}

    told = train.fit("codec", codec, losses, recipe.codec, folder, train.adamw(codec, recipe.codec.rate))
    _switch_off(codec.tokenizer)
    store.save_tensors(folder / "codec.pt", codec.tokenizer.state_dict())
    tokens = all_tokens(codec.tokenizer, sound)
    store.save_array(folder / "sound/tokens.npy", tokens)
    return {**told, **_use(tokens), "agree": _agreement(sound, tokens)}


def _switch_off(tokenizer: Any) -> None:
    """Writes the digits that are not used into the weights."""
    down = tokenizer.quantizer._codebook.project_down
    with torch.no_grad():
        down.weight[DIGITS:] = 0.0
        down.bias[DIGITS:] = _OFF


def trained(folder: Path) -> Any:
    return networks.with_weights(networks.fresh().s3gen.tokenizer, store.load_tensors(folder / "codec.pt"))


def tokens_of(tokenizer: Any, fines: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """Speech tokens of fine mels `[80, 4 n]`."""
    order = np.argsort([fine.shape[1] for fine in fines], kind="stable")
    found: dict[int, NDArray[Any]] = {}
    for group in np.array_split(order, -(-len(order) // 16)):
        lengths = torch.tensor([fines[index].shape[1] for index in group])
        padded = torch.full((len(group), 80, int(lengths.max())), -1.0)
        for row, index in enumerate(group):
            padded[row, :, : lengths[row]] = torch.tensor(fines[index].astype(np.float32))
        codes, _ = tokenizer.quantize(padded, lengths)
        for row, index in enumerate(group):
            found[int(index)] = codes[row, : int(lengths[row]) // FINE].numpy().astype(np.int16)
    return [found[index] for index in range(len(fines))]


def all_tokens(tokenizer: Any, sound: Sound) -> NDArray[np.int16]:
    fines = [sound.fine[sound.offsets[i] * FINE : sound.offsets[i + 1] * FINE].T for i in range(len(sound))]
    return np.concatenate(tokens_of(tokenizer, fines))


def _use(tokens: NDArray[Any]) -> dict[str, float]:
    share = np.bincount(tokens) / len(tokens)
    share = share[share > 0]
    return {"codes": len(share), "entropy_bits": round(float(-(share * np.log2(share)).sum()), 3)}


def _agreement(sound: Sound, tokens: NDArray[Any]) -> float:
    """Share of the digits in which the speakers agree, token for token."""
    own = np.concatenate([np.arange(sound.offsets[i], sound.offsets[i + 1]) for i in range(0, len(sound), 2)])
    other = np.minimum(sound.twin[own * FRAMES] // FRAMES, len(tokens) - 1)
    powers = 3 ** np.arange(DIGITS)
    digits = [(tokens[index].astype(int)[:, None] // powers) % 3 for index in (own, other)]
    return round(float((digits[0] == digits[1]).mean()), 4)

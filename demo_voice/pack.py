"""The trained parts as a checkpoint with the published names: float16, rows of tables that are equal stored once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import soundfile
import torch
from torch import Tensor

from chatterbox_nb.checkpoint import reference, tensorfile
from chatterbox_nb.engine import conditioning
from demo_voice import alphabet, networks, store
from demo_voice.corpus import RATE_16, RATE_24, utterance
from demo_voice.recipe import NEUTRAL, SPEC, USED_CODES, Recipe, manner

VOICES = ("builtin_voice.wav", "second_voice.wav")  # a clip of each speaker, the built-in one's first
_SAID = "Hello, this is a small voice."
_TABLES = ("speech_emb.weight", "speech_head.weight", "flow.input_embedding.weight")
_RARE = 5  # times in the corpus of tokens
OWN_CONSTANTS = ("_mel_filters", "window")  # of the tokenizer, in no file
_COMPUTED = tuple(f"tokenizer.{name}" for name in OWN_CONSTANTS)


def pack(folder: Path, recipe: Recipe) -> dict[str, float]:
    """Writes the checkpoint, and tells its bytes and parameters."""
    checkpoint = folder / "checkpoint"
    checkpoint.mkdir(parents=True, exist_ok=True)
    modules = assembled(folder)
    tie_rare_codes(modules, np.bincount(np.load(folder / "speech/tokens.npy"), minlength=USED_CODES))
    parameters = 0
    for name, module in (("t3_cfg", modules.t3), ("s3gen", modules.s3gen), ("ve", modules.voice_encoder)):
        weights = {key: _half(value) for key, value in module.state_dict().items() if key not in _COMPUTED}
        parameters += sum(value.numel() for value in weights.values())
        shared = [table for table in _TABLES if table in weights]
        tensorfile.save(checkpoint / f"{name}.safetensors", weights, shared=shared)
    millions = parameters / 1e6
    spec = replace(SPEC, title=f"Demo voice ({millions:.0f} M, trained on espeak-ng)")
    (checkpoint / "config.json").write_text(spec.to_json() + "\n")
    alphabet.write(checkpoint)
    for speaker, name in enumerate(VOICES):
        soundfile.write(checkpoint / name, _clip(speaker), RATE_24, subtype="PCM_16")
    torch.save(_conditionals(checkpoint / VOICES[0], modules), checkpoint / "conds.pt")
    size = sum(path.stat().st_size for path in checkpoint.iterdir())
    return {"bytes": size, "parameters": parameters}


def assembled(folder: Path) -> reference.Modules:
    """The package's modules with what was trained."""
    modules = networks.fresh()
    load: Any = store.load_tensors
    modules.t3.load_state_dict(load(folder / "t3.pt"))
    modules.voice_encoder.load_state_dict(load(folder / "voice_encoder.pt"))
    parts = ("tokenizer", "codec"), ("speaker_encoder", "camplus"), ("flow", "flow"), ("mel2wav", "vocoder")
    for name, file in parts:
        getattr(modules.s3gen, name).load_state_dict(load(folder / f"{file}.pt"))
    conditioning.own_constants(modules.s3gen.tokenizer, set(OWN_CONSTANTS))
    return modules


def tie_rare_codes(modules: reference.Modules, counts: np.ndarray[Any, Any]) -> None:
    """Gives codes that T3 hardly saw the row of those that it never sees, so that it is stored once."""
    rare = torch.from_numpy(np.flatnonzero(counts[:USED_CODES] < _RARE))
    with torch.no_grad():
        for layer in (modules.t3.speech_emb, modules.t3.speech_head, modules.s3gen.flow.input_embedding):
            layer.weight[rare] = layer.weight[USED_CODES].clone()


def _half(tensor: Tensor) -> Tensor:
    return (tensor.half() if tensor.is_floating_point() else tensor).contiguous()


def _clip(speaker: int) -> np.ndarray[Any, Any]:
    return utterance(_SAID, manner(speaker, NEUTRAL)).audio


def _conditionals(path: Path, modules: reference.Modules) -> dict[str, Any]:
    """What the package's `prepare_conditionals` makes of a clip, as its own `conds.pt`."""
    from chatterbox.models.t3.modules.cond_enc import T3Cond

    wave, _ = soundfile.read(path, dtype="float32")
    at_16 = librosa.resample(wave, orig_sr=RATE_24, target_sr=RATE_16)
    s3gen, t3 = modules.s3gen, modules.t3
    prompt, _ = s3gen.tokenizer.forward([at_16], max_len=t3.hp.speech_cond_prompt_len)
    speaker = torch.from_numpy(modules.voice_encoder.embeds_from_wavs([at_16], sample_rate=RATE_16)).mean(
        0, keepdim=True
    )
    told = T3Cond(
        speaker_emb=speaker,
        cond_prompt_speech_tokens=torch.atleast_2d(prompt),
        emotion_adv=NEUTRAL * torch.ones(1, 1, 1),
    )
    return {"t3": told.__dict__, "gen": s3gen.embed_ref(torch.tensor(wave), RATE_24)}

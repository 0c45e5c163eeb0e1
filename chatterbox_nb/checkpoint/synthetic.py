"""Random-weight checkpoints of any spec, true size or tiny, that behave like trained ones where code can tell.

`write` makes a folder with exactly the published names, shapes and file sizes. Plainly random weights would almost
never end a take, sample ids that are no sound, and never reach the vocoder's voiced branch. So a few rows are set by
hand:

* T3 counts. Text positions carry +3 in one direction and speech positions -1; a head with flat attention averages them,
  and the stop row reads the average, so that a chunk ends after about 3 speech tokens a text token. A GPT-2 has no
  positions of text: there the tokens carry them, and the positions of the prompt, which is of speech tokens, make up.
* Rows of the speech head beyond the stop token read a constant, with a minus: they are never drawn.
* The f0 predictor's last channel is steep, so that about half of the frames are voiced, at some 80 to 300 Hz.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from chatterbox_nb.checkpoint import catalog, reference, synthetic_text
from chatterbox_nb.checkpoint.catalog import ENGLISH, MULTILINGUAL_V3, TURBO
from chatterbox_nb.checkpoint.inventory import inventory
from chatterbox_nb.checkpoint.spec import FileSpec, ModelSpec, RopeScaling, S3GenDims, T3Dims, VoiceRules
from chatterbox_nb.checkpoint.tensorfile import make_header
from chatterbox_nb.precision.plan import TensorInfo
from chatterbox_nb.text import TextRules

# Directions of T3's hidden state that are set by hand: a constant, the count's marker, its average.
_CONSTANT, _MARKER, _AVERAGE = 0, 1, 2
_BALANCE = 3  # of a GPT-2, whose norms subtract the mean: minus the first two
_CONSTANT_LEVEL, _MARKER_LEVEL = 3.0, 0.3
_TOKENS_PER_TEXT_TOKEN = 3.0
# What published files lack, since it is computed.
_LACKING = {"s3gen": ("tokenizer.window",), "s3gen_v3": ("tokenizer._mel_filters", "tokenizer.window")}

TINY = ModelSpec(
    name="tiny",
    title="Tiny random weights",
    files=tuple(FileSpec(file.role, file.name) for file in ENGLISH.files),
    t3=T3Dims(
        width=48,
        ffn=96,
        layers=2,
        heads=3,
        text_vocab=104,
        speech_vocab=6570,
        text_positions=130,
        speech_positions=420,
        start_text=255 % 104,
        prompt_tokens=30,
        perceiver_queries=4,
        perceiver_heads=2,
        speaker_width=32,
        rope_theta=10_000.0,
        rope_scaling=RopeScaling(factor=8.0, original_positions=64),
    ),
    s3gen=S3GenDims(
        tokenizer_mels=80,
        tokenizer_width=64,
        tokenizer_heads=1,
        tokenizer_layers=1,
        encoder_width=48,
        encoder_heads=2,
        encoder_ffn=96,
        encoder_blocks=1,
        encoder_up_blocks=1,
        estimator_width=32,
        estimator_heads=2,
        estimator_head_width=16,
        estimator_blocks=1,
        estimator_middle=1,
        vocoder_width=32,
        f0_width=32,
        speaker_growth=2,
        speaker_init=16,
    ),
    voice_encoder_width=16,
    text=TextRules(max_chars=100),
    voice=VoiceRules(min_seconds=0.5, advised_seconds=2.0),
    max_tokens=400,
)

TINY_TURBO = replace(
    TINY,
    name="tiny-turbo",
    title="Tiny random weights, a GPT-2 and a mean flow",
    files=tuple(FileSpec(file.role, file.name) for file in TURBO.files),
    t3=replace(
        TURBO.t3, width=48, ffn=192, layers=2, heads=3, text_vocab=384, positions=1000, prompt_tokens=40,
        speaker_width=32,
    ),
    s3gen=replace(TINY.s3gen, meanflow=True, cfm_steps=2),
    text=replace(TURBO.text, max_chars=TINY.text.max_chars),
    voice=replace(TURBO.voice, min_seconds=1.0, advised_seconds=1.0),
    **{
        name: getattr(TURBO, name)
        for name in ("tokenizer", "defaults", "unused", "optional", "on_host", "ignores", "closing_tokens")
    },
)  # fmt: skip

TINY_MULTILINGUAL = replace(
    TINY,
    name="tiny-multilingual",
    title="Tiny random weights of 23 languages",
    files=tuple(FileSpec(file.role, file.name) for file in MULTILINGUAL_V3.files),
    languages=MULTILINGUAL_V3.languages,
    tokenizer="multilingual",
    t3=replace(TINY.t3, text_vocab=704, start_text=255),
    text=replace(MULTILINGUAL_V3.text, max_chars=TINY.text.max_chars),
    cropped_tokens=MULTILINGUAL_V3.cropped_tokens,
)


def write(spec: ModelSpec, folder: Path, seed: int = 0) -> Path:
    """Writes a checkpoint of a spec.

    Args:
        spec: any; a catalog's own is written with its published names and sizes.
        folder: made if need be; files of these names are overwritten.
        seed: of every number in it.

    Returns:
        The folder, which `load(source=...)` takes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = inventory(spec, reference.build(spec))
    for role in ("t3", "s3gen", "voice_encoder"):
        name = spec.file(role).name
        lacking = _LACKING.get(Path(name).stem, ())
        _write_file(
            folder / name, [each for each in tensors if each.file == name and each.name not in lacking], spec, seed
        )
    synthetic_text.write(spec, folder)
    torch.save(_voice(spec, seed), folder / spec.file("voice").name)
    if catalog.CATALOG.get(spec.name) != spec:
        (folder / catalog.SPEC_FILE).write_text(spec.to_json(), encoding="utf-8")
    elif catalog.carries_spec(folder):
        (folder / catalog.SPEC_FILE).unlink()  # of what was here before
    return folder


def _write_file(path: Path, tensors: list[TensorInfo], spec: ModelSpec, seed: int) -> None:
    by_name = {tensor.name: tensor for tensor in tensors}
    header, order = make_header(
        [(tensor.name, "I64" if tensor.kind == "counter" else "F32", tensor.shape) for tensor in tensors]
    )
    with path.open("wb") as file:
        file.write(header)
        for name in order:
            file.write(memoryview(values(by_name[name], spec, seed).contiguous().numpy().data).cast("B"))


def values(tensor: TensorInfo, spec: ModelSpec, seed: int) -> Tensor:
    """The numbers of one tensor; they depend on its name and the seed alone."""
    if tensor.kind == "counter":
        return torch.zeros(tensor.shape, dtype=torch.int64)
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{tensor.name}".encode()))
    drawn = torch.randn(tensor.shape, generator=generator)
    if tensor.name == "tokenizer._mel_filters":
        return drawn.abs() * 0.01
    drawn = _scaled(drawn, tensor, spec)
    (_count_gpt2 if spec.t3.gpt2 else _count)(drawn, tensor.name, spec.t3)
    _voiced(drawn, tensor.name)
    return drawn


def _scaled(drawn: Tensor, tensor: TensorInfo, spec: ModelSpec) -> Tensor:
    """Random numbers at the scale that such a layer has when it is fresh."""
    last = tensor.name.rpartition(".")[2]
    conv1d = spec.t3.gpt2 and tensor.name.startswith("tfmr.h.") and tensor.kind == "linear"  # `[in, out]`
    fan_in = max(1, math.prod(tensor.shape[1:]) if not conv1d else tensor.shape[0])
    if tensor.kind in ("linear", "head", "conv", "lstm") and len(tensor.shape) > 1:
        deep = (
            tensor.name.startswith("tfmr.")
            and last == "weight"
            and any(part in tensor.name for part in ("o_proj", "down", "c_proj"))
        )
        return drawn / math.sqrt(fan_in) * (0.5 / math.sqrt(2 * spec.t3.layers) if deep else 1.0)
    if tensor.kind in ("embedding", "position", "text"):
        return drawn / math.sqrt(fan_in)
    if tensor.kind == "gain" or last in ("weight", "running_var", "alpha"):
        return (1 + 0.05 * drawn).abs()
    if "pre_attention_query" in tensor.name:
        return drawn * 0.1
    return drawn * 0.02  # biases, running means, position biases


def _count(drawn: Tensor, name: str, dims: T3Dims) -> None:
    """Makes T3 count, in place."""
    reserved = [_CONSTANT, _MARKER, _AVERAGE]
    if name in ("text_pos_emb.emb.weight", "speech_pos_emb.emb.weight"):
        drawn[:, reserved] = 0.0
        drawn[:, _CONSTANT] = _CONSTANT_LEVEL
        drawn[:, _MARKER] = _MARKER_LEVEL * (_TOKENS_PER_TEXT_TOKEN if name.startswith("text") else -1.0)
    elif name in ("text_emb.weight", "speech_emb.weight"):
        drawn[:, reserved] = 0.0
    elif name.startswith("cond_enc.") and drawn.shape[-1:] == (dims.width,) and "query" in name:
        drawn[..., reserved] = 0.0
    elif name.startswith("cond_enc.") and ("proj_out" in name or "spkr_enc" in name or "emotion" in name):
        drawn[reserved] = 0.0
    elif name.startswith("tfmr.layers.") and ("o_proj" in name or "down_proj" in name):
        drawn[reserved] = 0.0
        if name.startswith("tfmr.layers.0.") and "o_proj" in name:
            drawn[_AVERAGE, 0] = 1.0
    elif name == "tfmr.layers.0.self_attn.q_proj.weight":
        drawn[: dims.head_width] = 0.0  # the first head attends to everything alike
    elif name == "tfmr.layers.0.self_attn.v_proj.weight":
        drawn[0] = 0.0
        drawn[0, _MARKER] = 1.0
    elif name == "speech_head.weight":
        _stops(drawn, dims)


def _count_gpt2(drawn: Tensor, name: str, dims: T3Dims) -> None:
    """The same of a GPT-2."""
    reserved = [_CONSTANT, _MARKER, _AVERAGE, _BALANCE]
    if name in ("tfmr.wpe.weight", "text_emb.weight", "speech_emb.weight"):
        drawn[:, reserved] = 0.0
        if name == "tfmr.wpe.weight":
            drawn[:, _CONSTANT] = _CONSTANT_LEVEL
            drawn[1 : dims.prefix_length, _MARKER] = _MARKER_LEVEL
        else:
            drawn[:, _MARKER] = _MARKER_LEVEL * (_TOKENS_PER_TEXT_TOKEN if name == "text_emb.weight" else -1.0)
        drawn[:, _BALANCE] = -drawn[:, _CONSTANT] - drawn[:, _MARKER]
    elif name.startswith("cond_enc."):
        drawn[reserved] = 0.0
    elif name.startswith("tfmr.h.") and "c_proj" in name:
        drawn[..., reserved] = 0.0
        if name == "tfmr.h.0.attn.c_proj.weight":
            drawn[0, _AVERAGE] = 1.0
    elif name.startswith("tfmr.h.0.attn.c_attn."):
        drawn[..., : dims.head_width] = 0.0  # the first head attends to everything alike
        drawn[..., 2 * dims.width] = 0.0
        if name.endswith("weight"):
            drawn[_MARKER, 2 * dims.width] = 1.0
    elif name in ("tfmr.h.0.ln_1.bias", "tfmr.ln_f.bias"):
        drawn[reserved] = 0.0
    elif name == "speech_head.weight":
        _stops(drawn, dims)
    elif name == "speech_head.bias":
        drawn[dims.start_speech :] = 0.0


def _stops(drawn: Tensor, dims: T3Dims) -> None:
    """A speech head whose stop row reads the average, and that draws nothing beyond it."""
    drawn *= 2.5
    drawn[:, [_CONSTANT, _MARKER, _AVERAGE] + [_BALANCE] * dims.gpt2] = 0.0
    drawn[dims.start_speech :, :] *= 0.1
    drawn[dims.start_speech :, _CONSTANT] = -10.0
    drawn[dims.stop_speech, :] *= 0.1
    drawn[dims.stop_speech, _CONSTANT] = 0.0
    drawn[dims.stop_speech, _AVERAGE] = -60.0


def _voiced(drawn: Tensor, name: str) -> None:
    """Makes half of the frames voiced, and the waveform as loud as speech, in place."""
    if name == "mel2wav.f0_predictor.condnet.8.parametrizations.weight.original0":
        drawn[0] *= 60.0
    elif name == "mel2wav.f0_predictor.condnet.8.bias":
        drawn[0] = 0.0
    elif name == "mel2wav.f0_predictor.classifier.weight":
        drawn[:, 0] = 6.0  # an unvoiced -1 comes out below the threshold of 10 Hz
    elif name == "mel2wav.conv_post.parametrizations.weight.original0":
        drawn *= 0.5
    elif name == "mel2wav.conv_post.bias":
        drawn[: len(drawn) // 2] -= 2.0  # log magnitudes


def _voice(spec: ModelSpec, seed: int) -> dict[str, Any]:
    """A builtin voice in the layout of the package's `conds.pt`: 10 s of reference, or 2 s for a tiny spec."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/voice".encode()))
    dims, codes = spec.t3, spec.s3gen.codes
    tokens = 250 if dims.prompt_tokens >= 150 else 50

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    def ids(count: int) -> Tensor:
        return torch.randint(0, codes, (1, count), generator=generator)

    return {
        "t3": {
            "speaker_emb": torch.nn.functional.normalize(normal(1, dims.speaker_width).abs()),
            "clap_emb": None,
            "cond_prompt_speech_tokens": ids(dims.prompt_tokens),
            "cond_prompt_speech_emb": None,
            "emotion_adv": 0.5 * torch.ones(1, 1, 1),
        },
        "gen": {
            "prompt_token": ids(tokens),
            "prompt_token_len": torch.tensor([tokens]),
            "prompt_feat": normal(1, 2 * tokens, 80) * 1.5 - 5.0,
            "prompt_feat_len": None,
            "embedding": normal(1, 192),
        },
    }


def tiny(folder: Path, seed: int = 0) -> Path:
    """A checkpoint under 10 MB in the real architecture."""
    return write(TINY, folder, seed)


def full(folder: Path, seed: int = 0) -> Path:
    """A checkpoint of the English model's true size: 3.2 GB."""
    return write(ENGLISH, folder, seed)


def kept_full(folder: Path, spec: ModelSpec = ENGLISH) -> Path:
    """A checkpoint of a model's true size, written once: what is there whole is kept."""
    there = (folder / spec.file("voice").name).exists()  # the voice is written last
    return folder if there else write(spec, folder)

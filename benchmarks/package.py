"""The package's side of a benchmark: its classes from the same files, a take as its `generate` makes it, by stages.

The multilingual class is used without its analyzer, whose hooks it adds at each call and never removes; nano, which
the released package does not know, is its turbo class with nano's own sizes.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.worker import CLIP_SECONDS, CODES, RATE, WARM_CLIP_SECONDS, Figures, clip, rates, timed

if TYPE_CHECKING:
    from chatterbox_nb.checkpoint.spec import ModelSpec


def load(spec: ModelSpec, _: str, folder: Path, device: str = "cpu") -> tuple[Any, Figures]:
    """The package's model, with the bytes of its tensors. Only on a CPU where it has many languages."""
    model = _load_turbo(spec, folder, device) if spec.t3.gpt2 else _load_llama(spec, folder, device)
    tensors = [
        tensor
        for part in (model.t3, model.s3gen, model.ve)
        for tensor in (*part.parameters(), *part.buffers())
    ]  # fmt: skip
    layers = model.t3.tfmr.h if spec.t3.gpt2 else model.t3.tfmr.layers
    every_token = (*layers.parameters(), *model.t3.speech_head.parameters())
    return model, {"tensor_bytes": _bytes(tensors), "token_bytes": _bytes(every_token)}


def _load_llama(spec: ModelSpec, folder: Path, device: str) -> Any:
    if len(spec.languages) > 1:
        from chatterbox_nb.checkpoint import source
        from chatterbox_nb.engine.oracle import Package

        return Package(*source.find(spec.name, folder)).tts
    from chatterbox.tts import ChatterboxTTS

    return ChatterboxTTS.from_local(folder, device)


def _load_turbo(spec: ModelSpec, folder: Path, device: str) -> Any:
    from chatterbox.models.t3.llama_configs import LLAMA_CONFIGS
    from chatterbox.tts_turbo import ChatterboxTurboTTS

    dims, kept = spec.t3, dict(LLAMA_CONFIGS["GPT2_medium"])
    own = {"hidden_size": dims.width, "n_embd": dims.width, "n_layer": dims.layers, "n_head": dims.heads}
    LLAMA_CONFIGS["GPT2_medium"].update(own)
    try:
        with tempfile.TemporaryDirectory() as links:
            for path in folder.iterdir():
                name = "t3_turbo_v1.safetensors" if path.name == spec.file("t3").name else path.name
                (Path(links) / name).symlink_to(path.resolve())
            return ChatterboxTurboTTS.from_local(links, device)
    finally:
        LLAMA_CONFIGS["GPT2_medium"].update(kept)


def _bytes(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def take(model: Any, text: str, tokens: int, short: bool) -> Figures:
    """As its `generate`, a stage at a time. Short: a second of the reference."""
    import numpy as np
    import torch

    torch.manual_seed(0)
    turbo = model.t3.is_gpt
    with _stamps(model) as stamps:
        begun = time.perf_counter()
        found, _ = timed(lambda: (_turbo_tokens if turbo else _llama_tokens)(model, text, tokens))
        ended = time.perf_counter()
    figures = rates(begun, stamps[: len(found)], ended)
    voice = dict(model.conds.gen)
    if short:
        voice["prompt_token"], voice["prompt_feat"] = voice["prompt_token"][:, :25], voice["prompt_feat"][:, :50]
        voice["prompt_token_len"] = torch.full_like(voice["prompt_token_len"], 25)
    spoken = found[found < CODES]
    if turbo:
        spoken = torch.cat([spoken, spoken.new_tensor([4299] * 3)])
    mel, mel_seconds = timed(lambda: model.s3gen.flow_inference(spoken, ref_dict=voice, finalize=True))
    (wave, _), wave_seconds = timed(lambda: model.s3gen.hift_inference(mel, None))
    samples = wave[0].cpu().numpy().astype(np.float32)
    _, watermark_seconds = timed(lambda: model.watermarker.apply_watermark(samples, sample_rate=RATE))
    figures["seconds"] |= {"mel": mel_seconds, "wave": wave_seconds, "watermark": watermark_seconds}
    return {**figures, "audio_seconds": len(samples) / RATE}


def _llama_tokens(model: Any, text: str, tokens: int) -> Any:
    import torch
    from chatterbox.tts import punc_norm

    more = {"language_id": "en"} if type(model).__name__ == "ChatterboxMultilingualTTS" else {}
    ids = model.tokenizer.text_to_tokens(punc_norm(text), **more).to(model.device)
    ids = torch.nn.functional.pad(torch.nn.functional.pad(ids, (1, 0), value=255), (0, 1), value=0)
    return model.t3.inference(
        t3_cond=model.conds.t3, text_tokens=torch.cat([ids, ids]), max_new_tokens=tokens,
        temperature=0.8, cfg_weight=0.5, repetition_penalty=1.2, min_p=0.05, top_p=1.0,
    )[0]  # fmt: skip


def _turbo_tokens(model: Any, text: str, tokens: int) -> Any:
    from chatterbox.tts_turbo import punc_norm

    ids = model.tokenizer(punc_norm(text), return_tensors="pt").input_ids.to(model.device)
    return model.t3.inference_turbo(model.conds.t3, ids, max_gen_len=tokens - 1)[0]  # one more is drawn before these


@contextlib.contextmanager
def _stamps(model: Any) -> Iterator[list[float]]:
    """When each of the package's steps was done. A Llama makes one after its last token that nothing comes of."""
    stamps: list[float] = []

    def stamped(*_: Any) -> None:
        stamps.append(time.perf_counter())

    # The head is a step's last layer, and runs once in each.
    handle = model.t3.speech_head.register_forward_hook(stamped)
    try:
        yield stamps
    finally:
        handle.remove()


def more(model: Any, _: Figures, __: int, with_voice: bool) -> Figures:
    """What a voice takes."""
    import soundfile

    if not with_voice:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        for seconds in (WARM_CLIP_SECONDS, CLIP_SECONDS):
            path = Path(folder) / "clip.wav"
            soundfile.write(path, clip(seconds).samples, RATE)
            _, taken = timed(lambda path=path: model.prepare_conditionals(path))
    return {"voice": {"prepare": taken, "total": taken}}

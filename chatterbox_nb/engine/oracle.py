"""The package itself, assembled from the same files, and its stages one by one: what our numbers are held against.

It runs on the CPU in float32 and draws from torch's global generator, which is seeded for it and put back; our stages
get `PackageNoise` of the same seed.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from chatterbox_nb.checkpoint import reference
from chatterbox_nb.checkpoint.catalog import ModelSpec
from chatterbox_nb.checkpoint.source import Files
from chatterbox_nb.checkpoint.tensorfile import read_all
from chatterbox_nb.errors import TensorError


@contextmanager
def quiet() -> Iterator[None]:
    """The package prints, logs, warns, shows bars and draws from the global generator."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        torch.random.fork_rng(devices=[]),
    ):
        warnings.simplefilter("ignore")
        yield


class Package:
    """`chatterbox.tts.ChatterboxTTS` with the weights of a checkpoint of any size.

    Raises:
        TensorError: the files have other tensors than the package's modules.
    """

    def __init__(self, spec: ModelSpec, files: Files) -> None:
        with quiet():
            modules = reference.build(spec, device="cpu")
            from chatterbox.models.tokenizers import EnTokenizer
            from chatterbox.tts import ChatterboxTTS, Conditionals

            modules.t3.load_state_dict(_float(files, "t3"))
            loaded = modules.s3gen.load_state_dict(_float(files, "s3gen"), strict=False)
            if wrong := {*loaded.unexpected_keys, *loaded.missing_keys} - set(spec.optional):
                raise TensorError(
                    f"{spec.file('s3gen').name} and the package differ in {', '.join(sorted(wrong)[:5])}."
                )
            modules.voice_encoder.load_state_dict(_float(files, "voice_encoder"))
            _fill_computed(modules.s3gen, loaded.missing_keys)
            self.tts = ChatterboxTTS(
                modules.t3,
                modules.s3gen,
                modules.voice_encoder,
                EnTokenizer(str(files.path("tokenizer"))),
                "cpu",
                conds=Conditionals.load(files.path("voice")),
            )

    @property
    def s3gen(self) -> Any:
        return self.tts.s3gen

    def generate(self, text: str, seed: int, **options: Any) -> Tensor:
        """The whole of it: samples `[n]`."""
        with quiet():
            torch.manual_seed(seed)
            return self.tts.generate(text, **options)[0]

    def tokens(self, text_ids: Tensor, seed: int, cfg_weight: float, exaggeration: float, limit: int) -> list[int]:
        """T3 alone, with the package's default options."""
        from chatterbox.models.t3.modules.cond_enc import T3Cond

        voice = self.tts.conds.t3
        with quiet(), torch.inference_mode():
            torch.manual_seed(seed)
            found: Tensor = self.tts.t3.inference(
                t3_cond=T3Cond(
                    speaker_emb=voice.speaker_emb,
                    cond_prompt_speech_tokens=voice.cond_prompt_speech_tokens,
                    emotion_adv=exaggeration * torch.ones(1, 1, 1),
                ),
                text_tokens=torch.stack([text_ids, text_ids]),
                max_new_tokens=limit,
                temperature=0.8,
                cfg_weight=cfg_weight,
                repetition_penalty=1.2,
                min_p=0.05,
                top_p=1.0,
            )
        return [int(token) for token in found[0]]

    def mel(self, tokens: list[int], seed: int) -> Tensor:
        """The flow alone: `[1, 80, 2 N]`."""
        with quiet():
            torch.manual_seed(seed)
            return self.s3gen.flow_inference(torch.tensor([tokens]), ref_dict=dict(self.tts.conds.gen), finalize=True)

    def convert(self, clip: Path, seed: int) -> Tensor:
        """`chatterbox.vc.ChatterboxVC` of the same modules, into the checkpoint's voice: samples `[n]`."""
        from chatterbox.vc import ChatterboxVC

        with quiet():
            converter = ChatterboxVC(self.s3gen, "cpu", dict(self.tts.conds.gen))
            torch.manual_seed(seed)
            return converter.generate(str(clip))[0]

    def heard(self, clip: Path) -> list[int]:
        """The S3 tokenizer alone, of a clip read as there."""
        import librosa

        with quiet(), torch.inference_mode():
            samples, _ = librosa.load(str(clip), sr=16_000)
            found: Tensor = self.s3gen.tokenizer(torch.from_numpy(samples)[None])[0]
        return [int(token) for token in found[0]]

    def wave(self, mel: Tensor, seed: int) -> Tensor:
        """The vocoder alone: `[n]`."""
        with quiet():
            torch.manual_seed(seed)
            wave, _ = self.s3gen.hift_inference(mel, None)
        fade = torch.ones(wave.shape[1])
        fade[: len(self.s3gen.trim_fade)] = self.s3gen.trim_fade
        return wave[0] * fade


def _float(files: Files, role: str) -> dict[str, Tensor]:
    tensors = read_all(files.path(role))
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def _fill_computed(s3gen: Any, missing: list[str]) -> None:
    """What the package's own constructor computes and `reference.build` leaves empty.

    `conditioning.own_constants` is not called: what is held against this must not also make it.
    """
    import librosa

    tokenizer = s3gen.tokenizer
    if "tokenizer.window" in missing:
        tokenizer.window.copy_(torch.hann_window(400))
    if "tokenizer._mel_filters" in missing:
        filters = librosa.filters.mel(sr=16_000, n_fft=400, n_mels=tokenizer.config.n_mels)
        tokenizer._mel_filters.copy_(torch.from_numpy(filters))

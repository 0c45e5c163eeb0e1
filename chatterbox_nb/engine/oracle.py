"""The package itself, assembled from the same files, and its stages one by one: what our numbers are held against.

It runs on the CPU in float32 and draws from torch's global generator, which is seeded for it and put back; our stages
get `PackageNoise` of the same seed.
"""

from __future__ import annotations

import contextlib
import copy
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from chatterbox_nb.checkpoint import reference
from chatterbox_nb.checkpoint.source import Files
from chatterbox_nb.checkpoint.spec import ModelSpec
from chatterbox_nb.checkpoint.tensorfile import read_all
from chatterbox_nb.engine.tokenizers.readers import segmentation_is_here
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
    """The package's own class with the weights of a checkpoint of any size: English, multilingual or turbo.

    Raises:
        TensorError: the files have other tensors than the package's modules.
    """

    def __init__(self, spec: ModelSpec, files: Files) -> None:
        with quiet():
            modules = reference.build(spec, device="cpu")
            modules.t3.load_state_dict(_float(files, "t3"))
            loaded = modules.s3gen.load_state_dict(_float(files, "s3gen"), strict=False)
            if wrong := {*loaded.unexpected_keys, *loaded.missing_keys} - set(spec.optional):
                raise TensorError(
                    f"{spec.file('s3gen').name} and the package differ in {', '.join(sorted(wrong)[:5])}."
                )
            modules.voice_encoder.load_state_dict(_float(files, "voice_encoder"))
            _fill_computed(modules.s3gen, loaded.missing_keys)
            parts = modules.t3, modules.s3gen, modules.voice_encoder
            self.tts: Any = _assembled(spec, parts, text_tokenizer(spec, files), files)

    @property
    def s3gen(self) -> Any:
        return self.tts.s3gen

    def generate(self, text: str, seed: int, **options: Any) -> Tensor:
        """The whole of it: samples `[n]`."""
        with quiet():
            torch.manual_seed(seed)
            samples: Tensor = self.tts.generate(text, **options)[0]
            return samples

    def tokens(self, text_ids: Tensor, seed: int, cfg_weight: float, exaggeration: float, limit: int) -> list[int]:
        """T3 alone, with the package's default options.

        Args:
            cfg_weight, exaggeration: which turbo has not.
        """
        from chatterbox.models.t3.modules.cond_enc import T3Cond

        if self.tts.t3.is_gpt:
            return self._turbo_tokens(text_ids, seed, limit)
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

    def _turbo_tokens(self, text_ids: Tensor, seed: int, limit: int) -> list[int]:
        """Without the stop token, which the package takes away."""
        with quiet(), torch.inference_mode():
            torch.manual_seed(seed)
            # It draws a first token, then so many.
            found = self.tts.t3.inference_turbo(self.tts.conds.t3, text_ids[None], max_gen_len=limit - 1)
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


def _assembled(spec: ModelSpec, parts: tuple[Any, Any, Any], tokenizer: Any, files: Files) -> Any:
    from chatterbox.mtl_tts import ChatterboxMultilingualTTS
    from chatterbox.tts import ChatterboxTTS, Conditionals
    from chatterbox.tts_turbo import ChatterboxTurboTTS

    t3, kind = parts[0], ChatterboxTTS
    if spec.t3.gpt2:
        kind = ChatterboxTurboTTS
        del t3.tfmr.wte
    elif spec.tokenizer == "multilingual":
        kind = ChatterboxMultilingualTTS
        t3.hp = _without_analyzer(t3.hp)
    return kind(*parts, tokenizer, "cpu", conds=Conditionals.load(files.path("voice")))


def text_tokenizer(spec: ModelSpec, files: Files) -> Any:
    """The package's own, from the checkpoint's files alone: its multilingual one would ask the hub for a table."""
    from chatterbox.models.tokenizers import EnTokenizer, MTLTokenizer
    from chatterbox.models.tokenizers import tokenizer as package
    from tokenizers import Tokenizer

    path = str(files.path("tokenizer"))
    if spec.tokenizer == "gpt2":
        from transformers import AutoTokenizer

        found: Any = AutoTokenizer.from_pretrained(files.path("tokenizer").parent)
        if found.pad_token is None:
            found.pad_token = found.eos_token
        return found
    if spec.tokenizer != "multilingual":
        return EnTokenizer(path)
    converter = package.ChineseCangjieConverter.__new__(package.ChineseCangjieConverter)
    converter.word2cj, converter.cj2word, converter.segmenter = {}, {}, None
    with mock.patch.object(package, "hf_hub_download", lambda **_: str(files.path("cangjie"))):
        converter._load_cangjie_mapping()
    if segmentation_is_here():
        converter._init_segmenter()
    found = MTLTokenizer.__new__(MTLTokenizer)
    found.tokenizer, found.cangjie_converter = Tokenizer.from_file(path), converter
    found.check_vocabset_sot_eot()
    return found


def _without_analyzer(hp: Any) -> Any:
    """T3's sizes, of which it does not conclude that it is multilingual: it would hook an analyzer into its layers.

    That steers the draws, leaves its hooks behind, and is gone from the package since.
    """

    class Plain(type(hp)):  # type: ignore[misc]
        is_multilingual = False

    plain = copy.copy(hp)
    plain.__class__ = Plain
    return plain


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

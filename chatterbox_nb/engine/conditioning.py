"""Reference clip to Voice: what T3 and S3Gen are conditioned on.

The encoders are the package's, and are only in memory while a clip is prepared. The driver is ours: quiet, without
the package's global caches, everything in float32.
"""

from __future__ import annotations

import pickle
import warnings
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from chatterbox_nb.audio import Clip, Samples, resample
from chatterbox_nb.checkpoint.spec import ModelSpec, VoiceRules
from chatterbox_nb.errors import SourceError, VoiceError, summary

S3_RATE = 16_000
MEL_RATE = 24_000
TOKENS_PER_SECOND = 25


@dataclass(frozen=True, eq=False)
class Voice:
    """What makes speech sound like someone. float32 and int64 on the CPU, copied for each take, never changed by one.

    Args:
        name: where it came from: "builtin", a file's name, a name in the library.
        speaker: the voice encoder's embedding, `[1, E]`.
        t3_prompt: speech tokens of the clip that T3 reads, `[1, P]`.
        prompt_tokens: speech tokens that the flow continues, `[1, R]`.
        prompt_mel: their log mel, `[1, 2 R, 80]`; of some clips one frame longer, as in the package.
        speaker_vector: the speaker encoder's embedding, `[1, 192]`.
        warnings: what the listener should know of the clip.
    """

    name: str
    speaker: Tensor
    t3_prompt: Tensor
    prompt_tokens: Tensor
    prompt_mel: Tensor
    speaker_vector: Tensor
    warnings: tuple[str, ...] = field(default=())

    def tensors(self) -> dict[str, Tensor]:
        return {
            "speaker": self.speaker,
            "t3_prompt": self.t3_prompt,
            "prompt_tokens": self.prompt_tokens,
            "prompt_mel": self.prompt_mel,
            "speaker_vector": self.speaker_vector,
        }

    def copy(self) -> Voice:
        """The same voice in memory of its own."""
        tensors: Any = {name: tensor.clone() for name, tensor in self.tensors().items()}
        return Voice(self.name, **tensors, warnings=self.warnings)

    @property
    def seconds(self) -> float:
        """How much of the clip the flow continues."""
        return self.prompt_tokens.shape[1] / TOKENS_PER_SECOND

    def shortened(self, seconds: float | None) -> Voice:
        """The same voice with only the end of what the flow continues: less of it is less work for each take.

        The end, since speech goes on from there. Of what T3 reads nothing is taken.

        Args:
            seconds: rounded to whole speech tokens; None, and as much as there is, leaves the voice as it is.
        """
        here = self.prompt_tokens.shape[1]
        kept = here if seconds is None else max(1, round(seconds * TOKENS_PER_SECOND))
        if kept >= here:
            return self
        first = here - kept  # counted from the start: a mel that is a frame longer is longer at its end
        return replace(self, prompt_tokens=self.prompt_tokens[:, first:], prompt_mel=self.prompt_mel[:, 2 * first :])

    def __repr__(self) -> str:
        return f"Voice({self.name!r}, {self.seconds:.1f} s of reference)"


def read_builtin(path: Path) -> Voice:
    """The voice that comes with a checkpoint: the package's `conds.pt`, read with `weights_only`.

    Raises:
        SourceError: the file is missing or holds something else.
    """
    problem = ""
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        return Voice(
            name="builtin",
            speaker=_saved(saved, "t3", "speaker_emb").float(),
            t3_prompt=_saved(saved, "t3", "cond_prompt_speech_tokens").long(),
            prompt_tokens=_saved(saved, "gen", "prompt_token").long(),
            prompt_mel=_saved(saved, "gen", "prompt_feat").float(),
            speaker_vector=_saved(saved, "gen", "embedding").float(),
        )
    except FileNotFoundError:
        problem = "it is missing"
    except pickle.UnpicklingError:  # torch's own words advise to trust it
        problem = "it holds something else than tensors, and nothing of it was run"
    except LookupError as error:
        problem = str(error)
    except Exception as error:  # torch.load raises whatever the pickle makes it raise
        problem = f"it is cut off or damaged, {summary(error)}"
    raise SourceError(f"{path} is not a voice of this model ({problem}). Delete it and load again.")


def _saved(saved: Any, part: str, name: str) -> Tensor:
    group = saved.get(part) if isinstance(saved, dict) else None
    tensor = group.get(name) if isinstance(group, dict) else None
    if not isinstance(tensor, Tensor):
        raise LookupError(f"it has no tensor {name} under {part}")
    return tensor.detach()


@dataclass(frozen=True)
class Encoders:
    """The networks that read a clip; in memory only while one is prepared."""

    tokenizer: Any  # the package's S3Tokenizer
    speaker_encoder: Any  # CAMPPlus
    voice_encoder: Any  # VoiceEncoder

    def modules(self) -> dict[str, nn.Module]:
        return {
            "tokenizer": self.tokenizer,
            "speaker_encoder": self.speaker_encoder,
            "voice_encoder": self.voice_encoder,
        }


def check_clip(clip: Clip, rules: VoiceRules, name: str) -> tuple[str, ...]:
    """Whether a clip can be a voice, before work starts.

    Returns:
        What the listener should know.

    Raises:
        VoiceError: it is too short.
    """
    if clip.seconds < rules.min_seconds:
        raise VoiceError(
            f"{name} is {clip.seconds:.2f} s long; a voice needs at least {rules.min_seconds:g} s, "
            f"and {rules.s3gen_seconds:g} s of clean speech are best."
        )
    if clip.seconds < rules.advised_seconds:
        return (f"{name} is only {clip.seconds:.1f} s long; {rules.s3gen_seconds:g} s give a better likeness.",)
    return ()


def prepare(clip: Clip, encoders: Encoders, spec: ModelSpec, name: str) -> Voice:
    """A reference clip as a Voice; the numbers of the package's `prepare_conditionals`.

    Args:
        clip: at least `spec.voice.min_seconds` long.
        encoders: loaded, in float32.
        name: what the voice is called.
    """
    from torchaudio.functional import resample as sinc_resample

    warned = check_clip(clip, spec.voice, name)
    wave_24k = resample(clip.samples, clip.sample_rate, MEL_RATE)
    if spec.voice.loudness is not None:
        wave_24k = levelled(wave_24k, MEL_RATE, spec.voice.loudness)
    wave_16k = resample(wave_24k, MEL_RATE, S3_RATE)
    reference = torch.from_numpy(wave_24k[: int(spec.voice.s3gen_seconds * MEL_RATE)])[None]
    reference_16k = sinc_resample(reference, MEL_RATE, S3_RATE)  # the package resamples this copy differently

    prompt_mel = mel_spectrogram(reference).transpose(1, 2)
    prompt_tokens = encoders.tokenizer(reference_16k)[0][:, : prompt_mel.shape[1] // 2]
    t3_samples = wave_16k[: int(spec.voice.t3_seconds * S3_RATE)]
    t3_prompt, _ = encoders.tokenizer([t3_samples], max_len=spec.t3.prompt_tokens)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # librosa on clips shorter than its window
        embedding = encoders.voice_encoder.embeds_from_wavs([wave_16k], sample_rate=S3_RATE)
    speaker = torch.from_numpy(embedding.astype(np.float32)).mean(dim=0, keepdim=True)
    return Voice(
        name=name,
        speaker=speaker,
        t3_prompt=torch.atleast_2d(t3_prompt).long(),
        prompt_tokens=prompt_tokens.long(),
        prompt_mel=prompt_mel,
        speaker_vector=encoders.speaker_encoder.inference(reference_16k),
        warnings=warned,
    )


def levelled(samples: Samples, sample_rate: int, loudness: float) -> Samples:
    """Samples at a loudness, in LUFS (ITU-R BS.1770); silence stays as it is."""
    import pyloudnorm

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of silence, whose loudness is minus infinity
        gain = 10.0 ** ((loudness - pyloudnorm.Meter(sample_rate).integrated_loudness(samples)) / 20.0)
    return (samples * gain).astype(np.float32) if np.isfinite(gain) else samples


def mel_spectrogram(samples: Tensor) -> Tensor:
    """Samples `[1, n]` at 24 kHz to the log mel S3Gen was trained on, `[1, 80, n / 480]`."""
    from librosa.filters import mel

    size, hop = 1920, 480
    filters = torch.from_numpy(mel(sr=MEL_RATE, n_fft=size, n_mels=80, fmin=0, fmax=8000)).float()
    padded = torch.nn.functional.pad(samples[:, None], ((size - hop) // 2,) * 2, mode="reflect")[:, 0]
    spectrum = torch.stft(padded, size, hop, size, torch.hann_window(size), center=False, return_complex=True)
    magnitude = torch.sqrt(torch.view_as_real(spectrum).pow(2).sum(-1) + 1e-9)
    return torch.log(torch.clamp(torch.matmul(filters, magnitude), min=1e-5))


def own_constants(tokenizer: nn.Module, absent: set[str]) -> None:
    """Puts in what was built on the meta device and is in no file: rotary table, and window and filters if absent."""
    from librosa.filters import mel
    from s3tokenizer.model_v2 import precompute_freqs_cis

    module: Any = tokenizer
    module.encoder.freqs_cis = precompute_freqs_cis(64, 1024 * 2)
    if "window" in absent:
        module.window = torch.hann_window(module.n_fft)
    if "_mel_filters" in absent:
        filters = mel(sr=S3_RATE, n_fft=module.n_fft, n_mels=module.config.n_mels)
        module._mel_filters = torch.from_numpy(filters).float()


def own_attention(conditioning_encoder: nn.Module) -> None:
    """Lets the perceiver attend without the deprecated switch around it, which warns and sets flags for the host."""

    def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    encoder: Any = conditioning_encoder
    encoder.perceiver.attn.attention.flash_attention = attend


def write_voice(path: Path, voice: Voice) -> None:
    """A prepared voice as a safetensors file; a disk that is full or read-only is no reason to fail a take."""
    from safetensors.torch import save_file

    with suppress(OSError, SafetensorError):
        save_file({name: tensor.contiguous() for name, tensor in voice.tensors().items()}, path)


def read_voice(path: Path, name: str, spec: ModelSpec) -> Voice | None:
    """What `write_voice` wrote, or None when it is not there, not whole, or not for this model."""
    from safetensors.torch import load_file

    try:
        tensors: Any = load_file(path)
        voice = Voice(name, **tensors)
    except (OSError, SafetensorError, TypeError):
        return None
    return voice if voice.speaker.shape[-1] == spec.t3.speaker_width else None

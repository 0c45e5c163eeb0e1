"""The package's own classes, at any size: the only door to `chatterbox`.

They give us the published names and shapes, the parts we borrow (encoders, tokenizers, conformer, estimator, vocoder)
and the oracle. Nothing is loaded here: `build` makes modules on the meta device, without weights.

Sizes are fixed inside several of the package's constructors. For other sizes than the published ones the part is built
with what its constructor takes, and its fixed children are then replaced.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import random
import sys
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from chatterbox_nb.checkpoint.spec import ModelSpec, T3Dims
from chatterbox_nb.errors import CheckpointError


@dataclass(frozen=True)
class Modules:
    """The package's modules of one model, on the meta device. Their state dicts carry the published names."""

    t3: nn.Module
    s3gen: nn.Module
    voice_encoder: nn.Module


def _from_the_host(record: logging.LogRecord) -> bool:
    """The package tells its frame rate on the root logger, which is the host's."""
    return "chatterbox" not in Path(record.pathname).parts


@contextmanager
def _host_unchanged() -> Iterator[None]:
    """The package's imports and constructors draw random numbers, add warning filters, log handlers and variables."""
    state, environment = random.getstate(), dict(os.environ)
    loggers = {name: logging.getLogger(name) for name in ("", "transformers", "diffusers", "huggingface_hub")}
    logging_state = {
        name: (logger.level, logger.handlers[:], logger.filters[:], logger.propagate)
        for name, logger in loggers.items()
    }
    logging.root.addFilter(_from_the_host)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(state)
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update(environment)
        for name, (level, handlers, filters, propagate) in logging_state.items():
            loggers[name].setLevel(level)
            loggers[name].handlers[:] = handlers
            loggers[name].filters[:] = filters
            loggers[name].propagate = propagate


@contextmanager
def _with_pkg_resources() -> Iterator[None]:
    """perth asks `pkg_resources` for one path; setuptools no longer brings it, and Python 3.12 no longer setuptools."""
    if "pkg_resources" in sys.modules or importlib.util.find_spec("pkg_resources") is not None:
        yield
        return
    stand_in: Any = types.ModuleType("pkg_resources")
    stand_in.resource_filename = lambda package, name: str(Path(sys.modules[package].__file__ or "").parent / name)
    sys.modules["pkg_resources"] = stand_in
    try:
        yield
    finally:
        sys.modules.pop("pkg_resources", None)


def import_package() -> None:
    """Imports `chatterbox`, and leaves the host as it was.

    Raises:
        CheckpointError: it is not installed, or does not import.
    """
    if "chatterbox.tts" in sys.modules and getattr(sys.modules.get("perth"), "PerthImplicitWatermarker", None):
        return
    reason = ""
    try:
        with _host_unchanged():
            with _with_pkg_resources():
                perth: Any = import_module("perth")
                if perth.PerthImplicitWatermarker is None:  # the host imported it before, without pkg_resources
                    perth = importlib.reload(perth)
            import_module("chatterbox.tts")
            if perth.PerthImplicitWatermarker is None:
                reason = "perth, its watermarker, did not import"
    except Exception as error:  # a clash of versions, such as protobuf's, is raised as anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
    if reason:
        raise CheckpointError(f"chatterbox-tts does not import ({reason}). Try: pip install chatterbox-tts")


class _NoInitialValues(TorchFunctionMode):
    """Building modules without drawing the random numbers that a checkpoint replaces."""

    _SKIPPED = (Tensor.normal_, Tensor.uniform_, nn.init.kaiming_normal_, nn.init.kaiming_uniform_)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in self._SKIPPED:
            return args[0] if args else kwargs["tensor"]
        if func is torch._weight_norm:  # weight norms are folded when they are filled; on meta each costs milliseconds
            return torch.empty_like(args[0])
        if func is torch.norm_except_dim:
            direction, dim = args[0], args[2]
            return direction.new_empty([size if axis == dim else 1 for axis, size in enumerate(direction.shape)])
        return func(*args, **kwargs)


def build(spec: ModelSpec, device: str = "meta", initialized: bool = False) -> Modules:
    """The package's modules of a spec, without weights; or with those that a training begins with."""
    import_package()
    with _host_unchanged(), torch.device(device), nullcontext() if initialized else _NoInitialValues():
        parts = [_t3(spec), _s3gen(spec), _voice_encoder(spec)]
        # A few parameters are made by `torch.Tensor(...)`, which knows of no device context.
        return Modules(*(part.eval().to(device) for part in parts))


def _t3(spec: ModelSpec) -> nn.Module:
    from chatterbox.models.t3.llama_configs import LLAMA_CONFIGS
    from chatterbox.models.t3.modules.perceiver import Perceiver
    from chatterbox.models.t3.modules.t3_config import T3Config
    from chatterbox.models.t3.t3 import T3

    dims = spec.t3
    hp = T3Config(dims.text_vocab)
    hp.start_text_token, hp.stop_text_token = dims.start_text, dims.stop_text
    hp.start_speech_token, hp.stop_speech_token = dims.start_speech, dims.stop_speech
    hp.max_text_tokens, hp.max_speech_tokens = dims.text_positions - 2, dims.speech_positions - 4
    hp.speech_tokens_dict_size = dims.speech_vocab
    hp.speech_cond_prompt_len, hp.speaker_embed_size = dims.prompt_tokens, dims.speaker_width
    hp.use_perceiver_resampler = False  # its constructor takes no sizes, so it is put in below
    hp.emotion_adv = dims.emotion
    hp.input_pos_emb = None if dims.gpt2 else "learned"
    hp.llama_config_name = "chatterbox_nb"
    own = _gpt2_config(dims) if dims.gpt2 else _llama_config(dims)
    LLAMA_CONFIGS[hp.llama_config_name] = {**LLAMA_CONFIGS["GPT2_medium" if dims.gpt2 else "Llama_520M"], **own}
    try:
        t3 = T3(hp)
        if not dims.perceiver_queries:
            return t3
        hp.use_perceiver_resampler = True
        t3.cond_enc.perceiver = Perceiver(
            pre_attention_query_token=dims.perceiver_queries,
            pre_attention_query_size=dims.width,
            embedding_dim=dims.width,
            num_attn_heads=dims.perceiver_heads,
        )
    finally:
        del LLAMA_CONFIGS[hp.llama_config_name]
    return t3


def _gpt2_config(dims: T3Dims) -> dict[str, Any]:
    return {
        "hidden_size": dims.width,
        "n_embd": dims.width,
        "n_inner": dims.ffn,
        "n_layer": dims.layers,
        "n_head": dims.heads,
        "n_ctx": dims.positions,
        "n_positions": dims.positions,
        "vocab_size": dims.text_vocab,
        "layer_norm_epsilon": dims.norm_eps,
    }


def _llama_config(dims: T3Dims) -> dict[str, Any]:
    scaling = dims.rope_scaling
    return {
        "hidden_size": dims.width,
        "intermediate_size": dims.ffn,
        "num_hidden_layers": dims.layers,
        "num_attention_heads": dims.heads,
        "num_key_value_heads": dims.heads,
        "head_dim": dims.head_width,
        "rms_norm_eps": dims.norm_eps,
        "rope_theta": dims.rope_theta,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_positions,
        },
        "torch_dtype": "float32",
    }


def _s3gen(spec: ModelSpec) -> nn.Module:
    from chatterbox.models.s3gen import s3gen as package

    dims = spec.s3gen
    module = package.S3Token2Wav.__new__(package.S3Token2Wav)
    nn.Module.__init__(module)
    module.tokenizer = _tokenizer(spec)
    module.mel_extractor = package.mel_spectrogram
    module.speaker_encoder = package.CAMPPlus(
        growth_rate=dims.speaker_growth, init_channels=dims.speaker_init, memory_efficient=False
    )
    module.meanflow = dims.meanflow
    module.flow = _flow(spec)
    module.resamplers = {}
    module.mel2wav = package.HiFTGenerator(
        sampling_rate=spec.sample_rate,
        base_channels=dims.vocoder_width,
        upsample_rates=[8, 5, 3],
        upsample_kernel_sizes=[16, 11, 7],
        source_resblock_kernel_sizes=[7, 7, 11],
        source_resblock_dilation_sizes=[[1, 3, 5], [1, 3, 5], [1, 3, 5]],
        f0_predictor=package.ConvRNNF0Predictor(cond_channels=dims.f0_width),
    )
    module.register_buffer("trim_fade", trim_fade(spec.sample_rate), persistent=False)
    module.mel2wav.stft_window = module.mel2wav.stft_window.to(module.trim_fade.device)  # numpy made it
    module.estimator_dtype = "fp32"
    return module


def trim_fade(sample_rate: int) -> torch.Tensor:
    """20 ms of silence and 20 ms of fading in, `[2 n]`: what the package multiplies the start of its audio with."""
    n = sample_rate // 50
    fade = (torch.cos(torch.linspace(torch.pi, 0, n)) + 1) / 2
    return torch.cat([torch.zeros(n), fade])


def _tokenizer(spec: ModelSpec) -> nn.Module:
    from chatterbox.models.s3tokenizer.s3tokenizer import S3Tokenizer
    from s3tokenizer.model_v2 import ModelConfig, S3TokenizerV2

    dims = spec.s3gen
    config = ModelConfig(
        n_mels=dims.tokenizer_mels,
        n_audio_state=dims.tokenizer_width,
        n_audio_head=dims.tokenizer_heads,
        n_audio_layer=dims.tokenizer_layers,
    )
    module = S3Tokenizer.__new__(S3Tokenizer)  # its own constructor drops the config
    S3TokenizerV2.__init__(module, "speech_tokenizer_v2_25hz", config)
    module.n_fft = 400
    module.register_buffer("_mel_filters", torch.empty(dims.tokenizer_mels, 201))
    module.register_buffer("window", torch.empty(400))
    return module


def _flow(spec: ModelSpec) -> nn.Module:
    from chatterbox.models.s3gen import s3gen as package
    from chatterbox.models.s3gen.transformer import upsample_encoder as conformer

    dims = spec.s3gen
    width = dims.encoder_width
    encoder = package.UpsampleConformerEncoder(
        input_size=width,
        output_size=width,
        attention_heads=dims.encoder_heads,
        linear_units=dims.encoder_ffn,
        num_blocks=dims.encoder_blocks,
        dropout_rate=0.1,
        positional_dropout_rate=0.1,
        attention_dropout_rate=0.1,
        normalize_before=True,
        input_layer="linear",
        pos_enc_layer_type="rel_pos_espnet",
        selfattention_layer_type="rel_selfattn",
        use_cnn_module=False,
        macaron_style=False,
    )
    encoder.pre_lookahead_layer = conformer.PreLookaheadLayer(channels=width, pre_lookahead_len=3)
    encoder.up_layer = conformer.Upsample1D(channels=width, out_channels=width, stride=2)
    encoder.up_encoders = nn.ModuleList(list(encoder.up_encoders)[: dims.encoder_up_blocks])
    estimator = package.ConditionalDecoder(
        in_channels=320,
        out_channels=80,
        causal=True,
        channels=[dims.estimator_width],
        dropout=0.0,
        attention_head_dim=dims.estimator_head_width,
        n_blocks=dims.estimator_blocks,
        num_mid_blocks=dims.estimator_middle,
        num_heads=dims.estimator_heads,
        act_fn="gelu",
        meanflow=dims.meanflow,
    )
    decoder = package.CausalConditionalCFM(spk_emb_dim=80, cfm_params=package.CFM_PARAMS, estimator=estimator)
    return package.CausalMaskedDiffWithXvec(input_size=width, encoder=encoder, decoder=decoder)


def _voice_encoder(spec: ModelSpec) -> nn.Module:
    from chatterbox.models.voice_encoder.config import VoiceEncConfig
    from chatterbox.models.voice_encoder.voice_encoder import VoiceEncoder

    hp = VoiceEncConfig()
    hp.ve_hidden_size, hp.speaker_embed_size = spec.voice_encoder_width, spec.t3.speaker_width
    return VoiceEncoder(hp)

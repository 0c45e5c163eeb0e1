"""Every tensor of a model: its published name and shape, the component it belongs to, the kind of layer it is in.

Read off the package's own classes on the meta device, so it cannot disagree with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from chatterbox_nb.checkpoint.reference import Modules
from chatterbox_nb.checkpoint.spec import ModelSpec
from chatterbox_nb.precision.layers import is_conv1d
from chatterbox_nb.precision.plan import TensorInfo

# A published name's first part → component, within s3gen's file.
S3GEN_COMPONENTS = {
    "tokenizer": "tokenizer",
    "speaker_encoder": "speaker_encoder",
    "flow": "flow",
    "mel2wav": "vocoder",
}
_GAIN, _DIRECTION = "parametrizations.weight.original0", "parametrizations.weight.original1"
_POSITIONS = ("text_pos_emb.emb", "speech_pos_emb.emb", "tfmr.wpe")
_HEADS = ("speech_head", "text_head")


def inventory(spec: ModelSpec, modules: Modules) -> tuple[TensorInfo, ...]:
    """The tensors of a model: those of its files, then the tables that are rebuilt and stay in memory."""
    parts = (
        (spec.file("t3").name, "t3", modules.t3),
        (spec.file("s3gen").name, "", modules.s3gen),
        (spec.file("voice_encoder").name, "voice_encoder", modules.voice_encoder),
    )
    listed = [info for file, component, module in parts for info in _of_file(spec, file, component, module)]
    return (*listed, *_tables(spec, modules))


def _of_file(spec: ModelSpec, file: str, component: str, module: nn.Module) -> Iterator[TensorInfo]:
    layers = dict(module.named_modules())
    for name, tensor in module.state_dict().items():
        owner = component or S3GEN_COMPONENTS[name.split(".", 1)[0]]
        layer_name = (
            name.replace("." + _GAIN, "").replace("." + _DIRECTION, "")
            if _GAIN[:-1] in name
            else name.rpartition(".")[0]
        )
        kind = "text" if name in spec.on_host else _kind(name, layer_name, layers.get(layer_name), tensor)
        yield TensorInfo(
            file=file,
            name=name,
            shape=tuple(tensor.shape),
            component=owner,
            kind=kind,
            rows=_rows(layers.get(layer_name), tensor),
            used=name not in spec.unused and kind != "counter",
        )


def _kind(name: str, layer_name: str, layer: nn.Module | None, tensor: Tensor) -> str:
    last = name.rpartition(".")[2]
    if not tensor.dtype.is_floating_point:
        return "counter"
    if last.startswith("bias"):
        return "bias"
    if isinstance(layer, nn.LSTM):
        return "lstm"
    if name.endswith(_GAIN):
        return "gain"
    if isinstance(layer, _ConvNd):
        return "conv"
    if isinstance(layer, nn.Embedding):
        return "position" if layer_name in _POSITIONS else "embedding"
    if isinstance(layer, nn.Linear) or (layer is not None and is_conv1d(layer)):
        return "conditioning" if name.startswith("cond_enc.") else "head" if layer_name in _HEADS else "linear"
    if layer is not None and ("norm" in type(layer).__name__.lower()):
        return "norm"
    return "other"


def _rows(layer: nn.Module | None, tensor: Tensor) -> int:
    if not tensor.ndim:
        return 1
    by_column = isinstance(layer, _ConvTransposeNd) or (layer is not None and is_conv1d(layer))
    return tensor.shape[1 if by_column and tensor.ndim > 1 else 0]


def _tables(spec: ModelSpec, modules: Modules) -> Iterator[TensorInfo]:
    vocoder: Any = modules.s3gen.mel2wav
    for name, length in (("stft_window", vocoder.istft_params["n_fft"]), ("trim_fade", 2 * (spec.sample_rate // 50))):
        yield TensorInfo("", name, (length,), "vocoder", "table", length)

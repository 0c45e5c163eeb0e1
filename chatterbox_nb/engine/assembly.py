"""Modules put together by the plan, on the meta device, and how they are filled.

T3 and the flow's estimator are ours, the rest is the package's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from chatterbox_nb.checkpoint import loader, reference
from chatterbox_nb.checkpoint.loader import Fill
from chatterbox_nb.checkpoint.source import Files
from chatterbox_nb.checkpoint.spec import ModelSpec
from chatterbox_nb.checkpoint.tensorfile import TensorFile, open_tensors
from chatterbox_nb.engine import compiling, conditioning, flow, vocoder
from chatterbox_nb.engine.conditioning import Encoders
from chatterbox_nb.engine.nets import t3 as t3_net
from chatterbox_nb.engine.nets.t3 import T3
from chatterbox_nb.errors import PrecisionError
from chatterbox_nb.events import CancelToken
from chatterbox_nb.precision import kernels, layers
from chatterbox_nb.precision.plan import COMPUTED, HOST, DeviceFacts, Plan, Row, TensorInfo, compute_of, storage_of

# The files that hold tensors, and which of them each component that stays in memory comes from.
TENSOR_FILES = ("t3", "s3gen", "voice_encoder")
RESIDENT = {"t3": "t3", "flow": "s3gen", "vocoder": "s3gen"}
_PREFIX = {"vocoder": "mel2wav.", "tokenizer": "tokenizer.", "speaker_encoder": "speaker_encoder."}

Modules = dict[str, nn.Module]
Fills = dict[str, list[Fill]]


def assemble(
    spec: ModelSpec, built: reference.Modules, tensors: Iterable[TensorInfo], planned: Plan, device: DeviceFacts
) -> tuple[Modules, Fills]:
    """The modules that stay in memory, as the plan wants them and without weights, and how each is filled.

    Args:
        built: used up; build another for another model.

    Raises:
        PrecisionError: a layer that the plan stores in int8 has no int8 form.
    """
    s3gen: Any = built.s3gen
    with torch.device("meta"):
        t3 = T3(spec.t3, built.t3.cond_enc).eval()  # type: ignore[arg-type]
    if spec.t3.perceiver_queries:
        conditioning.own_attention(t3.conditioning_encoder)
    loader.fold_weight_norms(s3gen.mel2wav)
    vocoder.own_layers(s3gen.mel2wav)
    with torch.device("meta"):
        flow.own_parts(s3gen.flow, spec.s3gen)
    t3.compiled = planned.kernel == "fused" and device.kind == "cpu"
    s3gen.flow.decoder.estimator.tiled = compiling.tiles_attention(planned, spec.s3gen)
    modules: Modules = {"t3": t3, "flow": s3gen.flow, "vocoder": s3gen.mel2wav}
    for component in COMPUTED:
        modules[component].to(getattr(torch, compute_of(component, planned)))
    fills: Fills = {"t3": t3_net.fills(spec.t3, t3.conditioning_encoder)}
    fills |= {"flow": flow.fills(s3gen.flow), "vocoder": loader.plain_fills(s3gen.mel2wav, _PREFIX["vocoder"])}
    fast, plain = kernels.get(planned.kernel or "plain", device), kernels.get("plain")
    for component, module in modules.items():
        kernel = fast if component == "t3" else plain
        _convert(component, module, fills[component], tensors, planned, kernel)
    return modules, fills


def _convert(
    component: str,
    module: nn.Module,
    fills: Iterable[Fill],
    tensors: Iterable[TensorInfo],
    planned: Plan,
    fast: kernels.Kernel | None = None,
) -> None:
    """Puts quantized layers where the plan wants them."""
    kinds = {tensor.name: tensor.kind for tensor in tensors if tensor.component == component}
    stored = {
        fill.target.rpartition(".")[0]: storage_of(component, kinds[fill.sources[-1]], planned)
        for fill in fills
        if fill.target.rpartition(".")[2].startswith("weight")
    }
    if "int8" not in stored.values():
        return
    plain = kernels.get("plain")

    def kernel_of(name: str) -> kernels.Kernel:
        return fast if fast is not None and name.startswith(t3_net.DECODED) else plain

    layers.convert(module, stored, kernel_of, getattr(torch, compute_of(component, planned)))


def length(fills: Iterable[Fill], file: TensorFile) -> int:
    """Bytes of a file that fills read."""
    return sum(file.entries[source].length for fill in fills for source in fill.sources)


def fill(
    modules: Mapping[str, nn.Module],
    fills: Mapping[str, list[Fill]],
    opened: Mapping[str, TensorFile],
    device: str,
    on_bytes: Callable[[int, str], None],
    cancel: CancelToken | None,
) -> None:
    """Reads every tensor of these components from the checkpoint's files, and tells the bytes and the component."""
    for component, module in modules.items():
        file = opened[RESIDENT[component]]

        def on_fill(fill: Fill, component: str = component, file: TensorFile = file) -> None:
            on_bytes(length([fill], file), component)

        loader.load(module, file, fills[component], torch.device(device), on_fill, cancel)


def place_on_host(t3: T3, planned: Plan) -> None:
    """Puts on the CPU what the plan wants there."""
    if any(row.placement == HOST for row in planned.rows):
        t3.text_embedding.to("cpu")


def read_encoders(
    spec: ModelSpec, files: Files, tensors: Iterable[TensorInfo], planned: Plan
) -> tuple[Encoders, Fills]:
    """The networks that read a clip, on the CPU and in float32 but for what the plan stores in int8."""
    tensors = tuple(tensors)
    modules = reference.build(spec)
    s3gen: Any = modules.s3gen
    parts: Modules = {
        "tokenizer": s3gen.tokenizer,
        "speaker_encoder": s3gen.speaker_encoder,
        "voice_encoder": modules.voice_encoder,
    }
    fills: Fills = {}
    with open_tensors(files.path("s3gen")) as shared, open_tensors(files.path("voice_encoder")) as own:
        absent = {name.removeprefix("tokenizer.") for name in spec.optional if name not in shared.entries}
        _leave_out(parts["tokenizer"], absent)
        for component, module in parts.items():
            _leave_out(module, spec.unused)
            fills[component] = loader.plain_fills(module, _PREFIX.get(component, ""))
            _convert(component, module, fills[component], tensors, planned)
            file = own if component == "voice_encoder" else shared
            loader.load(module, file, fills[component], torch.device("cpu"))
    conditioning.own_constants(parts["tokenizer"], absent)
    return Encoders(**parts), fills


def _leave_out(module: nn.Module, names: Iterable[str]) -> None:
    """Takes away parameters that the file lacks or inference never reads, and BatchNorm's counters."""
    for name in names:
        if hasattr(module, name):
            setattr(module, name, None)
    for layer in module.modules():
        if getattr(layer, "num_batches_tracked", None) is not None:
            layer.num_batches_tracked = None  # type: ignore[assignment]


def without_fused(planned: Plan, problem: str) -> Plan:
    """A plan whose fused step turned out not to work."""
    kernel = "plain" if planned.precision == "int8" else ""

    def named(row: Row) -> Row:
        return replace(row, kernel=kernel if row.storage == "int8" else "") if row.kernel == "fused" else row

    rows = tuple(map(named, planned.rows))
    because = f"T3's layers are multiplied by torch, not by one compiled step ({problem})"
    return replace(planned, kernel=kernel, rows=rows, because=because)


def check_converted(rows: Iterable[Any]) -> None:
    """Holds what was found in memory against the plan: int8 that was promised is int8.

    Raises:
        PrecisionError: layers of an int8 row were left as they are.
    """
    for row in rows:
        if row.storage == "int8" and row.placement == "resident" and row.converted != row.layers:
            raise PrecisionError(f"{row.name}: {row.converted} of {row.layers} layers are in int8. This is a bug.")

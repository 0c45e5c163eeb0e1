"""The precision plan: component × layer kind × precision × device → storage, compute, placement, kernel.

Pure data and pure functions: no torch, no files. A plan's predicted bytes equal, to the byte, those of the tensors
that a load leaves in memory. A new precision is a new entry in `STORAGE`; a new component a new row of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from chatterbox_nb.errors import PrecisionError, nearest

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1, "int64": 8}
PRECISIONS = ("fp32", "fp16", "bf16", "int8")

# Components that only prepare a voice. They stay on disk until a clip is read, and leave again after it.
ENCODERS = ("tokenizer", "speaker_encoder", "voice_encoder")

# What is stored how. A kind that is not named keeps float32: norms, biases and small parameters are 0.1 % of the bytes.
STORAGE: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    "fp32": {},
    "fp16": {"t3": {"*": "float16"}, "flow": {"*": "float16"}},
    "bf16": {"t3": {"*": "bfloat16"}, "flow": {"*": "bfloat16"}},
    "int8": {
        "t3": {"linear": "int8", "conditioning": "int8", "head": "int8", "embedding": "int8", "position": "int8"},
        "flow": {"linear": "int8", "embedding": "int8", "conv": "int8"},
        "vocoder": {"conv": "int8"},
    },
}
# Matrices that are multiplied with a few rows at a time, once a token: here a kernel pays.
DECODE_KINDS = {("t3", "linear"), ("t3", "head")}


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a checkpoint.

    Args:
        file: the file it stands in; empty for a table that is rebuilt and never stored.
        name: its published name.
        shape: its sizes.
        component: t3, flow, vocoder, tokenizer, speaker_encoder, voice_encoder.
        kind: linear, conditioning (T3's linear layers that run once a take), head, embedding, position, conv, lstm,
            norm, bias, other, counter, table, or gain, which is folded into its convolution.
        rows: how many scales it has when stored in int8: output channels, or entries of an embedding.
        used: False for what inference never reads.
    """

    file: str
    name: str
    shape: tuple[int, ...]
    component: str
    kind: str
    rows: int
    used: bool = True

    @cached_property
    def numel(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count

    @property
    def shipped_bytes(self) -> int:
        """What the package holds of it: float32, except BatchNorm's counters."""
        return 0 if self.kind == "table" else self.numel * (8 if self.kind == "counter" else 4)

    def bytes_as(self, storage: str) -> int:
        """Bytes in memory when stored so; int8 adds a float32 scale a row."""
        return self.numel * BYTES[storage] + (4 * self.rows if storage == "int8" else 0)


@dataclass(frozen=True)
class DeviceFacts:
    """What a plan needs to know of a device.

    Args:
        name: as torch writes it: cpu, cuda:0, mps.
        machine: x86_64, aarch64, arm64.
        capability: the vector instructions torch uses on a CPU (AVX512, AVX2, DEFAULT), `8.0` on CUDA.
        vnni: the CPU multiplies int8 in one instruction.
        total_bytes, free_bytes: of its memory, where known.
    """

    name: str
    machine: str = ""
    capability: str = ""
    vnni: bool = False
    total_bytes: int | None = None
    free_bytes: int | None = None

    @property
    def kind(self) -> str:
        return self.name.split(":")[0]


@dataclass(frozen=True)
class Row:
    """One line of a plan.

    Args:
        storage: float32, float16, bfloat16, int8; `folded` and `unused` take nothing.
        compute: the dtype it is multiplied in.
        placement: resident; `on demand` for what only prepares a voice; `dropped`.
        kernel: what multiplies it, where that is not torch's own.
        tensors, bytes: how many, and what they take while resident or, on demand, while read.
        shipped_bytes: what the package holds of the same tensors.
    """

    component: str
    kind: str
    storage: str
    compute: str
    placement: str
    kernel: str
    tensors: int
    bytes: int
    shipped_bytes: int

    @property
    def resident_bytes(self) -> int:
        return self.bytes if self.placement == "resident" else 0


@dataclass(frozen=True)
class Plan:
    """What each group of tensors becomes, and why: `why` this precision, `because` this kernel."""

    precision: str
    device: str
    kernel: str
    rows: tuple[Row, ...]
    why: str = ""
    because: str = ""

    @property
    def reason(self) -> str:
        return (
            f"{self.precision} on {self.device}"
            + (f": {self.why}" if self.why else "")
            + (f"; {self.because}" if self.because else "")
        )

    def row(self, component: str, kind: str) -> Row:
        return next(row for row in self.rows if (row.component, row.kind) == (component, kind))

    @property
    def expected_bytes(self) -> int:
        """Bytes of the tensors that stay in memory."""
        return sum(row.resident_bytes for row in self.rows)

    @property
    def shipped_bytes(self) -> int:
        """Bytes of everything the package loads, in float32."""
        return sum(row.shipped_bytes for row in self.rows)

    @property
    def compute(self) -> str:
        """The dtype of T3's activations."""
        return next((row.compute for row in self.rows if row.component == "t3" and row.compute), "float32")


def plan(
    tensors: Iterable[TensorInfo],
    precision: str,
    device: DeviceFacts,
    kernel: str = "auto",
    why: str = "",
) -> Plan:
    """What each group of tensors becomes.

    Args:
        tensors: a checkpoint's inventory.
        precision: fp32, fp16, bf16 or int8.
        device: where it is to run.
        kernel: auto, plain, int8pack or dynamic; only int8 has a choice.
        why: how the precision was chosen, for the reason.

    Raises:
        PrecisionError: an unknown precision or kernel, or a kernel this device does not have.
    """
    if precision not in PRECISIONS:
        raise PrecisionError(
            f"'{precision}' is not a precision; choose {', '.join(PRECISIONS)}.{nearest(precision, PRECISIONS)}"
        )
    chosen, because = choose_kernel(precision, device, kernel)

    groups: dict[tuple[str, str, bool], list[TensorInfo]] = {}
    for tensor in tensors:
        groups.setdefault((tensor.component, tensor.kind, tensor.used), []).append(tensor)
    rows = [_row(key, members, precision, chosen) for key, members in groups.items()]
    return Plan(precision, device.name, chosen, tuple(rows), why, because)


def _row(key: tuple[str, str, bool], tensors: list[TensorInfo], precision: str, kernel: str) -> Row:
    component, kind, used = key
    storage = storage_of(component, kind, precision) if used else "unused"
    held = storage not in ("folded", "unused")
    placement = "dropped" if not held else "on demand" if component in ENCODERS else "resident"
    compute = storage if storage in ("float16", "bfloat16") else "float32"
    return Row(
        component=component,
        kind=kind,
        storage=storage,
        compute=compute if held else "",
        placement=placement,
        kernel=(kernel if (component, kind) in DECODE_KINDS else "plain") if storage == "int8" else "",
        tensors=len(tensors),
        bytes=sum(tensor.bytes_as(storage) for tensor in tensors) if held else 0,
        shipped_bytes=sum(tensor.shipped_bytes for tensor in tensors),
    )


def storage_of(component: str, kind: str, precision: str) -> str:
    """How tensors of this component and kind are stored."""
    if kind == "gain":
        return "folded"
    if kind == "counter":
        return "int64"
    if kind == "table":
        return "float32"
    kinds = STORAGE[precision].get(component, {})
    return kinds.get(kind, kinds.get("*", "float32"))


def choose_kernel(precision: str, device: DeviceFacts, asked: str = "auto") -> tuple[str, str]:
    """The kernel for matrices multiplied with few rows, and why.

    `int8pack` multiplies int8 weights with bfloat16 activations; `dynamic` quantizes the activations too, a row at a
    time; `plain` dequantizes and multiplies, and runs everywhere.
    """
    if precision != "int8":
        if asked not in ("auto", "plain"):
            raise PrecisionError(f"Kernel '{asked}' multiplies int8, not {precision}. Try --precision int8.")
        return "", ""
    x86 = device.kind == "cpu" and device.machine.lower() in ("x86_64", "amd64")
    available = {
        "plain": True,
        "int8pack": x86 and device.capability in ("AVX2", "AVX512"),
        "dynamic": x86 and device.vnni,
    }
    if asked == "auto":
        if available["int8pack"]:
            return "int8pack", f"weights in int8 are multiplied by int8pack ({device.capability})"
        return "plain", f"no faster int8 kernel for {device.kind} {device.machine} {device.capability}".rstrip()
    if asked not in available:
        raise PrecisionError(
            f"'{asked}' is not a kernel; choose auto, {', '.join(available)}.{nearest(asked, available)}"
        )
    if not available[asked]:
        have = ", ".join(name for name, there in available.items() if there)
        raise PrecisionError(
            f"Kernel '{asked}' does not run on this {device.kind} ({device.machine} {device.capability}). Here: {have}."
        )
    return asked, f"kernel {asked} was asked for"

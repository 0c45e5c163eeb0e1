"""The precision plan: component × layer kind × precision × device → storage, compute, placement, kernel.

Pure data and pure functions: no torch, no files. A plan's predicted bytes equal, to the byte, those of the tensors
that a load leaves in memory. A new precision is a new entry in `STORAGE`; a new component a new row of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from chatterbox_nb.errors import PrecisionError, nearest
from chatterbox_nb.precision.choice import X86, choose_kernel

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1, "int64": 8}
PRECISIONS = ("fp32", "fp16", "bf16", "int8")

# Components that only prepare a voice. They stay on disk until a clip is read, and leave again after it.
ENCODERS = ("tokenizer", "speaker_encoder", "voice_encoder")

# What is stored otherwise than it is computed in. A kind that is not named is stored in its component's compute dtype:
# of int8, norms, biases and small parameters are .1 % of the bytes.
STORAGE: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    "fp32": {},
    "fp16": {},
    "bf16": {},
    "int8": {
        "t3": {
            "linear": "int8",
            "conditioning": "int8",
            "head": "int8",
            "embedding": "int8",
            "position": "int8",
            "text": "int8",
        },
        "flow": {"linear": "int8", "embedding": "int8", "conv": "int8"},
        "vocoder": {"conv": "int8"},
        "voice_encoder": {"lstm": "int8"},
    },
}
# Rows of int8 that cost more than the quality gate allows (docs/quality.md): none.
OFF_BY_DEFAULT: tuple[str, ...] = ()
# What is computed in the plan's dtype. STFT, vocoder and encoders are float32 at every precision.
COMPUTED = ("t3", "flow")
COMPUTE = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
# Matrices that are multiplied with a few rows at a time, once a token: here a kernel pays.
DECODE_KINDS = {("t3", "linear"), ("t3", "head")}
HOST = "on the CPU"  # the placement of what a GPU need not hold
RUN_ON = ("9.0",)  # capabilities of the GPUs that this project has run on: docs/gpu.md
# Output rows that a kernel wants a multiple of; a matrix is padded to it.
ROW_MULTIPLES = {("mps", "int8pack"): 32}


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a checkpoint.

    Args:
        file: the file it stands in; empty for a table that is rebuilt and never stored.
        name: its published name.
        shape: its sizes.
        component: t3, flow, vocoder, tokenizer, speaker_encoder, voice_encoder.
        kind: linear, conditioning (T3's linear layers that run once a take), head, embedding, text (a table that is
            read once a text, and large), position, conv, lstm, norm, bias, other, counter, table, or gain, which is
            folded into its convolution.
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
        """What the package holds of it: float32, except BatchNorm's counters. A GPT-2's own table it drops."""
        return (
            0
            if self.kind == "table" or self.name == "tfmr.wte.weight"
            else self.numel * (8 if self.kind == "counter" else 4)
        )

    def bytes_as(self, storage: str, multiple: int = 1) -> int:
        """Bytes in memory when stored so; int8 adds a float32 scale a row. Rows are padded to a multiple."""
        padding = -self.rows % multiple * (self.numel // self.rows) if multiple > 1 else 0
        return (self.numel + padding) * BYTES[storage] + (4 * self.rows if storage == "int8" else 0)


@dataclass(frozen=True)
class DeviceFacts:
    """What a plan needs to know of a device.

    Args:
        name: as torch writes it: cpu, cuda:0, mps.
        machine: x86_64, aarch64, arm64.
        capability: the vector instructions torch uses on a CPU (AVX512, AVX2, DEFAULT), `8.0` on CUDA.
        vnni: the CPU multiplies int8 in one instruction.
        bf16, fp16: the CPU multiplies bfloat16, float16 in one instruction.
        unfused: why the fused step of T3 cannot run there; empty where it can.
        total_bytes, free_bytes: of its memory, where known.
    """

    name: str
    machine: str = ""
    capability: str = ""
    vnni: bool = False
    bf16: bool = False
    fp16: bool = False
    unfused: str = "it is for x86 CPUs and CUDA"
    total_bytes: int | None = None
    free_bytes: int | None = None

    @property
    def kind(self) -> str:
        return self.name.split(":")[0]

    @property
    def native_bf16(self) -> bool:
        """Computes bfloat16 itself. Older GPUs say they can, and emulate it at a third of fp32's speed."""
        if self.kind == "cuda":
            return tuple(map(int, self.capability.split("."))) >= (8, 0)
        return self.bf16

    @property
    def verified(self) -> bool:
        """Whether this project has run on this kind of hardware."""
        if self.kind == "cuda":
            return self.capability in RUN_ON
        return self.kind == "cpu" and self.machine.lower() in X86


@dataclass(frozen=True)
class Row:
    """One line of a plan.

    Args:
        storage: float32, float16, bfloat16, int8; `folded` and `unused` take nothing.
        compute: the dtype it is multiplied in.
        placement: resident; `on the CPU` for what a GPU need not hold; `on demand` for what only prepares a voice;
            `dropped`.
        kernel: what multiplies it at each token, where that is not torch's own.
        tensors, bytes: how many, and what they take while resident or, on demand, while read.
        shipped_bytes: what the package holds of the same tensors.
        layers, converted: how many layers hold them, and how many of those are in int8; counted after a load.
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
    layers: int = 0
    converted: int = 0

    @property
    def name(self) -> str:
        """As it is switched off by: `flow.linear`."""
        return f"{self.component}.{self.kind}"

    @property
    def resident_bytes(self) -> int:
        return self.bytes if self.placement == "resident" else 0


@dataclass(frozen=True)
class Plan:
    """What each group of tensors becomes, and why: `why` this precision, `because` this kernel.

    Args:
        compute: the dtype of T3's activations.
        flow_compute: of the flow's.
        off: rows that int8 leaves as they are.
    """

    precision: str
    device: str
    kernel: str
    rows: tuple[Row, ...]
    compute: str = "float32"
    flow_compute: str = "float32"
    off: tuple[str, ...] = ()
    why: str = ""
    because: str = ""

    @property
    def reason(self) -> str:
        return (
            f"{self.precision} on {self.device}"
            + (f": {self.why}" if self.why else "")
            + (f"; {self.because}" if self.because else "")
            + (f"; not in int8: {', '.join(self.off)}" if self.off else "")
        )

    def row(self, component: str, kind: str) -> Row:
        return next(row for row in self.rows if (row.component, row.kind) == (component, kind))

    @property
    def expected_bytes(self) -> int:
        """Bytes of the tensors that stay in memory."""
        return sum(row.resident_bytes for row in self.rows)

    @property
    def keeps_encoders(self) -> bool:
        """Whether what reads a clip stays in memory between voices."""
        return any(row.placement == "resident" for row in self.rows if row.component in ENCODERS)

    @property
    def shipped_bytes(self) -> int:
        """Bytes of everything the package loads, in float32."""
        return sum(row.shipped_bytes for row in self.rows)


def plan(
    tensors: Iterable[TensorInfo],
    precision: str,
    device: DeviceFacts,
    kernel: str = "auto",
    why: str = "",
    off: Sequence[str] = OFF_BY_DEFAULT,
    compute: str = "auto",
    keep_encoders: bool = False,
) -> Plan:
    """What each group of tensors becomes.

    Args:
        tensors: a checkpoint's inventory.
        precision: fp32, fp16, bf16 or int8.
        device: where it is to run.
        kernel: auto, fused, plain; for int8 also int8pack or dynamic.
        why: how the precision was chosen, for the reason.
        off: rows that int8 leaves as they are: `flow.linear`.
        compute: auto, float32, float16 or bfloat16: what int8 computes in; only int8 has a choice.
        keep_encoders: the encoders stay in memory between voices.

    Raises:
        PrecisionError: an unknown precision, kernel or row, or a kernel this device does not have.
    """
    if precision not in PRECISIONS:
        raise PrecisionError(
            f"'{precision}' is not a precision; choose {', '.join(PRECISIONS)}.{nearest(precision, PRECISIONS)}"
        )
    for name in off:
        if name not in (rows := int8_rows()):
            raise PrecisionError(f"int8 has no row '{name}'; it has {', '.join(rows)}.{nearest(name, rows)}")
    chosen, because = choose_kernel(precision, device, kernel)
    off = tuple(off) if precision == "int8" else ()
    computed, flow_computed = (choose_compute(component, precision, device, compute) for component in COMPUTED)

    groups: dict[tuple[str, str, bool], list[TensorInfo]] = {}
    for tensor in tensors:
        groups.setdefault((tensor.component, tensor.kind, tensor.used), []).append(tensor)
    draft = Plan(precision, device.name, chosen, (), computed, flow_computed, off, why, because)
    return replace(draft, rows=tuple(_row(key, members, draft, keep_encoders) for key, members in groups.items()))


def int8_rows() -> tuple[str, ...]:
    """The rows that int8 stores in int8, each of which may be switched off."""
    return tuple(
        f"{component}.{kind}"
        for component, kinds in STORAGE["int8"].items()
        for kind, storage in kinds.items()
        if storage == "int8"
    )


def _row(key: tuple[str, str, bool], tensors: list[TensorInfo], planned: Plan, keep_encoders: bool) -> Row:
    component, kind, used = key
    storage = storage_of(component, kind, planned) if used else "unused"
    held = storage not in ("folded", "unused")
    place = "on demand" if component in ENCODERS and not keep_encoders else "resident"
    if kind == "text" and planned.device.startswith("cuda"):
        place = HOST
    kernel = planned.kernel if (component, kind) in DECODE_KINDS else "plain"  # what is empty is torch's own
    multiple = ROW_MULTIPLES.get((planned.device.split(":")[0], kernel), 1)
    return Row(
        component=component,
        kind=kind,
        storage=storage,
        compute=compute_of(component, planned) if held else "",
        placement=place if held else "dropped",
        kernel=kernel if storage == "int8" or kernel == "fused" else "",
        tensors=len(tensors),
        bytes=sum(tensor.bytes_as(storage, multiple if storage == "int8" else 1) for tensor in tensors) if held else 0,
        shipped_bytes=sum(tensor.shipped_bytes for tensor in tensors),
    )


def compute_of(component: str, planned: Plan) -> str:
    """The dtype a component computes in."""
    return {"t3": planned.compute, "flow": planned.flow_compute}.get(component, "float32")


def storage_of(component: str, kind: str, planned: Plan) -> str:
    """How tensors of this component and kind are stored."""
    if kind == "gain":
        return "folded"
    if kind == "counter":
        return "int64"
    if kind == "table":
        return "float32"
    computed = compute_of(component, planned)
    if f"{component}.{kind}" in planned.off:
        return computed
    return STORAGE[planned.precision].get(component, {}).get(kind, computed)


def emulation(planned: Plan, device: DeviceFacts) -> str:
    """What a plan's user should know of a half precision that the CPU does not multiply; empty where it does."""
    native = {"float16": device.fp16, "bfloat16": device.bf16}
    if device.kind != "cpu" or device.machine.lower() not in X86 or native.get(planned.flow_compute, True):
        return ""
    better = "bf16, which takes as much memory" if device.bf16 else "int8"
    return (
        f"This CPU does not multiply {planned.flow_compute}: torch emulates it, and the flow takes longer than at fp32 "
        f"(five times as long at fp16, measured with AVX512). Try --precision {better}."
    )


def choose_compute(component: str, precision: str, device: DeviceFacts, asked: str = "auto") -> str:
    """The dtype of T3's or the flow's activations.

    int8 computes in the device's half. On a CPU T3 computes in float32, which with a few rows is as fast; the flow,
    which multiplies a thousand, in bfloat16 where the CPU has it.
    """
    if precision != "int8":
        if asked not in ("auto", COMPUTE[precision]):
            raise PrecisionError(f"{precision} computes in {COMPUTE[precision]}, not {asked}. Only int8 has a choice.")
        return COMPUTE[precision]
    if asked not in ("auto", *COMPUTE.values()):
        raise PrecisionError(f"'{asked}' is no dtype to compute in; choose auto, {', '.join(COMPUTE.values())}.")
    if asked != "auto":
        return asked
    if device.kind == "cpu" and (component == "t3" or not device.native_bf16):
        return "float32"
    return "bfloat16" if device.native_bf16 else "float16"


def candidates(device: DeviceFacts) -> tuple[tuple[str, str], ...]:
    """What `auto` tries on a kind of device, the fastest first, and why. Each has passed the quality gate."""
    small = ("int8", "the smallest")
    if device.kind == "cpu":
        return (("int8", "on a CPU int8 is the smallest, and faster than fp32"),)
    if device.native_bf16:
        return (("bf16", f"this GPU computes bf16 natively (capability {device.capability})"), small)
    if device.kind == "cuda":
        return (("fp16", f"this GPU only emulates bf16 (capability {device.capability}, native from 8.0)"), small)
    return (("fp16", f"on {device.kind} fp16 is the fastest, by its reputation: untested until someone runs it"), small)


# Over its weights a model needs memory to work in, about this part of them.
_WORKING_PART = 0.25


def choose_precision(tensors: Sequence[TensorInfo], device: DeviceFacts) -> tuple[str, str]:
    """What `auto` means for a model on a device: the fastest precision that fits its free memory. And why."""
    *larger, smallest = candidates(device)
    passed_over = ""
    for precision, reason in larger:
        needed = (1 + _WORKING_PART) * plan(tensors, precision, device).expected_bytes
        if device.free_bytes is None or needed <= device.free_bytes:
            return precision, passed_over + reason
        passed_over += f"{precision} would need {needed / 1e9:.2f} GB and {device.free_bytes / 1e9:.2f} GB is free; "
    return smallest[0], passed_over + smallest[1]

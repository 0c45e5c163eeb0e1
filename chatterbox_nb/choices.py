"""What could be loaded: each precision of a model on a device with the bytes it would take, before a load.

The bytes are the plan's, which a load meets to the byte. Looking needs torch and the package, for devices and shapes;
it reads no weights, downloads nothing and creates no CUDA context.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from chatterbox_nb.checkpoint import catalog
from chatterbox_nb.checkpoint.spec import FileSpec, ModelSpec
from chatterbox_nb.precision.plan import PRECISIONS, DeviceFacts, Plan, TensorInfo, choose_precision, plan
from chatterbox_nb.shown import Shown


@dataclass(frozen=True)
class Choice:
    """A precision that a model could be loaded at.

    Args:
        bytes: of the tensors that would stay in memory.
        of_shipped: the same as a part of what the package loads, in float32.
        lacking: bytes that are not free for it; 0 when it fits, or when nobody knows what is free.
    """

    precision: str
    bytes: int
    of_shipped: float
    lacking: int


@dataclass(frozen=True)
class Outlook:
    """What a model would be on a device.

    Args:
        devices: those this machine has, the fastest first.
        auto: what `auto` would choose now, and `why`.
        free_bytes: on the device, with what the loaded model has there; None where the device does not tell.
        verified: whether the project has run on this kind of hardware.
    """

    model: str
    title: str
    device: str
    devices: tuple[str, ...]
    choices: tuple[Choice, ...]
    shipped_bytes: int
    auto: str
    why: str
    free_bytes: int | None
    verified: bool


@dataclass(frozen=True)
class ModelRow:
    """A model of the catalog.

    Args:
        languages: ISO 639-1 codes.
        parameters: of all that is published for it.
        shipped_bytes: what the package loads of it, in float32.
        bytes: of the tensors that would stay in memory, by precision.
        repo: on the hub; None of what is embedded.
    """

    name: str
    title: str
    languages: tuple[str, ...]
    parameters: int
    shipped_bytes: int
    bytes: Mapping[str, int]
    repo: str | None
    licence: str


@dataclass(frozen=True, repr=False)
class ModelTable(Shown):
    """The models that can be loaded, and what each would take on a device. Rows by iteration, or by name."""

    device: str
    rows: tuple[ModelRow, ...]

    def __iter__(self) -> Iterator[ModelRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, name: str) -> ModelRow:
        return next(row for row in self.rows if row.name == catalog.spec(name).name)


def models(device: str = "auto") -> ModelTable:
    """The models that can be loaded: languages, parameters, and the bytes each would take by precision.

    Nothing is loaded or downloaded; the bytes are those of the plan, which a load meets to the byte.

    Args:
        device: auto, cpu, cuda, cuda:1 or mps.

    Raises:
        SettingError: no such device.
    """
    from chatterbox_nb.precision import device as devices

    facts = devices.facts(devices.resolve(device))
    return ModelTable(facts.name, tuple(_row(catalog.spec(name), facts) for name in catalog.names()))


def _row(spec: ModelSpec, facts: DeviceFacts) -> ModelRow:
    looked = _look(spec)
    plans = looked.plans(facts)
    return ModelRow(
        name=spec.name,
        title=spec.title,
        languages=spec.languages,
        parameters=sum(tensor.numel for tensor in looked.tensors if tensor.kind not in ("table", "counter")),
        shipped_bytes=plans[0].shipped_bytes,
        bytes={planned.precision: planned.expected_bytes for planned in plans},
        repo=spec.repo,
        licence=spec.licence,
    )


def outlook(model: str, source: str | Path | None, facts: DeviceFacts) -> Outlook:
    """What a model would be at each precision on a device.

    Args:
        model, source: as of `chatterbox_nb.load`; a source that is no folder here is taken to be what its model is.
        facts: of the device; its free memory is what the model may take.

    Raises:
        CheckpointError: no such model.
    """
    from chatterbox_nb.precision import device as devices

    spec = _spec(model, source)
    looked = _look(spec)
    auto, why = choose_precision(looked.tensors, facts)
    plans = looked.plans(facts)
    room = facts.total_bytes if facts.free_bytes is None else facts.free_bytes
    return Outlook(
        model=spec.name,
        title=spec.title,
        device=facts.name,
        devices=tuple(devices.available()),
        choices=tuple(
            Choice(
                planned.precision,
                planned.expected_bytes,
                planned.expected_bytes / planned.shipped_bytes,
                0 if room is None else max(0, planned.expected_bytes - room),
            )
            for planned in plans
        ),
        shipped_bytes=plans[0].shipped_bytes,
        auto=auto,
        why=why,
        free_bytes=facts.free_bytes,
        verified=facts.verified,
    )


def _spec(model: str, source: str | Path | None) -> ModelSpec:
    folder = Path(source).expanduser() if source else None
    if folder is not None and catalog.carries_spec(folder):
        return catalog.read_spec(folder)
    return catalog.spec(model)


def known(model: str, source: str | Path | None) -> bool:
    """Whether a model was looked at before, so that looking again takes no time."""
    return _found(_spec(model, source)) is not None


class _Looked:
    """The inventory of a model, which takes half a second to make, and its plans."""

    def __init__(self, spec: ModelSpec) -> None:
        from chatterbox_nb.checkpoint import reference
        from chatterbox_nb.checkpoint.inventory import inventory

        self.sizes = _sizes(spec)
        self.tensors: tuple[TensorInfo, ...] = inventory(self.sizes, reference.build(self.sizes))
        self._plans: dict[str, tuple[Plan, ...]] = {}

    def plans(self, facts: DeviceFacts) -> tuple[Plan, ...]:
        """The plan of each precision on a device. How much of it is free changes none."""
        if facts.name not in self._plans:
            self._plans[facts.name] = tuple(plan(self.tensors, precision, facts) for precision in PRECISIONS)
        return self._plans[facts.name]


_looked: list[_Looked] = []


def _found(spec: ModelSpec) -> _Looked | None:
    sizes = _sizes(spec)
    return next((looked for looked in _looked if looked.sizes == sizes), None)


def _sizes(spec: ModelSpec) -> ModelSpec:
    """What an inventory depends on; models that differ in their weights alone have one."""
    files = tuple(FileSpec(role, role) for role in ("t3", "s3gen", "voice_encoder"))
    return ModelSpec(
        "", "", files, t3=spec.t3, s3gen=spec.s3gen, voice_encoder_width=spec.voice_encoder_width,
        sample_rate=spec.sample_rate, unused=spec.unused, on_host=spec.on_host,
    )  # fmt: skip


def _look(spec: ModelSpec) -> _Looked:
    looked = _found(spec)
    if looked is None:
        _looked.append(looked := _Looked(spec))
    return looked

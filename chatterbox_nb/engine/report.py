"""What a load did: the plan with the measured bytes of each row, and the three ratios with their denominators."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from torch import nn

from chatterbox_nb.checkpoint.loader import Fill
from chatterbox_nb.precision import layers
from chatterbox_nb.precision.plan import HOST, Plan, Row, TensorInfo
from chatterbox_nb.shown import Shown


@dataclass(frozen=True, repr=False)
class LoadReport(Shown):
    """What a load did, measured. Bytes are bytes; a GB is 10⁹ of them.

    Args:
        rows: the plan's rows; those that are resident carry the bytes of the tensors found in memory.
        bytes: of the tensors that stay in memory.
        shipped_bytes: what the package loads for the same model, in float32.
        own_fp32_bytes, own_fp16_bytes: what this package keeps in memory at those precisions, in the same placement.
        process_growth_bytes: of this process over the load, its imports not counted.
        process_peak_bytes: highest such growth while loading.
        watermarker_bytes: Perth's, not in `bytes`; the package holds it too, with its decoder.
        weights: SHA-256 of the checkpoint's tensors that stay in memory.
        cache: what the quantized form on disk did: "read", "written", "not written", "not needed", "off".
        seconds: by phase.
        shared: the components that were in memory already, and are used as they are.
    """

    model: str
    title: str
    source: str
    plan: Plan
    rows: tuple[Row, ...]
    shipped_bytes: int
    own_fp32_bytes: int
    own_fp16_bytes: int
    process_growth_bytes: int
    process_peak_bytes: int
    watermarker_bytes: int
    weights: str
    cache: str
    seconds: Mapping[str, float]
    shared: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @cached_property
    def bytes(self) -> int:
        return sum(row.resident_bytes for row in self.rows)

    @property
    def shared_bytes(self) -> int:
        """Of the tensors that were in memory already."""
        return sum(size for component, size in self.bytes_by_component.items() if component in self.shared)

    @property
    def added_bytes(self) -> int:
        """Of the tensors that this load made."""
        return self.bytes - self.shared_bytes

    @cached_property
    def bytes_by_component(self) -> dict[str, int]:
        """Resident bytes of each component; what is on demand counts nothing."""
        found: dict[str, int] = {}
        for row in self.rows:
            found[row.component] = found.get(row.component, 0) + row.resident_bytes
        return found

    @property
    def by_kind(self) -> dict[str, tuple[int, int, int, int]]:
        """Layers and bytes in memory of each kind: layers in int8, their bytes, other layers, their bytes."""
        found: dict[str, tuple[int, int, int, int]] = {}
        for row in self.rows:
            if row.placement == "resident":
                layers, size, others, rest = found.get(row.kind, (0, 0, 0, 0))
                if row.converted:
                    layers, size = layers + row.converted, size + row.bytes
                else:
                    others, rest = others + row.layers, rest + row.bytes
                found[row.kind] = layers, size, others, rest
        return found

    @property
    def ratios(self) -> dict[str, float]:
        """The bytes in memory as a part of each denominator."""
        return {
            "of what the package loads in fp32": self.bytes / self.shipped_bytes,
            "of our own fp32": self.bytes / self.own_fp32_bytes,
            "of our own fp16": self.bytes / self.own_fp16_bytes,
        }


def measure(
    planned: Plan,
    tensors: Iterable[TensorInfo],
    modules: Mapping[str, nn.Module],
    fills: Mapping[str, Iterable[Fill]],
) -> tuple[Row, ...]:
    """The plan's rows with the bytes of the tensors that are there, walked one by one."""
    kinds = {(tensor.component, tensor.name): tensor.kind for tensor in tensors}
    sizes: dict[tuple[str, str], int] = {}
    holders: dict[tuple[str, str], dict[str, bool]] = {}  # the layers of each row, and whether they are in int8
    for component, module in modules.items():
        kind_of = {fill.target: kinds[component, fill.sources[-1]] for fill in fills[component]}
        for name, tensor in layers.tensors_of(module).items():
            target = name.removesuffix("_int8").removesuffix("_scale")
            # What the file lacks and was computed is known by its published name; what never is in one is a table.
            kind = kind_of.get(target) or kinds.get((component, f"{component}.{target}"), "table")
            sizes[component, kind] = sizes.get((component, kind), 0) + tensor.numel() * tensor.element_size()
            held = holders.setdefault((component, kind), {})
            layer = target.rpartition(".")[0]
            held[layer] = held.get(layer, False) or name.endswith("_int8")

    def measured(row: Row) -> Row:
        key = row.component, row.kind
        held = holders.get(key, {})
        return replace(row, bytes=sizes.get(key, 0), layers=len(held), converted=sum(held.values()))

    return tuple(measured(row) if row.placement in ("resident", HOST) else row for row in planned.rows)

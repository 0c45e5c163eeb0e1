"""Components in memory, by what they are: what models share is loaded once.

The store keeps nothing alive: a component lives as long as a model or a load holds it. It knows nothing of how
components come in (`weights.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from chatterbox_nb.checkpoint import content
from chatterbox_nb.checkpoint.spec import ModelSpec
from chatterbox_nb.precision.plan import Plan, compute_of

if TYPE_CHECKING:
    from torch import nn

    from chatterbox_nb.checkpoint.content import Contents


@dataclass(frozen=True)
class Kind:
    """All that decides a component's tensors and what it does, but for the numbers in the checkpoint.

    Args:
        component: t3, flow, vocoder.
        dims: its sizes (`content.dims`).
        compute: the dtype it computes in.
        rows: of the plan: kind, storage, compute, placement, kernel.
        device: where its tensors are.
        kernel: T3's; of the flow "tiled" where its attention is.
    """

    component: str
    dims: tuple[Any, ...]
    compute: str
    rows: tuple[tuple[str, ...], ...]
    device: str
    kernel: str


def kind(component: str, spec: ModelSpec, planned: Plan, tiled: bool) -> Kind:
    """What a component is by a plan."""
    return Kind(
        component=component,
        dims=content.dims(component, spec),
        compute=compute_of(component, planned),
        rows=tuple(
            (row.kind, row.storage, row.compute, row.placement, row.kernel)
            for row in planned.rows
            if row.component == component
        ),
        device=planned.device,
        kernel=planned.kernel if component == "t3" else "tiled" if component == "flow" and tiled else "",
    )


class Store:
    """The components that are in memory, and what files are known to hold.

    `notes` remembers that by the state of a file (`content.state`), for as long as the process lives.
    """

    def __init__(self) -> None:
        self._components: WeakValueDictionary[tuple[Kind, str], nn.Module] = WeakValueDictionary()
        self.notes: dict[str, Contents] = {}

    def get(self, kind: Kind, digest: str) -> nn.Module | None:
        """The component of this kind and content, if one is in memory."""
        return self._components.get((kind, digest))

    def put(self, kind: Kind, digest: str, module: nn.Module) -> None:
        """Lets others share a component, which is not changed from here on."""
        self._components[kind, digest] = module

    def has(self, kind: Kind) -> bool:
        """Whether there is one of this kind, of whatever content."""
        return any(held == kind for held, _ in list(self._components))

"""How much work a take is: what each effort is by default, as data. Another knob is another column.

docs/effort.md has what each costs and saves; `make effort` measures it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chatterbox_nb.checkpoint.spec import ModelSpec

# What an effort says where the call and the settings say nothing. What is not in a row stays the model's own.
EFFORTS: Mapping[str, Mapping[str, float]] = {
    "best": {},
    "balanced": {"cfm_steps": 6, "voice_seconds": 5.0},
    "fast": {"cfm_steps": 4, "voice_seconds": 3.0},
}


def defaults(effort: str, spec: ModelSpec) -> dict[str, Any]:
    """Defaults of the options of a take, over the model's own ones.

    Args:
        effort: a row of EFFORTS.
        spec: whose own steps are the most that an effort asks for.
    """
    own = {**spec.defaults, "cfm_steps": spec.s3gen.cfm_steps}
    found: dict[str, Any] = {**own, **EFFORTS[effort]}
    found["cfm_steps"] = min(found["cfm_steps"], own["cfm_steps"])
    return found


def of(cfm_steps: int | None, voice_seconds: float | None, spec: ModelSpec) -> str | None:
    """The effort whose defaults these are; None when they are no effort's."""
    steps = spec.s3gen.cfm_steps if cfm_steps is None else cfm_steps
    for effort in EFFORTS:
        found = defaults(effort, spec)
        if (found["cfm_steps"], found.get("voice_seconds")) == (steps, voice_seconds):
            return effort
    return None

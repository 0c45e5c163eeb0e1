"""Numbers for people: bytes, seconds, parts."""

from __future__ import annotations

import math

_UNITS = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def size(count: float | None) -> str:
    """Bytes with three figures; a GB is 10⁹ of them."""
    if count is None:
        return "unknown"
    if abs(count) < 999.5:
        return f"{count:.0f} B"
    unit, worth = next((unit, worth) for unit, worth in _UNITS if abs(count) >= 0.9995 * worth)
    value = count / worth
    return f"{value:.{2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0}f} {unit}"


def seconds(count: float) -> str:
    """`0.42 s`, `7.3 s`, `2:05 min`."""
    if count < 0.995:
        return f"{count:.2f} s"
    return f"{count:.1f} s" if count < 59.95 else whole_seconds(count)


def whole_seconds(count: float) -> str:
    """`8 s`, `2:05 min`: rounded up, for what is guessed."""
    whole = math.ceil(count)
    return f"{whole} s" if whole < 60 else f"{whole // 60}:{whole % 60:02d} min"


def part(ratio: float) -> str:
    """`20.9 %`."""
    return f"{100 * ratio:.1f} %"


def unverified(device: str) -> str:
    """What is said of a device that this project has never run on."""
    return f"This project has not run on this kind of {device.split(':')[0]} yet: unverified on hardware."

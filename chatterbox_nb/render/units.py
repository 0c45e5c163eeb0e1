"""Numbers for people: bytes, seconds, parts."""

from __future__ import annotations


def size(count: float | None) -> str:
    """Bytes with three figures; a GB is 10⁹ of them."""
    if count is None:
        return "unknown"
    for unit, worth in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(count) >= worth:
            value = count / worth
            return (
                f"{value:.2f} {unit}"
                if abs(value) < 10
                else f"{value:.1f} {unit}"
                if abs(value) < 100
                else f"{value:.0f} {unit}"
            )
    return f"{count:.0f} B"


def seconds(count: float) -> str:
    """`0.42 s`, `7.3 s`, `2:05 min`."""
    if count < 1:
        return f"{count:.2f} s"
    if count < 60:
        return f"{count:.1f} s"
    return f"{int(count) // 60}:{int(count) % 60:02d} min"


def part(ratio: float) -> str:
    """`20.9 %`."""
    return f"{100 * ratio:.1f} %"

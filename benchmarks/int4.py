"""int4 beside int8, an experiment on the demo voice: what the quality gate says, and what a real model would weigh.

`make int4` writes `results/int4.json` and docs/int4.md. No kernel multiplies int4 and no precision is called so:
weights are rounded, and put back as numbers.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from concurrent.futures import Future
from importlib.metadata import version
from typing import Any

from benchmarks import int4_table, int4_weights, pages, pool, quality, quality_gate, quality_sound, quality_worker
from benchmarks.int4_weights import INT8, Choice, Piece, Rounding, pieces
from benchmarks.quality_worker import FP32
from chatterbox_nb.checkpoint import catalog, reference
from chatterbox_nb.checkpoint.inventory import inventory
from chatterbox_nb.precision import device
from chatterbox_nb.precision.plan import Plan, TensorInfo, plan

GROUPS = (32, 64, 128)
ROUNDINGS = [Rounding(group, clipped) for clipped in (False, True) for group in (*GROUPS, 0)]
MODEL = "english"  # whose weight is reckoned


def measure(seeds: Sequence[int]) -> dict[str, Any]:
    """Costs of all roundings, what may be taken of each, and all rulers for the best of them."""
    started = time.perf_counter()
    all_pieces = pieces(catalog.spec("demo").t3)
    everything = tuple(piece.name for piece in all_pieces)
    whole = {one: Choice(f"all of T3, {one.name}", one, everything) for one in ROUNDINGS}
    with pool.processes() as workers:
        fp32, int8 = (workers.submit(quality_worker.cross_entropy, one).result() for one in (FP32, INT8))
        costs = {one: workers.submit(int4_weights.cross_entropy, whole[one]) for one in ROUNDINGS}
        choosing = {
            one: workers.submit(int4_weights.chosen, one, fp32, int8, quality_gate.LARGEST_COST)
            for one in ROUNDINGS
            if one.group and one.clipped
        }
        roundings = {one: _cost(future.result(), fp32) for one, future in costs.items()}
        chosen = {one: future.result() for one, future in choosing.items()}
        best = min(roundings, key=lambda one: roundings[one]["cost"])
        mixed = min(chosen, key=lambda one: _bytes(all_pieces, one, chosen[one]["taken"]))
        some = tuple(chosen[mixed]["taken"])
        heard = [
            whole[best],
            Choice(f"some of T3, {mixed.name}", mixed, some),
            Choice(f"some of T3 and the flow, {mixed.name}", mixed, some, flow=True),
        ]
        configurations = _all_rulers(workers, heard, seeds)
    return {
        **pages.here("make int4"),
        "pocketsphinx": version("pocketsphinx"),
        "voice": quality_worker.voice(),
        "seconds": round(time.perf_counter() - started),
        **quality.counted(),
        "roundings": {
            one.name: {**of, **_taken(all_pieces, one, everything)} for one, of in roundings.items()
        },
        "layers_int8_bytes": sum(one.int8_bytes for one in all_pieces),
        "chosen": {
            one.name: {"alone": of["alone"], "names": of["taken"], **_taken(all_pieces, one, of["taken"])}
            for one, of in chosen.items()
        },
        "configurations": configurations,
        "model": weighed({one.name: _taken(all_pieces, one, of["taken"])["part"] for one, of in chosen.items()}),
    }  # fmt: skip


def _cost(losses: list[float], fp32: list[float]) -> dict[str, Any]:
    return quality.fine_figures({"cross_entropy": losses}, {"cross_entropy": fp32})


def _bytes(all_pieces: Sequence[Piece], rounding: Rounding, taken: Sequence[str]) -> int:
    """Of T3's layers, with those taken in int4 and the rest in int8."""
    return sum(
        rounding.bytes(one.rows, one.columns) if one.name in taken else one.int8_bytes for one in all_pieces
    )  # fmt: skip


def _taken(all_pieces: Sequence[Piece], rounding: Rounding, taken: Sequence[str]) -> dict[str, Any]:
    """How much of T3's layers is int4: the part of their weights, bytes of all, and those that stay int8."""
    weights = {one.name: one.rows * one.columns for one in all_pieces}
    return {
        "part": round(sum(weights[name] for name in taken) / sum(weights.values()), 4),
        "bytes": _bytes(all_pieces, rounding, taken),
        "at_int8": sum(one.int8_bytes for one in all_pieces if one.name not in taken),
    }


def _all_rulers(workers: Any, choices: Sequence[Choice], seeds: Sequence[int]) -> dict[str, Any]:
    """What the quality gate judges by, of fp32, of int8 and of each choice."""

    def fine(choice: Choice) -> dict[str, Future[Any]]:
        rulers = (int4_weights.cross_entropy, int4_weights.moved, int4_weights.likeness)
        return {ruler.__name__: workers.submit(ruler, choice) for ruler in rulers}

    plain = {
        one: {
            "cross_entropy": workers.submit(quality_worker.cross_entropy, one),
            "likeness": workers.submit(quality_sound.likeness, one),
        }
        for one in (FP32, INT8)
    }
    plain[INT8]["moved"] = workers.submit(quality_sound.moved, INT8)
    rulers = {one.name: futures for one, futures in plain.items()} | {one.name: fine(one) for one in choices}
    takes = {one.name: [workers.submit(quality_worker.takes, one, seed) for seed in seeds] for one in (FP32, INT8)}
    takes |= {one.name: [workers.submit(int4_weights.takes, one, seed) for seed in seeds] for one in choices}
    found = {name: {ruler: one.result() for ruler, one in futures.items()} for name, futures in rulers.items()}
    edits = {name: [one.result() for one in futures] for name, futures in takes.items()}
    edits |= {one.name: [run for _, run in edits[one.name]] for one in (FP32, INT8)}
    return {
        name: {"gated": "int4"}
        | quality.word_figures(edits[name], edits[FP32.name])
        | quality.fine_figures(found[name], found[FP32.name])
        for name in found
    }


# What the real model would weigh


def weighed(parts: dict[str, float]) -> dict[str, Any]:
    """Bytes of T3 and of all that stays in memory of a real model: at int8, in int4 whole, and with parts of T3.

    Args:
        parts: of T3's layers, by the name of their rounding.
    """
    spec = catalog.spec(MODEL)
    tensors = inventory(spec, reference.build(spec))
    int8 = plan(tensors, "int8", device.facts("cpu"))
    found = {"int8": _weight(int8, tensors)}
    for one in ROUNDINGS:
        if not one.clipped:
            found[f"all of T3, {one.name}"] = _weight(int8, tensors, one)
    by_name = {one.name: one for one in ROUNDINGS}
    for name, part in parts.items():
        found[f"as much of T3, {name}"] = _weight(int8, tensors, by_name[name], part) | {"part": part}
        found[f"as much of T3, and the flow, {name}"] = _weight(int8, tensors, by_name[name], part, ("flow",))
    return {"name": MODEL, "title": spec.title, "shipped": int8.shipped_bytes, "choices": found}


def _weight(
    int8: Plan, tensors: Sequence[TensorInfo], rounding: Rounding | None = None, part: float = 1.0,
    others: tuple[str, ...] = (),
) -> dict[str, int]:  # fmt: skip
    """Bytes: of T3 and of everything, its linear layers in int4 in part, those of other components whole."""
    saved = {"t3": 0.0, **dict.fromkeys(others, 0.0)}
    if rounding is not None:
        for one in tensors:
            if one.component in saved and one.kind == "linear" and one.used:
                less = one.bytes_as("int8") - rounding.bytes(one.rows, one.numel // one.rows)
                saved[one.component] += less * (part if one.component == "t3" else 1.0)
    t3 = sum(row.resident_bytes for row in int8.rows if row.component == "t3")
    return {"t3": round(t3 - saved["t3"]), "all": round(int8.expected_bytes - sum(saved.values()))}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument(
        "--seeds", type=int, default=len(quality_gate.SEEDS), help="how many speak: fewer is quicker"
    )
    asked = arguments.parse_args()
    results = measure(quality_gate.SEEDS[: asked.seeds])
    pages.keep(int4_table.RESULTS, results)
    int4_table.rewrite()
    for name in results["configurations"]:
        print(*quality_gate.excesses(results, name) or [f"{name} passes"], sep="\n")


if __name__ == "__main__":
    main()

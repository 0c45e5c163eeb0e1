"""AVX512-BF16 for numba: attention's products, 16 dot products of two bfloat16 each in one instruction.

For a processor that has no tiles (AMX): the same products of the same blocks as in `tiles.py`. As in `vector.py`, each
is an intrinsic that works on addresses. Sums are float32, eight queries by 32 of them in registers.
"""

from __future__ import annotations

import platform
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from chatterbox_nb.precision.kernels.emit import (
    FLOAT,
    I32,
    I64,
    LANES,
    Value,
    call,
    compiled,
    everywhere,
    load_vector,
    loop,
    vector_type,
)

QUERIES, KEYS, WIDTH = 32, 32, 64  # queries in one go; keys, or values, of a block; of a head
_ROWS, _COLUMNS = 8, 2  # queries, and vectors of each, whose sums are in registers: half of the 32 that there are
_BYTES = 4 * LANES  # of a vector: float32, or pairs of bfloat16
_BLOCK = 2 * KEYS * WIDTH  # bytes
_SUMS = vector_type(FLOAT, LANES)


@cache
def available() -> bool:
    """Whether the processor has AVX512-BF16. It is tried with whole numbers, of which no digit may be lost."""
    if not _listed():
        return False
    query, keys = (np.arange(KEYS * WIDTH).reshape(KEYS, WIDTH) % by - by // 2 for by in (7, 11))
    stored = [(numbers.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16) for numbers in (query, keys)]
    packed = stored[1].view(np.uint32).reshape(_COLUMNS, LANES, WIDTH // 2).transpose(0, 2, 1).copy()
    found = np.empty((QUERIES, KEYS), np.float32)
    _try(stored[0], packed, found)
    return bool((found == query @ keys.T).all())


@cache
def _listed() -> bool:
    """Whether the processor says that it has it, and what `tiles.softmax` needs."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    from llvmlite import binding

    features = binding.get_host_cpu_features()
    return all(features.get(name) for name in ("avx512bf16", "avx512bw"))


@compiled()
def _try(query: Any, keys: Any, found: Any) -> None:
    scores(query.ctypes.data, query.strides[0], keys.ctypes.data, 1, found.ctypes.data, found.strides[0])


@intrinsic
def scores(typing: Any, query: Any, query_row: Any, keys: Any, blocks: Any, out: Any, out_row: Any) -> Any:
    """Products of 32 queries of 64 with 32 x `blocks` keys, `out[q, k]`: as `tiles.scores`, with the same arguments."""

    def generate(context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        query, query_row, keys, blocks, out, out_row = arguments
        if not _listed():
            return context.get_dummy_value()

        def block(index: Value, _: list[Value]) -> list[Value]:
            place, into = b.add(keys, b.mul(index, I64(_BLOCK))), b.add(out, b.mul(index, I64(4 * KEYS)))
            columns = [b.add(place, I64(_BLOCK // _COLUMNS * column)) for column in range(_COLUMNS)]

            def group(first: Value, _: list[Value]) -> list[Value]:
                rows, outs = _rows(b, query, query_row, first), _vectors(b, _rows(b, into, out_row, first))
                zeros = [ir.Constant(_SUMS, [0.0] * LANES)] * len(outs)
                _store(b, outs, _add(b, zeros, WIDTH // 2, rows, columns))
                return []

            return loop(b, I64(QUERIES), _ROWS, [], group)

        loop(b, blocks, 1, [], block)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), generate


@intrinsic
def mixed(typing: Any, weights: Any, weights_row: Any, values: Any, blocks: Any, out: Any) -> Any:
    """Products of 32 rows of 32 x `blocks` weights with as many values of 64: as `tiles.mixed`, with its arguments."""

    def generate(context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        weights, weights_row, values, blocks, out = arguments
        if not _listed():
            return context.get_dummy_value()
        column = _BLOCK * LANES // WIDTH  # bytes of 16 dimensions of a block

        def group(first: Value, _: list[Value]) -> list[Value]:
            rows = _rows(b, weights, weights_row, first)
            for begin in range(0, WIDTH // LANES, _COLUMNS):

                def block(index: Value, sums: list[Value], begin: int = begin) -> list[Value]:
                    place = b.add(values, b.mul(index, I64(_BLOCK)))
                    columns = [b.add(place, I64(column * (begin + more))) for more in range(_COLUMNS)]
                    here = [b.add(row, b.mul(index, I64(2 * KEYS))) for row in rows]
                    return _add(b, sums, KEYS // 2, here, columns)

                outs = _vectors(b, _rows(b, b.add(out, I64(_BYTES * begin)), I64(4 * WIDTH), first))
                zeros = [ir.Constant(_SUMS, [0.0] * LANES)] * len(outs)
                _store(b, outs, loop(b, blocks, 1, zeros, block))
            return []

        loop(b, I64(QUERIES), _ROWS, [], group)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), generate


def _add(b: Any, sums: list[Value], pairs: int, rows: list[Value], columns: list[Value]) -> list[Value]:
    """Products of rows of pairs with columns of as many vectors of pairs, added to sums row by row."""
    numbers = vector_type(I32, LANES)

    def one(index: Value, sums: list[Value]) -> list[Value]:
        right = [load_vector(b, b.add(column, b.mul(index, I64(_BYTES))), I32, LANES) for column in columns]
        made: list[Value] = []
        for row in rows:
            pair = b.load(b.inttoptr(b.add(row, b.mul(index, I64(4))), I32.as_pointer()), align=2)
            left = everywhere(b, pair, numbers)
            for vector in right:
                # Newer LLVM calls the operands bfloat16, which llvmlite cannot write; it takes what older LLVM takes.
                made.append(call(b, "llvm.x86.avx512bf16.dpbf16ps.512", _SUMS, [sums[len(made)], left, vector]))
        return made

    return loop(b, I64(pairs), 1, sums, one)


def _rows(b: Any, start: Value, row: Value, first: Value) -> list[Value]:
    """Addresses of eight rows, from the `first` on."""
    return [b.add(start, b.mul(row, b.add(first, I64(number)))) for number in range(_ROWS)]


def _vectors(b: Any, rows: list[Value]) -> list[Value]:
    return [b.add(row, I64(_BYTES * column)) for row in rows for column in range(_COLUMNS)]


def _store(b: Any, places: list[Value], sums: list[Value]) -> None:
    for place, vector in zip(places, sums, strict=True):
        b.store(vector, b.inttoptr(place, vector.type.as_pointer()), align=4)

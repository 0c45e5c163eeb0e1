"""AMX for numba: tiles of 16 rows of 64 bytes, multiplied in int8 or bfloat16; attention's softmax of 16 at a time.

As in `vector.py`, each is an intrinsic that works on addresses. A thread works between `begin` and `end`: oneDNN has a
configuration of its own, which `end` puts back.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from chatterbox_nb.precision.kernels.emit import (
    FLOAT,
    I8,
    I16,
    I32,
    I64,
    Value,
    call,
    everywhere,
    largest_of,
    load_vector,
    loop,
    prefetch,
    shuffled,
    sums_of,
)

SIDE = 16  # rows of a tile, and 32-bit numbers in a row
ROWS = 8  # of activations whose products fit a tile: each number is two bytes, high and low
BLOCK = 32  # rows of weights in one go
BYTES = 64  # of a row of a tile
SETUP = 64  # bytes that say how tiles are set up

_LANES = ir.VectorType(FLOAT, SIDE)
_WHOLE = ir.VectorType(I32, SIDE)
TILE = SIDE * BYTES
# 2 ** f for f from 0 to 1, to 1e-4: what comes after is bfloat16.
_POWER = (0.99990029, 0.69632477, 0.22469316, 0.07896726)


@cache
def available(numbers: str) -> bool:
    """Whether this process may use AMX: the processor has it, and Linux allows it.

    Args:
        numbers: that are multiplied: "int8" or "bf16".
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    from llvmlite import binding

    features = binding.get_host_cpu_features()
    if not all(features.get(name) for name in ("amx-tile", f"amx-{numbers}", "avx512bw")):
        return False
    arch_prctl, request, tile_data = 158, 0x1023, 18  # ARCH_REQ_XCOMP_PERM
    return ctypes.CDLL(None).syscall(arch_prctl, request, tile_data) == 0


def setup() -> Any:
    """Eight whole tiles, as `begin` takes them: uint8 `[64]`."""
    config = np.zeros(SETUP, np.uint8)
    config[0] = 1  # palette
    config[16:32] = [BYTES, 0] * 8
    config[48:56] = SIDE
    return config


def _pointer(b: Any, address: Value) -> Value:
    return b.inttoptr(address, I8.as_pointer())


def _do(b: Any, name: str, arguments: list[Value]) -> None:
    call(b, f"llvm.x86.{name}", ir.VoidType(), arguments)


def _read(b: Any, tile: int, address: Value, row: Value | int) -> None:
    _do(b, "tileloadd64", [I8(tile), _pointer(b, address), I64(row) if isinstance(row, int) else row])


def _write(b: Any, tile: int, address: Value, row: Value | int) -> None:
    _do(b, "tilestored64", [I8(tile), _pointer(b, address), I64(row) if isinstance(row, int) else row])


def _multiply(b: Any, total: int, left: int, right: int) -> None:
    _do(b, "tdpbf16ps", [I8(total), I8(left), I8(right)])


@intrinsic
def begin(typing: Any, config: Any, kept: Any) -> Any:
    """Sets tiles up; how they were goes to the address `kept`."""

    def generate(context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        if available("int8") or available("bf16"):
            _do(b, "sttilecfg", [_pointer(b, arguments[1])])
            _do(b, "ldtilecfg", [_pointer(b, arguments[0])])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def end(typing: Any, kept: Any) -> Any:
    """Sets tiles up as they were."""

    def generate(context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        if available("int8") or available("bf16"):
            _do(b, "ldtilecfg", [_pointer(b, arguments[0])])
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic
def spread(typing: Any, rows: Any, row: Any, blocks: Any, out: Any) -> Any:
    """Eight rows of 64 x `blocks` int16 as tiles, `[blocks, 16, 16, 4]`: high bytes of each row, then low ones.

    Both are signed, so that a number is 256 times the high one and the low one: none may be above 32,639.

    Args:
        rows, out: addresses; from row to row are `row` bytes.
    """

    def generate(context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        rows, row, blocks, out = arguments
        bytes_, numbers = ir.VectorType(I8, BYTES), ir.VectorType(I16, BYTES)

        def one(index: Value, _: list[Value]) -> list[Value]:
            place = b.add(rows, b.mul(index, I64(2 * BYTES)))
            found = [load_vector(b, b.add(place, b.mul(row, I64(m))), I16, BYTES) for m in range(ROWS)]
            high = [
                b.ashr(b.add(each, ir.Constant(numbers, [128] * BYTES)), ir.Constant(numbers, [8] * BYTES))
                for each in found
            ]
            columns = [b.bitcast(b.trunc(each, bytes_), _WHOLE) for each in (*high, *found)]
            for line, vector in enumerate(_turned(b, columns)):
                into = b.add(out, b.add(b.mul(index, I64(TILE)), I64(line * BYTES)))
                b.store(vector, b.inttoptr(into, vector.type.as_pointer()), align=4)
            return []

        loop(b, blocks, 1, [], one)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), generate


def _turned(b: Any, vectors: list[Value]) -> list[Value]:
    """16 vectors of 16, rows as columns: blocks off the diagonal change places, of 8, 4, 2, 1."""
    for size in (8, 4, 2, 1):
        turned = list(vectors)
        for i in (i for i in range(SIDE) if not i & size):
            above, below = vectors[i], vectors[i + size]
            lanes = [(lane, bool(lane & size)) for lane in range(SIDE)]
            turned[i] = shuffled(b, above, below, [SIDE + lane - size if far else lane for lane, far in lanes])
            turned[i + size] = shuffled(b, above, below, [SIDE + lane if far else lane + size for lane, far in lanes])
        vectors = turned
    return vectors


@intrinsic
def products(typing: Any, w: Any, w_row: Any, x: Any, blocks: Any, soon: Any, out: Any) -> Any:
    """Products of 32 rows of 64 x `blocks` int8 with what `spread` made, `out[n, c]`, int32 `[32, 16]`.

    Args:
        w, x, out: addresses; from row to row of w are `w_row` bytes.
        soon: address of as many weights, which will be read next.
    """

    def generate(context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        w, w_row, x, blocks, soon, out = arguments
        if not available("int8"):
            return context.get_dummy_value()
        lower = b.mul(w_row, I64(SIDE))
        for total in (0, 1):
            _do(b, "tilezero", [I8(total)])

        def one(index: Value, _: list[Value]) -> list[Value]:
            offset = b.mul(index, I64(BYTES))
            _read(b, 4, b.add(x, b.mul(index, I64(TILE))), BYTES)
            for total, place in ((0, b.add(w, offset)), (1, b.add(b.add(w, lower), offset))):
                _read(b, 5 + total, place, w_row)
                _do(b, "tdpbssd", [I8(total), I8(5 + total), I8(4)])
            for n in range(BLOCK):
                prefetch(b, b.add(b.add(soon, offset), b.mul(w_row, I64(n))))
            return []

        loop(b, blocks, 1, [], one)
        _write(b, 0, out, BYTES)
        _write(b, 1, b.add(out, I64(TILE)), BYTES)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), generate


@intrinsic
def settle(typing: Any, counts: Any, scale: Any, steps: Any, y: Any, y_row: Any, add: Any) -> Any:
    """What `products` counted, as float32: `y[m, n] = products * scale[n] * steps[m]` for 8 m and 32 n, or added to it.

    Args:
        counts, scale, steps, y: addresses; from row to row of y are `y_row` bytes.
    """

    def generate(context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        counts, scale, steps, y, y_row, add = arguments
        wide, none = ir.VectorType(I64, SIDE), _filled(_LANES, 0.0)
        for half in range(BLOCK // SIDE):
            place = b.add(counts, I64(half * TILE))
            rows = [load_vector(b, b.add(place, I64(line * BYTES)), I32, SIDE) for line in range(SIDE)]
            columns = _turned(b, rows)
            scales = load_vector(b, b.add(scale, I64(half * BYTES)), FLOAT, SIDE)
            for m in range(ROWS):
                high, low = (b.sext(columns[at], wide) for at in (m, ROWS + m))
                whole = b.sitofp(b.add(b.shl(high, _filled(wide, 8)), low), _LANES)
                step = b.load(b.inttoptr(b.add(steps, I64(4 * m)), FLOAT.as_pointer()), align=4)
                value = b.fmul(b.fmul(whole, scales), everywhere(b, step, _LANES))
                into = b.add(y, b.add(b.mul(y_row, I64(m)), I64(half * BYTES)))
                before = b.select(add, load_vector(b, into, FLOAT, SIDE), none)
                b.store(b.fadd(before, value), b.inttoptr(into, _LANES.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5, types.boolean), generate


@intrinsic
def scores(typing: Any, query: Any, query_row: Any, keys: Any, blocks: Any, out: Any, out_row: Any) -> Any:
    """Products of 32 queries of 64 with 32 x `blocks` keys, `out[q, k]`, float32.

    Args:
        query: bfloat16 `[32, 64]`, from row to row `query_row` bytes.
        keys: `[2 * blocks, 2, 16, 16, 2]`: of 16 keys each pair of dimensions side by side.
        out: float32, from row to row `out_row` bytes.
    """

    def generate(context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        query, query_row, keys, blocks, out, out_row = arguments
        if not available("bf16"):
            return context.get_dummy_value()
        lower, out_lower = b.mul(query_row, I64(SIDE)), b.mul(out_row, I64(SIDE))
        # Tiles 4 and 5 are both halves of the first 16 queries, 6 and 7 of the others.
        for tile, place in ((4, query), (6, b.add(query, lower))):
            _read(b, tile, place, query_row)
            _read(b, tile + 1, b.add(place, I64(BYTES)), query_row)

        def one(index: Value, _: list[Value]) -> list[Value]:
            place, into = b.add(keys, b.mul(index, I64(2 * TILE))), b.add(out, b.mul(index, I64(BYTES)))
            _read(b, 2, place, BYTES)
            _read(b, 3, b.add(place, I64(TILE)), BYTES)
            for half in (0, 1):
                for total in (0, 1):
                    if half == 0:
                        _do(b, "tilezero", [I8(total)])
                    _multiply(b, total, 4 + 2 * total + half, 2 + half)
            _write(b, 0, into, out_row)
            _write(b, 1, b.add(into, out_lower), out_row)
            return []

        loop(b, b.shl(blocks, I64(1)), 1, [], one)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), generate


@intrinsic
def mixed(typing: Any, weights: Any, weights_row: Any, values: Any, blocks: Any, out: Any) -> Any:
    """Products of 32 rows of 32 x `blocks` weights with as many values of 64: `out[q, c]`, float32 `[32, 64]`.

    Args:
        weights: bfloat16, from row to row `weights_row` bytes.
        values: `[blocks, 4, 16, 16, 2]`: of 32 values each pair side by side, 16 dimensions at a time.
    """

    def generate(context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        weights, weights_row, values, blocks, out = arguments
        if not available("bf16"):
            return context.get_dummy_value()
        lower = b.mul(weights_row, I64(SIDE))
        for half in (0, 2):  # of the dimensions
            for total in range(4):
                _do(b, "tilezero", [I8(total)])

            def one(index: Value, _: list[Value], half: int = half) -> list[Value]:
                row = b.add(weights, b.mul(index, I64(BYTES)))
                place = b.add(values, b.add(b.mul(index, I64(4 * TILE)), I64(half * TILE)))
                _read(b, 6, place, BYTES)
                _read(b, 4, row, weights_row)
                _multiply(b, 0, 4, 6)
                _read(b, 5, b.add(row, lower), weights_row)
                _multiply(b, 2, 5, 6)
                _read(b, 7, b.add(place, I64(TILE)), BYTES)
                _multiply(b, 1, 4, 7)
                _multiply(b, 3, 5, 7)
                return []

            loop(b, blocks, 1, [], one)
            for total in range(4):
                place = (total // 2) * SIDE * 4 * BYTES + (half + total % 2) * BYTES
                _write(b, total, b.add(out, I64(place)), 4 * BYTES)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), generate


@intrinsic
def softmax(typing: Any, given: Any, blocks: Any, factor: Any, out: Any) -> Any:
    """`2 ** (factor * (given - largest))` of 32 x `blocks` float32, as bfloat16 at `out`; gives their sum.

    Args:
        given, out: addresses.
        factor: positive.
    """

    def generate(context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        given, blocks, factor, out = arguments

        def vectors(index: Value) -> list[Value]:
            place = b.add(given, b.mul(index, I64(2 * BYTES)))
            return [load_vector(b, b.add(place, I64(part * BYTES)), FLOAT, SIDE) for part in (0, 1)]

        def higher(index: Value, found: list[Value]) -> list[Value]:
            pairs = zip(vectors(index), found, strict=True)
            return [b.select(b.fcmp_ordered(">", here, before), here, before) for here, before in pairs]

        lowest = ir.Constant(_LANES, [float("-inf")] * SIDE)
        first, second = loop(b, blocks, 1, [lowest, lowest], higher)
        largest = largest_of(b, b.select(b.fcmp_ordered(">", first, second), first, second))
        scale = everywhere(b, factor, _LANES)
        offset = b.fneg(b.fmul(largest, scale))

        def one(index: Value, sums: list[Value]) -> list[Value]:
            powers = [_power(b, call(b, "llvm.fma.v16f32", _LANES, [x, scale, offset])) for x in vectors(index)]
            for part, power in enumerate(powers):
                bits = b.lshr(b.add(b.bitcast(power, _WHOLE), _filled(_WHOLE, 0x8000)), _filled(_WHOLE, 16))
                short = b.trunc(bits, ir.VectorType(I16, SIDE))
                place = b.add(out, b.add(b.mul(index, I64(4 * SIDE)), I64(2 * SIDE * part)))
                b.store(short, b.inttoptr(place, short.type.as_pointer()), align=2)
            return [b.fadd(before, power) for before, power in zip(sums, powers, strict=True)]

        sums = loop(b, blocks, 1, [_filled(_LANES, 0.0)] * 2, one)
        return b.extract_element(sums_of(b, [b.fadd(*sums)]), I32(0))

    return types.float32(types.int64, types.int64, types.float32, types.int64), generate


def _filled(of: Any, value: float) -> Value:
    return ir.Constant(of, [value] * SIDE)


def _power(b: Any, x: Value) -> Value:
    """2 ** x of 16 float32; NaN stays NaN."""
    every, nearest, as_set = I16(-1), I32(1), I32(4)
    part = call(b, "llvm.x86.avx512.mask.reduce.ps.512", _LANES, [x, nearest, x, every, as_set])  # x - floor(x)
    found = _filled(_LANES, _POWER[-1])
    for factor in reversed(_POWER[:-1]):
        found = call(b, "llvm.fma.v16f32", _LANES, [found, part, _filled(_LANES, factor)])
    return call(b, "llvm.x86.avx512.mask.scalef.ps.512", _LANES, [found, x, found, every, as_set])

"""Vector instructions for numba: what a step of the decode loop is made of, as LLVM writes it for this processor.

Each is an intrinsic that works on addresses. What it is compiled for is told by the types of its first arguments: a
`kind` is an empty array whose dtype stands for how numbers are stored (`KINDS`), and a count is a tuple of that length.
Sums are float32, of int8 int32; the order of a row's sums never depends on the other rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from chatterbox_nb.precision.kernels.emit import (
    FLOAT,
    HALF,
    I8,
    I16,
    I32,
    I64,
    LANES,
    Value,
    call,
    load_vector,
    loop,
    prefetch,
    sums_of,
    vector_type,
    widest_vectors,
)

# How numbers are stored, and the dtype that stands for it here: numba has no bfloat16.
KINDS = {"int8": np.int8, "float32": np.float32, "bfloat16": np.uint16, "float16": np.int16}
SIZES = {storage: np.dtype(of).itemsize for storage, of in KINDS.items()}
_NAMES = {np.dtype(of).name: storage for storage, of in KINDS.items()}
_Rows = list[tuple[Value, Value, Value]]  # a row's address; what to ask for while it is read, and how much of it


def kind(storage: str) -> Any:
    """The empty array that stands for a way of storing numbers."""
    return np.empty(0, KINDS[storage])


def _floats(b: Any, address: Value, storage: str) -> Value:
    """16 stored numbers as float32."""
    if storage == "float32":
        return load_vector(b, address, FLOAT, LANES)
    if storage == "float16":
        return b.fpext(load_vector(b, address, HALF, LANES), vector_type(FLOAT, LANES))
    wide = b.zext(load_vector(b, address, I16, LANES), vector_type(I32, LANES))
    return b.bitcast(b.shl(wide, ir.Constant(wide.type, [16] * LANES)), vector_type(FLOAT, LANES))


def _shorts(b: Any, address: Value, of: Any, tail: bool) -> Value:
    """32 int8 or int16 as int16; of a tail 16, and zeros."""
    found = load_vector(b, address, of, LANES if tail else 2 * LANES)
    if of is I8:
        found = b.sext(found, vector_type(I16, found.type.count))
    if tail:
        order = ir.Constant(vector_type(I32, 2 * LANES), list(range(2 * LANES)))
        found = b.shuffle_vector(found, ir.Constant(found.type, [0] * LANES), order)
    return found


def _pairs(b: Any, left: Value, right: Value, widest: int) -> Value:
    """Products of 32 int16, summed in pairs to 16 int32."""
    result = vector_type(I32, LANES)
    if widest == 512:
        return call(b, "llvm.x86.avx512.pmaddw.d.512", result, [left, right])
    if widest == 256:
        halves = []
        for start in (0, LANES):
            order = ir.Constant(vector_type(I32, LANES), list(range(start, start + LANES)))
            half = [b.shuffle_vector(side, side, order) for side in (left, right)]
            halves.append(call(b, "llvm.x86.avx2.pmadd.wd", vector_type(I32, LANES // 2), half))
        order = ir.Constant(vector_type(I32, LANES), list(range(LANES)))
        return b.shuffle_vector(*halves, order)
    total = ir.Constant(result, [0] * LANES)
    for start in (0, 1):
        order = ir.Constant(vector_type(I32, LANES), list(range(start, 2 * LANES, 2)))
        sides = [b.sext(b.shuffle_vector(side, side, order), result) for side in (left, right)]
        total = b.add(total, b.mul(*sides))
    return total


@intrinsic
def dot(
    typing: Any, kind: Any, block: Any, rows: Any,
    w: Any, w_row: Any, soon: Any, shift: Any, x: Any, x_row: Any, out: Any, K: Any,
) -> Any:  # fmt: skip
    """Products of a block of N weight rows with M rows of activations: `out[m * N + n]`, float32.

    Args:
        kind: of the weights. Activations are int16 for int8, float32 otherwise.
        block, rows: tuples of length N and M, powers of two; at most 16 products.
        w, x, out: addresses.
        w_row, x_row: bytes from row to row.
        soon: address of what will be read next, as much memory as these weights, or of a part of it:
        shift: a half at 1, a quarter at 2.
        K: width of a row, a multiple of 16.
    """
    storage, N, M = _NAMES[str(kind.dtype)], len(block), len(rows)
    signature = types.void(kind, block, rows, *[types.int64] * 8)

    def generate(context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        w, w_row, soon, shift, x, x_row, out, K = arguments[3:]
        offsets = [b.mul(w_row, I64(n)) for n in range(N)]
        weights = [(b.add(w, by), b.add(soon, b.ashr(by, shift)), shift) for by in offsets]
        inputs = [b.add(x, b.mul(x_row, I64(m))) for m in range(M)]
        sums = _integer_sums if storage == "int8" else _float_sums
        found = sums(b, storage, weights, inputs, K)
        made = sums_of(b, [found[n * M + m] for m in range(M) for n in range(N)])
        if storage == "int8":
            made = b.fptrunc(made, vector_type(FLOAT, N * M))
        b.store(made, b.inttoptr(out, made.type.as_pointer()), align=4)
        return context.get_dummy_value()

    return signature, generate


def _integer_sums(b: Any, _: str, weights: _Rows, inputs: list[Value], K: Value) -> list[Value]:
    lanes, widest = vector_type(I32, LANES), widest_vectors()
    start = [ir.Constant(lanes, [0] * LANES)] * (len(weights) * len(inputs))

    def add(index: Value, sums: list[Value], tail: bool = False) -> list[Value]:
        x = [_shorts(b, b.add(row, b.shl(index, I64(1))), I16, tail) for row in inputs]
        made = []
        for n, (row, soon, shift) in enumerate(weights):
            if not tail:
                prefetch(b, b.add(soon, b.ashr(index, shift)))
            w = _shorts(b, b.add(row, index), I8, tail)
            made += [b.add(sums[n * len(x) + m], _pairs(b, w, x[m], widest)) for m in range(len(x))]
        return made

    sums = loop(b, K, 2 * LANES, start, add)
    whole = b.and_(K, I64(~(2 * LANES - 1)))
    rest = b.icmp_signed("<", whole, K)
    before = b.block
    with b.if_then(rest):
        with_tail = add(whole, sums, tail=True)
        inside = b.block
    joined = []
    for old, new in zip(sums, with_tail, strict=True):
        phi = b.phi(lanes)
        phi.add_incoming(old, before)
        phi.add_incoming(new, inside)
        joined.append(phi)
    return [b.sitofp(value, vector_type(ir.DoubleType(), LANES)) for value in joined]  # exact, and so are their sums


def _float_sums(b: Any, storage: str, weights: _Rows, inputs: list[Value], K: Value) -> list[Value]:
    lanes, size = vector_type(FLOAT, LANES), SIZES[storage]
    start = [ir.Constant(lanes, [0.0] * LANES)] * (len(weights) * len(inputs))

    def add(index: Value, sums: list[Value]) -> list[Value]:
        x = [_floats(b, b.add(row, b.mul(index, I64(4))), "float32") for row in inputs]
        made = []
        for n, (row, soon, shift) in enumerate(weights):
            offset = b.mul(index, I64(size))
            prefetch(b, b.add(soon, b.ashr(offset, shift)))
            w = _floats(b, b.add(row, offset), storage)
            made += [call(b, "llvm.fmuladd.v16f32", lanes, [w, x[m], sums[n * len(x) + m]]) for m in range(len(x))]
        return made

    return loop(b, K, LANES, start, add)


@intrinsic
def total(typing: Any, address: Any, count: Any) -> Any:
    """Sum of `count` float32 from an address: of 16 lanes, then of what is left, one by one."""

    def generate(context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        address, count = arguments

        def add(index: Value, sums: list[Value]) -> list[Value]:
            return [b.fadd(sums[0], load_vector(b, b.add(address, b.shl(index, I64(2))), FLOAT, LANES))]

        def add_one(index: Value, sums: list[Value]) -> list[Value]:
            place = b.add(address, b.shl(b.add(whole, index), I64(2)))
            return [b.fadd(sums[0], b.load(b.inttoptr(place, FLOAT.as_pointer()), align=4))]

        lanes = loop(b, count, LANES, [ir.Constant(vector_type(FLOAT, LANES), [0.0] * LANES)], add)
        whole = b.and_(count, I64(-LANES))
        start = b.extract_element(sums_of(b, lanes), I32(0))
        return loop(b, b.sub(count, whole), 1, [start], add_one)[0]

    return types.float32(types.int64, types.int64), generate


@intrinsic
def mix(typing: Any, kind: Any, width: Any, v: Any, v_row: Any, soon: Any, p: Any, count: Any, out: Any) -> Any:
    """Sum of `count` stored rows, each times a float32: `out[c] = sum(p[t] * v[t, c])`, float32.

    Args:
        kind: of the rows.
        width: tuple whose length is a row's width in vectors of 16.
        v, p, out: addresses.
        v_row: bytes from row to row.
        soon: address of as much memory as these rows, which will be read next.
    """
    storage, vectors = _NAMES[str(kind.dtype)], len(width)
    signature = types.void(kind, width, *[types.int64] * 6)

    def generate(context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        v, v_row, soon, p, count, out = arguments[2:]
        lanes = vector_type(FLOAT, LANES)

        def add(index: Value, sums: list[Value]) -> list[Value]:
            weight = b.load(b.inttoptr(b.add(p, b.mul(index, I64(4))), FLOAT.as_pointer()), align=4)
            spread = b.insert_element(ir.Constant(lanes, ir.Undefined), weight, I32(0))
            spread = b.shuffle_vector(spread, spread, ir.Constant(vector_type(I32, LANES), [0] * LANES))
            offset = b.mul(index, v_row)
            row, next_row = b.add(v, offset), b.add(soon, offset)
            steps = [I64(c * LANES * SIZES[storage]) for c in range(vectors)]
            places = [b.add(row, by) for by in steps]
            for by in steps[:: 4 // SIZES[storage]]:
                prefetch(b, b.add(next_row, by))
            return [
                call(b, "llvm.fmuladd.v16f32", lanes, [_floats(b, place, storage), spread, sums[c]])
                for c, place in enumerate(places)
            ]

        start = [ir.Constant(lanes, [0.0] * LANES)] * vectors
        for c, value in enumerate(loop(b, count, 1, start, add)):
            b.store(value, b.inttoptr(b.add(out, I64(4 * LANES * c)), lanes.as_pointer()), align=4)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def keep(typing: Any, kind: Any, width: Any, address: Any, values: Any) -> Any:
    """Stores float32 as the kind stores them, rounded to nearest even.

    Args:
        width: tuple whose length says how many, in vectors of 16.
        address, values: where to, and where from.
    """
    storage, vectors = _NAMES[str(kind.dtype)], len(width)

    def generate(context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        _, _, address, values = arguments
        for part in range(vectors):
            value = _stored(b, load_vector(b, b.add(values, I64(4 * LANES * part)), FLOAT, LANES), storage)
            place = b.add(address, I64(SIZES[storage] * LANES * part))
            b.store(value, b.inttoptr(place, value.type.as_pointer()), align=SIZES[storage])
        return context.get_dummy_value()

    return types.void(kind, width, types.int64, types.int64), generate


def _stored(b: Any, value: Value, storage: str) -> Value:
    if storage == "float16":
        return b.fptrunc(value, vector_type(HALF, LANES))
    if storage == "bfloat16":
        whole, short = vector_type(I32, LANES), vector_type(I16, LANES)
        shift = ir.Constant(whole, [16] * LANES)
        bits = b.bitcast(value, whole)
        odd = b.and_(b.lshr(bits, shift), ir.Constant(whole, [1] * LANES))
        rounded = b.lshr(b.add(b.add(bits, ir.Constant(whole, [0x7FFF] * LANES)), odd), shift)
        missing = ir.Constant(short, [0x7FC0] * LANES)
        return b.select(b.fcmp_unordered("uno", value, value), missing, b.trunc(rounded, short))
    return value


@intrinsic
def float_at(typing: Any, address: Any, index: Any) -> Any:
    """The `index`-th float32 from an address."""

    def generate(context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        place = b.add(arguments[0], b.mul(arguments[1], I64(4)))
        return b.load(b.inttoptr(place, FLOAT.as_pointer()), align=4)

    return types.float32(types.int64, types.int64), generate

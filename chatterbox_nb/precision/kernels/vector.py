"""Vector instructions for numba: what a step of the decode loop is made of, as LLVM writes it for this processor.

Each is an intrinsic that works on addresses. What it is compiled for is told by the types of its first arguments: a
`kind` is an empty array whose dtype stands for how numbers are stored (`KINDS`), and a count is a tuple of that length.
Sums are float32, of int8 int32; the order of a row's sums never depends on the other rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import cgutils, types
from numba.extending import intrinsic

# How numbers are stored, and the dtype that stands for it here: numba has no bfloat16.
KINDS = {"int8": np.int8, "float32": np.float32, "bfloat16": np.uint16, "float16": np.int16}
SIZES = {storage: np.dtype(of).itemsize for storage, of in KINDS.items()}
_NAMES = {np.dtype(of).name: storage for storage, of in KINDS.items()}
LANES = 16  # the vector that everything is a multiple of

_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_HALF, _FLOAT = ir.HalfType(), ir.FloatType()
_Value = Any  # of llvmlite
_Rows = list[tuple[_Value, _Value, _Value]]  # a row's address; what to ask for while it is read, and how much of it


def compiled(**options: Any) -> Callable[[Any], Any]:
    """numba's `njit`: without Python's lock, and kept on disk where there is a folder for it."""

    def decorate(function: Any) -> Any:
        try:
            return njit(nogil=True, cache=True, error_model="numpy", **options)(function)
        except RuntimeError:  # no folder can be written to: it is compiled in each process
            return njit(nogil=True, error_model="numpy", **options)(function)

    return decorate


def kind(storage: str) -> Any:
    """The empty array that stands for a way of storing numbers."""
    return np.empty(0, KINDS[storage])


def _vector(of: Any, count: int) -> Any:
    return ir.VectorType(of, count)


def _load(b: Any, address: _Value, of: Any, count: int) -> _Value:
    return b.load(b.inttoptr(address, _vector(of, count).as_pointer()), align=1)


def _call(b: Any, name: str, result: Any, arguments: list[_Value]) -> _Value:
    function = ir.FunctionType(result, [argument.type for argument in arguments])
    return b.call(cgutils.get_or_insert_function(b.module, function, name), arguments)


def _floats(b: Any, address: _Value, storage: str) -> _Value:
    """16 stored numbers as float32."""
    if storage == "float32":
        return _load(b, address, _FLOAT, LANES)
    if storage == "float16":
        return b.fpext(_load(b, address, _HALF, LANES), _vector(_FLOAT, LANES))
    wide = b.zext(_load(b, address, _I16, LANES), _vector(_I32, LANES))
    return b.bitcast(b.shl(wide, ir.Constant(wide.type, [16] * LANES)), _vector(_FLOAT, LANES))


def _shorts(b: Any, address: _Value, of: Any, tail: bool) -> _Value:
    """32 int8 or int16 as int16; of a tail 16, and zeros."""
    found = _load(b, address, of, LANES if tail else 2 * LANES)
    if of is _I8:
        found = b.sext(found, _vector(_I16, found.type.count))
    if tail:
        order = ir.Constant(_vector(_I32, 2 * LANES), list(range(2 * LANES)))
        found = b.shuffle_vector(found, ir.Constant(found.type, [0] * LANES), order)
    return found


def _pairs(b: Any, left: _Value, right: _Value, widest: int) -> _Value:
    """Products of 32 int16, summed in pairs to 16 int32."""
    result = _vector(_I32, LANES)
    if widest == 512:
        return _call(b, "llvm.x86.avx512.pmaddw.d.512", result, [left, right])
    if widest == 256:
        halves = []
        for start in (0, LANES):
            order = ir.Constant(_vector(_I32, LANES), list(range(start, start + LANES)))
            half = [b.shuffle_vector(side, side, order) for side in (left, right)]
            halves.append(_call(b, "llvm.x86.avx2.pmadd.wd", _vector(_I32, LANES // 2), half))
        order = ir.Constant(_vector(_I32, LANES), list(range(LANES)))
        return b.shuffle_vector(*halves, order)
    total = ir.Constant(result, [0] * LANES)
    for start in (0, 1):
        order = ir.Constant(_vector(_I32, LANES), list(range(start, 2 * LANES, 2)))
        sides = [b.sext(b.shuffle_vector(side, side, order), result) for side in (left, right)]
        total = b.add(total, b.mul(*sides))
    return total


def widest_vectors() -> int:
    """Bits of the widest integer vectors that this processor multiplies: 512, 256, or 0 for what LLVM makes of it."""
    from llvmlite import binding

    features = binding.get_host_cpu_features()
    return 512 if features.get("avx512bw") else 256 if features.get("avx2") else 0


def _shuffled(b: Any, left: _Value, right: _Value, order: list[int]) -> _Value:
    return b.shuffle_vector(left, right, ir.Constant(_vector(_I32, len(order)), order))


def _sums(b: Any, vectors: list[_Value]) -> _Value:
    """Of each of 1, 2, 4, 8 or 16 vectors of 16 float32, side by side.

    Halves are added to halves, so that a sum is the same whatever stands beside it.
    """
    width, group = LANES, LANES
    while group > 1:
        half = group // 2
        pairs = [vectors] if len(vectors) == 1 else [vectors[i : i + 2] for i in range(0, len(vectors), 2)]
        width *= len(pairs[0])
        starts = range(0, width, group)
        vectors = [
            b.fadd(
                _shuffled(b, pair[0], pair[-1], [start + i for start in starts for i in range(half)]),
                _shuffled(b, pair[0], pair[-1], [start + half + i for start in starts for i in range(half)]),
            )
            for pair in pairs
        ]
        width //= 2
        group = half
    return vectors[0]


def _loop(
    b: Any, count: _Value, step: int, start: list[_Value], body: Callable[[_Value, list[_Value]], list[_Value]]
) -> list[_Value]:
    """`for i in range(0, count - step + 1, step): values = body(i, values)`; gives the last values."""
    before = b.block
    head, inside, after = (b.append_basic_block(name) for name in ("head", "inside", "after"))
    b.branch(head)
    b.position_at_end(head)
    index = b.phi(_I64)
    values = [b.phi(value.type) for value in start]
    following = b.add(index, _I64(step))
    b.cbranch(b.icmp_signed("<=", following, count), inside, after)
    b.position_at_end(inside)
    made = body(index, list(values))
    end = b.block
    b.branch(head)
    for phi, first, last in zip([index, *values], [_I64(0), *start], [following, *made], strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(last, end)
    b.position_at_end(after)
    return list(values)


def _prefetch(b: Any, address: _Value) -> None:
    pointer = b.inttoptr(address, _I8.as_pointer())
    kind = ir.FunctionType(ir.VoidType(), [pointer.type, _I32, _I32, _I32])
    b.call(cgutils.get_or_insert_function(b.module, kind, "llvm.prefetch.p0i8"), [pointer, _I32(0), _I32(2), _I32(1)])


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
        offsets = [b.mul(w_row, _I64(n)) for n in range(N)]
        weights = [(b.add(w, by), b.add(soon, b.ashr(by, shift)), shift) for by in offsets]
        inputs = [b.add(x, b.mul(x_row, _I64(m))) for m in range(M)]
        sums = _integer_sums if storage == "int8" else _float_sums
        found = sums(b, storage, weights, inputs, K)
        made = _sums(b, [found[n * M + m] for m in range(M) for n in range(N)])
        b.store(made, b.inttoptr(out, made.type.as_pointer()), align=4)
        return context.get_dummy_value()

    return signature, generate


def _integer_sums(b: Any, _: str, weights: _Rows, inputs: list[_Value], K: _Value) -> list[_Value]:
    lanes, widest = _vector(_I32, LANES), widest_vectors()
    start = [ir.Constant(lanes, [0] * LANES)] * (len(weights) * len(inputs))

    def add(index: _Value, sums: list[_Value], tail: bool = False) -> list[_Value]:
        x = [_shorts(b, b.add(row, b.shl(index, _I64(1))), _I16, tail) for row in inputs]
        made = []
        for n, (row, soon, shift) in enumerate(weights):
            if not tail:
                _prefetch(b, b.add(soon, b.ashr(index, shift)))
            w = _shorts(b, b.add(row, index), _I8, tail)
            made += [b.add(sums[n * len(x) + m], _pairs(b, w, x[m], widest)) for m in range(len(x))]
        return made

    sums = _loop(b, K, 2 * LANES, start, add)
    whole = b.and_(K, _I64(~(2 * LANES - 1)))
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
    return [b.sitofp(value, _vector(_FLOAT, LANES)) for value in joined]


def _float_sums(b: Any, storage: str, weights: _Rows, inputs: list[_Value], K: _Value) -> list[_Value]:
    lanes, size = _vector(_FLOAT, LANES), SIZES[storage]
    start = [ir.Constant(lanes, [0.0] * LANES)] * (len(weights) * len(inputs))

    def add(index: _Value, sums: list[_Value]) -> list[_Value]:
        x = [_floats(b, b.add(row, b.mul(index, _I64(4))), "float32") for row in inputs]
        made = []
        for n, (row, soon, shift) in enumerate(weights):
            offset = b.mul(index, _I64(size))
            _prefetch(b, b.add(soon, b.ashr(offset, shift)))
            w = _floats(b, b.add(row, offset), storage)
            made += [_call(b, "llvm.fmuladd.v16f32", lanes, [w, x[m], sums[n * len(x) + m]]) for m in range(len(x))]
        return made

    return _loop(b, K, LANES, start, add)


@intrinsic
def total(typing: Any, address: Any, count: Any) -> Any:
    """Sum of `count` float32 from an address: of 16 lanes, then of what is left, one by one."""

    def generate(context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        address, count = arguments

        def add(index: _Value, sums: list[_Value]) -> list[_Value]:
            return [b.fadd(sums[0], _load(b, b.add(address, b.shl(index, _I64(2))), _FLOAT, LANES))]

        def add_one(index: _Value, sums: list[_Value]) -> list[_Value]:
            place = b.add(address, b.shl(b.add(whole, index), _I64(2)))
            return [b.fadd(sums[0], b.load(b.inttoptr(place, _FLOAT.as_pointer()), align=4))]

        lanes = _loop(b, count, LANES, [ir.Constant(_vector(_FLOAT, LANES), [0.0] * LANES)], add)
        whole = b.and_(count, _I64(-LANES))
        start = b.extract_element(_sums(b, lanes), _I32(0))
        return _loop(b, b.sub(count, whole), 1, [start], add_one)[0]

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
        lanes = _vector(_FLOAT, LANES)

        def add(index: _Value, sums: list[_Value]) -> list[_Value]:
            weight = b.load(b.inttoptr(b.add(p, b.mul(index, _I64(4))), _FLOAT.as_pointer()), align=4)
            spread = b.insert_element(ir.Constant(lanes, ir.Undefined), weight, _I32(0))
            spread = b.shuffle_vector(spread, spread, ir.Constant(_vector(_I32, LANES), [0] * LANES))
            offset = b.mul(index, v_row)
            row, next_row = b.add(v, offset), b.add(soon, offset)
            steps = [_I64(c * LANES * SIZES[storage]) for c in range(vectors)]
            places = [b.add(row, by) for by in steps]
            for by in steps[:: 4 // SIZES[storage]]:
                _prefetch(b, b.add(next_row, by))
            return [
                _call(b, "llvm.fmuladd.v16f32", lanes, [_floats(b, place, storage), spread, sums[c]])
                for c, place in enumerate(places)
            ]

        start = [ir.Constant(lanes, [0.0] * LANES)] * vectors
        for c, value in enumerate(_loop(b, count, 1, start, add)):
            b.store(value, b.inttoptr(b.add(out, _I64(4 * LANES * c)), lanes.as_pointer()), align=4)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def put(typing: Any, kind: Any, address: Any, index: Any, value: Any) -> Any:
    """Stores a float32 as the kind's `index`-th number from an address, rounded to nearest even."""
    storage = _NAMES[str(kind.dtype)]
    signature = types.void(kind, types.int64, types.int64, types.float32)

    def generate(context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        _, address, index, value = arguments
        place = b.add(address, b.mul(index, _I64(SIZES[storage])))
        if storage == "float16":
            value = b.fptrunc(value, _HALF)
        elif storage == "bfloat16":
            bits = b.bitcast(value, _I32)
            odd = b.and_(b.lshr(bits, _I32(16)), _I32(1))
            rounded = b.trunc(b.lshr(b.add(b.add(bits, _I32(0x7FFF)), odd), _I32(16)), _I16)
            value = b.select(b.fcmp_unordered("uno", value, value), _I16(0x7FC0), rounded)
        b.store(value, b.inttoptr(place, value.type.as_pointer()), align=SIZES[storage])
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def float_at(typing: Any, address: Any, index: Any) -> Any:
    """The `index`-th float32 from an address."""

    def generate(context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        place = b.add(arguments[0], b.mul(arguments[1], _I64(4)))
        return b.load(b.inttoptr(place, _FLOAT.as_pointer()), align=4)

    return types.float32(types.int64, types.int64), generate


@intrinsic
def arrive(typing: Any, address: Any) -> Any:
    """Adds one to an int64 that threads share."""

    def generate(context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        b.atomic_rmw("add", b.inttoptr(arguments[0], _I64.as_pointer()), _I64(1), "seq_cst")
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic
def take(typing: Any, address: Any, found: Any) -> Any:
    """Adds one to an int64 that threads share if it is still what was found; tells whether it was."""

    def generate(context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        place, found = b.inttoptr(arguments[0], _I64.as_pointer()), arguments[1]
        swapped = b.cmpxchg(place, found, b.add(found, _I64(1)), "seq_cst", "seq_cst")
        return b.extract_value(swapped, 1)

    return types.boolean(types.int64, types.int64), generate


@intrinsic
def glance(typing: Any, address: Any) -> Any:
    """Reads an int64 that threads share, after a moment's rest."""

    def generate(context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        if widest_vectors():
            _call(b, "llvm.x86.sse2.pause", ir.VoidType(), [])
        return b.load_atomic(b.inttoptr(arguments[0], _I64.as_pointer()), "seq_cst", 8)

    return types.int64(types.int64), generate

"""What intrinsics for numba are written with: vectors of 16 float32, loops, sums in an order that never changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import cfunc, njit
from numba.core import cgutils

LANES = 16  # the vector that everything is a multiple of
I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
HALF, FLOAT = ir.HalfType(), ir.FloatType()
Value = Any  # of llvmlite


def compiled(**options: Any) -> Callable[[Any], Any]:
    """numba's `njit`: without Python's lock, and kept on disk where there is a folder for it."""

    def decorate(function: Any) -> Any:
        try:
            return njit(nogil=True, cache=True, error_model="numpy", **options)(function)
        except RuntimeError:  # no folder can be written to: it is compiled in each process
            return njit(nogil=True, error_model="numpy", **options)(function)

    return decorate


def called_from_c(signature: Any) -> Callable[[Any], Any]:
    """numba's `cfunc`, kept as `compiled` keeps. It compiles at once."""

    def decorate(function: Any) -> Any:
        try:
            return cfunc(signature, cache=True)(function)
        except RuntimeError:
            return cfunc(signature)(function)

    return decorate


def vector_type(of: Any, count: int) -> Any:
    return ir.VectorType(of, count)


def load_vector(b: Any, address: Value, of: Any, count: int) -> Value:
    return b.load(b.inttoptr(address, vector_type(of, count).as_pointer()), align=1)


def everywhere(b: Any, value: Value, of: Any) -> Value:
    """A number in each lane of a vector of this type."""
    one = b.insert_element(ir.Constant(of, ir.Undefined), value, I32(0))
    return b.shuffle_vector(one, one, ir.Constant(vector_type(I32, of.count), [0] * of.count))


def call(b: Any, name: str, result: Any, arguments: list[Value]) -> Value:
    function = ir.FunctionType(result, [argument.type for argument in arguments])
    return b.call(cgutils.get_or_insert_function(b.module, function, name), arguments)


def shuffled(b: Any, left: Value, right: Value, order: list[int]) -> Value:
    return b.shuffle_vector(left, right, ir.Constant(vector_type(I32, len(order)), order))


def sums_of(b: Any, vectors: list[Value]) -> Value:
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
                shuffled(b, pair[0], pair[-1], [start + i for start in starts for i in range(half)]),
                shuffled(b, pair[0], pair[-1], [start + half + i for start in starts for i in range(half)]),
            )
            for pair in pairs
        ]
        width //= 2
        group = half
    return vectors[0]


def largest_of(b: Any, vector: Value) -> Value:
    """The largest of 16 float32, in each of 16 lanes. What is not a number is passed over."""
    for by in (8, 4, 2, 1):
        turned = shuffled(b, vector, vector, [(lane + by) % LANES for lane in range(LANES)])
        vector = b.select(b.fcmp_ordered(">", turned, vector), turned, vector)
    return vector


def loop(
    b: Any, count: Value, step: int, start: list[Value], body: Callable[[Value, list[Value]], list[Value]]
) -> list[Value]:
    """`for i in range(0, count - step + 1, step): values = body(i, values)`; gives the last values."""
    before = b.block
    head, inside, after = (b.append_basic_block(name) for name in ("head", "inside", "after"))
    b.branch(head)
    b.position_at_end(head)
    index = b.phi(I64)
    values = [b.phi(value.type) for value in start]
    following = b.add(index, I64(step))
    b.cbranch(b.icmp_signed("<=", following, count), inside, after)
    b.position_at_end(inside)
    made = body(index, list(values))
    end = b.block
    b.branch(head)
    for phi, first, last in zip([index, *values], [I64(0), *start], [following, *made], strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(last, end)
    b.position_at_end(after)
    return list(values)


def prefetch(b: Any, address: Value) -> None:
    pointer = b.inttoptr(address, I8.as_pointer())
    kind = ir.FunctionType(ir.VoidType(), [pointer.type, I32, I32, I32])
    b.call(cgutils.get_or_insert_function(b.module, kind, "llvm.prefetch.p0i8"), [pointer, I32(0), I32(2), I32(1)])


def widest_vectors() -> int:
    """Bits of the widest integer vectors that this processor multiplies: 512, 256, or 0 for what LLVM makes of it."""
    from llvmlite import binding

    features = binding.get_host_cpu_features()
    return 512 if features.get("avx512bw") else 256 if features.get("avx2") else 0

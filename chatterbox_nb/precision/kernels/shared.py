"""What threads of compiled code share: numbers that are counted up and looked at, memory that is told by address."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from chatterbox_nb.precision.kernels.emit import I8, I64, call, widest_vectors


@intrinsic
def count_up(typing: Any, address: Any) -> Any:
    """Adds one to an int64 that threads share; gives what it was."""

    def generate(context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        return b.atomic_rmw("add", b.inttoptr(arguments[0], I64.as_pointer()), I64(1), "seq_cst")

    return types.int64(types.int64), generate


@intrinsic
def pointer(typing: Any, address: Any) -> Any:
    """What `numba.carray` reads an address as."""

    def generate(context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        return b.inttoptr(arguments[0], I8.as_pointer())

    return types.voidptr(types.int64), generate


@intrinsic
def take(typing: Any, address: Any, found: Any) -> Any:
    """Adds one to an int64 that threads share if it is still what was found; tells whether it was."""

    def generate(context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        place, found = b.inttoptr(arguments[0], I64.as_pointer()), arguments[1]
        swapped = b.cmpxchg(place, found, b.add(found, I64(1)), "seq_cst", "seq_cst")
        return b.extract_value(swapped, 1)

    return types.boolean(types.int64, types.int64), generate


@intrinsic
def glance(typing: Any, address: Any) -> Any:
    """Reads an int64 that threads share, after a moment's rest."""

    def generate(context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        if widest_vectors():
            call(b, "llvm.x86.sse2.pause", ir.VoidType(), [])
        return b.load_atomic(b.inttoptr(arguments[0], I64.as_pointer()), "seq_cst", 8)

    return types.int64(types.int64), generate

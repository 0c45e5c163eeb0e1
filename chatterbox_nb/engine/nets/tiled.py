"""Attention of every frame to every other, compiled for a CPU that multiplies bfloat16: in tiles (AMX) or in vectors.

What torch's is to the accuracy of bfloat16, in less than half the time: the scores of 32 queries stay near the
processor until they are weights, float32 all the while, and an exponential is six instructions for 16 of them. torch's
own threads do it, called as torch calls them.
"""

from __future__ import annotations

import ctypes
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numba import carray, types
from torch import Tensor

from chatterbox_nb.precision.kernels import bf16, tiles
from chatterbox_nb.precision.kernels.emit import LANES, called_from_c, compiled
from chatterbox_nb.precision.kernels.shared import count_up, pointer
from chatterbox_nb.precision.kernels.vector import keep, kind

WIDTH = 64  # of a head in tiles; a narrower one is filled up with zeros
_NARROWEST = 32  # with a narrower one a query's tile would reach past its row
QUERIES = 32  # that are answered in one go, and no fewer frames can be
_compiled = compiled()
_KIND = kind("bfloat16")
# What a call tells its threads, int64 each: addresses, sizes, how many parts are taken, how many threads have come.
_QKV, _OUT, _WORK, _LENGTH, _SETUP, _ROWS, _FRAMES, _HEADS, _WIDTH, _TAKEN, _COME, _TOLD = range(12)


@cache
def available() -> bool:
    """Whether this machine can: AMX or AVX512-BF16, and threads of torch's that can be asked to run a function."""
    return _parallel() is not None and (tiles.available("bf16") or bf16.available())


@cache
def _parallel() -> Any:
    """`GOMP_parallel(function, argument, threads, flags)` of the OpenMP that torch uses; None where it has none."""
    try:
        found = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so")).GOMP_parallel
    except (OSError, AttributeError):
        return None
    found.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    found.restype = None
    return found


@_compiled
def _pack_keys(qkv: Any, first: int, width: int, keys: Any) -> None:
    """A head's keys as tiles, zeros around them: `[T / 16, 32, 16]` pairs."""
    pairs, frames = qkv.view(np.uint32), len(qkv)
    for t in range(len(keys) * 16):
        for pair in range(WIDTH // 2):
            inside = t < frames and pair < width // 2
            keys[t // 16, pair, t % 16] = pairs[t, first // 2 + pair] if inside else np.uint32(0)


@_compiled
def _pack_values(qkv: Any, first: int, width: int, values: Any) -> None:
    """A head's values as tiles, zeros after the last: `[T / 32, 4, 16, 16]`, each with the one after it."""
    frames = len(qkv)
    for t in range(0, len(values) * 32, 2):
        low, high = np.uint32(1 if t < frames else 0), np.uint32(65536 if t + 1 < frames else 0)
        here = qkv[min(t, frames - 1), first : first + width]
        there = qkv[min(t + 1, frames - 1), first : first + width]
        into = values[t // 32, :, t % 32 // 2]
        for part in range(width // 16):
            for c in range(16):
                into[part, c] = np.uint32(here[16 * part + c]) * low | np.uint32(there[16 * part + c]) * high


@_compiled
def _finish(mixed: Any, sums: Any, width: int, out: Any) -> None:
    """Sums of weighted values to their means, as bfloat16, to nearest even."""
    for q in range(QUERIES):
        share, row, into = np.float32(1) / sums[q], mixed[q], out[q]
        for c in range(width):
            row[c] *= share
        for c in range(0, width, LANES):
            keep(_KIND, (0,), into[c:].ctypes.data, row[c:].ctypes.data)


@_compiled
def _head(amx: Any, qkv: Any, head: int, heads: int, width: int, out: Any, work: Any) -> None:
    """One head of one row.

    Args:
        amx: an empty tuple, or one of length 1 if it is multiplied in tiles.
        qkv: bfloat16 as uint16 `[T, 3 * H * width]`.
        out: the same, `[T, H * width]`.
        work: uint32, `_length` of them.
    """
    frames = len(qkv)
    blocks = (frames + 31) // 32
    room = 32 * blocks
    keys = work[: 32 * room].reshape(2 * blocks, 32, 16)
    values = work[32 * room : 64 * room].reshape(blocks, 4, 16, 16)
    given = work[64 * room : 96 * room].view(np.float32).reshape(QUERIES, room)
    weights = work[96 * room : 112 * room].view(np.uint16).reshape(QUERIES, room)
    rest = work[112 * room :].view(np.float32)
    mixed, sums = rest[: QUERIES * WIDTH].reshape(QUERIES, WIDTH), rest[QUERIES * WIDTH :]
    _pack_keys(qkv, (heads + head) * width, width, keys)
    _pack_values(qkv, (2 * heads + head) * width, width, values)
    factor = np.float32(math.log2(math.e) / math.sqrt(width))
    row, queries = qkv.strides[0], qkv.ctypes.data + 2 * head * width
    for start in range(0, frames, QUERIES):
        begin = min(start, frames - QUERIES)  # the last answers some again
        asked = queries + begin * row
        if len(amx):
            tiles.scores(asked, row, keys.ctypes.data, blocks, given.ctypes.data, given.strides[0])
        else:
            bf16.scores(asked, row, keys.ctypes.data, blocks, given.ctypes.data, given.strides[0])
        for q in range(QUERIES):
            given[q, frames:] = -np.inf
            sums[q] = tiles.softmax(given[q].ctypes.data, blocks, factor, weights[q].ctypes.data)
        if len(amx):
            tiles.mixed(weights.ctypes.data, weights.strides[0], values.ctypes.data, blocks, mixed.ctypes.data)
        else:
            bf16.mixed(weights.ctypes.data, weights.strides[0], values.ctypes.data, blocks, mixed.ctypes.data)
        _finish(mixed, sums, width, out[begin : begin + QUERIES, head * width : (head + 1) * width])


@_compiled
def _serve(amx: Any, told: Any) -> None:
    """What each thread does of a call: heads, until none is left."""
    at = told.ctypes.data
    rows, frames, heads, width, length = told[_ROWS], told[_FRAMES], told[_HEADS], told[_WIDTH], told[_LENGTH]
    qkv = carray(pointer(told[_QKV]), (rows, frames, 3 * heads * width), np.uint16)
    out = carray(pointer(told[_OUT]), (rows, frames, heads * width), np.uint16)
    work = carray(pointer(told[_WORK] + 4 * length * count_up(at + 8 * _COME)), (length,), np.uint32)
    kept = work[length - tiles.SETUP // 4 :].ctypes.data
    if len(amx):
        tiles.begin(told[_SETUP], kept)
    part = count_up(at + 8 * _TAKEN)
    while part < rows * heads:
        _head(amx, qkv[part // heads], part % heads, heads, width, out[part // heads], work)
        part = count_up(at + 8 * _TAKEN)
    if len(amx):
        tiles.end(kept)


def _with_tiles(told: Any) -> None:
    _serve((0,), carray(told, (_TOLD,), np.int64))


def _with_vectors(told: Any) -> None:
    _serve((), carray(told, (_TOLD,), np.int64))


@cache
def _entry(amx: bool) -> Any:
    """What a thread enters by, compiled; it must be held for as long as its `address` is used."""
    return called_from_c(types.void(types.voidptr))(_with_tiles if amx else _with_vectors)


def _length(frames: int) -> int:
    """What a thread needs to work in: keys, values, scores, weights; answers, sums, how tiles were set up."""
    return 112 * (-(-frames // 32) * 32) + QUERIES * WIDTH + QUERIES + tiles.SETUP // 4


def fits(frames: int, width: int) -> bool:
    """Whether it can be done for so many frames and so wide a head."""
    return frames >= QUERIES and _NARROWEST <= width <= WIDTH and width % 16 == 0


def attention(qkv: Tensor, heads: int, amx: bool | None = None) -> Tensor:
    """bfloat16 `[B, T, 3 * H * D]`, contiguous: queries, keys, values; to `[B, T, H * D]`.

    `amx` tells whether it is multiplied in tiles; where it does not, they are used if there are any.
    """
    rows, frames, inner = qkv.shape
    out, threads, length = qkv.new_empty(rows, frames, inner // 3), torch.get_num_threads(), _length(frames)
    work, setup = torch.empty(threads * length, dtype=torch.int32), tiles.setup()
    told = np.zeros(_TOLD, np.int64)
    told[:_TAKEN] = [
        qkv.data_ptr(), out.data_ptr(), work.data_ptr(), length, setup.ctypes.data, rows, frames, heads,
        inner // (3 * heads),
    ]  # fmt: skip
    entry = _entry(tiles.available("bf16") if amx is None else amx)
    _parallel()(entry.address, told.ctypes.data, threads, 0)
    return out

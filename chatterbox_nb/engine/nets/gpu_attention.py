"""A new position's attention to all before it, on a GPU: rotated, cached, and a part of the positions a program.

The program that finishes last for a head puts the parts together.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

PART = 64  # positions that a program attends to; measured on an H200
_WARPS = 2


@triton.jit
def _attend(
    qkv, cosine, sine, positions, keys, values, parts, peaks, totals, come, y, heads, row_stride, head_stride, factor,
    LINE: tl.constexpr, W: tl.constexpr, BLOCK_W: tl.constexpr, PART: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """One head of one row, over one part of the positions; the part with the new one in it stores its key and value."""
    row, head, part = tl.program_id(0) // heads, tl.program_id(0) % heads, tl.program_id(1)
    position = tl.load(positions + row // LINE)
    i = tl.arange(0, BLOCK_W)
    inside = i < W
    begin = part * PART
    if begin <= position:
        # Rotated: each number is turned with the one half a head away.
        partner = (i + W // 2) % W
        sign = tl.where(i < W // 2, -1.0, 1.0)
        turn = tl.load(cosine + position * W + i, mask=inside, other=0.0)
        across = tl.load(sine + position * W + i, mask=inside, other=0.0) * sign
        at = qkv + (row * 3 * heads + head) * W
        query = tl.load(at + i, mask=inside, other=0.0) * turn
        query += tl.load(at + partner, mask=inside, other=0.0) * across
        at += heads * W
        key = tl.load(at + i, mask=inside, other=0.0) * turn + tl.load(at + partner, mask=inside, other=0.0) * across
        at += heads * W
        value = tl.load(at + i, mask=inside, other=0.0)
        cached = row.to(tl.int64) * row_stride + head * head_stride
        key = key.to(keys.dtype.element_ty)
        value = value.to(values.dtype.element_ty)
        owner = position < begin + PART
        new = cached + position * W + i
        tl.store(keys + new, key, mask=inside & owner)
        tl.store(values + new, value, mask=inside & owner)

        t = begin + tl.arange(0, PART)
        before = t < position
        there = before[:, None] & inside[None, :]
        place = cached + t[:, None] * W + i[None, :]
        known = tl.load(keys + place, mask=there, other=0.0).to(tl.float32)
        heard = tl.load(values + place, mask=there, other=0.0).to(tl.float32)
        score = tl.where(before, tl.sum(known * query[None, :], axis=1) * factor, float("-inf"))
        own = tl.where(owner, tl.sum(key.to(tl.float32) * query, axis=0) * factor, float("-inf"))
        peak = tl.maximum(tl.max(score, axis=0), own)
        share = tl.exp(score - peak)
        own_share = tl.exp(own - peak)
        mixed = tl.sum(share[:, None] * heard, axis=0) + own_share * value.to(tl.float32)
        total = tl.sum(share, axis=0) + own_share
        if PARTS == 1:
            tl.store(y + tl.program_id(0) * W + i, mixed / total, mask=inside)
        else:
            tall = tl.num_programs(0)
            out = part * tall + tl.program_id(0)
            tl.store(parts + out * W + i, mixed, mask=inside)
            tl.store(peaks + out, peak)
            tl.store(totals + out, total)
            tl.debug_barrier()  # all of it is there before this part counts as come
            count = position // PART + 1
            if tl.atomic_add(come + tl.program_id(0), 1) == count - 1:
                p = tl.arange(0, PARTS)
                active = p < count
                from_part = p * tall + tl.program_id(0)
                each = tl.load(peaks + from_part, mask=active, other=float("-inf"))
                weight = tl.exp(each - tl.max(each, axis=0))
                summed = tl.sum(weight * tl.load(totals + from_part, mask=active, other=0.0), axis=0)
                both = active[:, None] & inside[None, :]
                found = tl.load(parts + from_part[:, None] * W + i[None, :], mask=both, other=0.0)
                tl.store(y + tl.program_id(0) * W + i, tl.sum(weight[:, None] * found, axis=0) / summed, mask=inside)
                tl.store(come + tl.program_id(0), 0)


@dataclass(frozen=True)
class Parts:
    """What the parts of the positions leave for the last: float32 `[P, M * H, W]`, largest scores and sums, a count.

    P parts hold all positions.
    """

    values: Tensor
    peaks: Tensor
    totals: Tensor
    come: Tensor

    @classmethod
    def empty(cls, rows: int, heads: int, width: int, positions: int, device: torch.device) -> Parts:
        count = triton.cdiv(positions, PART)
        return cls(
            torch.empty(count, rows * heads, width, device=device),
            torch.empty(count, rows * heads, device=device),
            torch.empty(count, rows * heads, device=device),
            torch.zeros(rows * heads, dtype=torch.int32, device=device),
        )


def attend(
    qkv: Tensor,
    cosine: Tensor,
    sine: Tensor,
    positions: Tensor,
    keys: Tensor,
    values: Tensor,
    parts: Parts,
    y: Tensor,
    rows_a_line: int,
) -> None:
    """Adds a position to the cache, and attends to it and to all before it.

    Args:
        qkv: float32 `[M, 3 * H * W]`.
        cosine, sine: rotary tables, float32 `[T, W]`.
        positions: int32 `[M / rows_a_line]`, of the new position of each line.
        keys, values: a layer's, `[R, H, T, W]`; the M rows are the first of them.
        parts: for as many rows or more, and as many positions.
        y: float32 `[M, H * W]`.
    """
    rows, heads, width = len(y), keys.shape[1], keys.shape[3]
    count = triton.cdiv(keys.shape[2], PART)
    _attend[(rows * heads, count)](
        qkv, cosine, sine, positions, keys, values, parts.values, parts.peaks, parts.totals, parts.come, y,
        heads, keys.stride(0), keys.stride(1), width**-0.5, LINE=rows_a_line, W=width,
        BLOCK_W=triton.next_power_of_2(width), PART=PART, PARTS=triton.next_power_of_2(count), num_warps=_WARPS,
    )  # fmt: skip

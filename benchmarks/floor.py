"""What the machine can do at the most, whatever computes on it: `python -m benchmarks.floor` prints a line of JSON.

The memory that is read in a second, and the multiplications: no token is faster than its weights are read, no mel
than its matrices are multiplied.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.worker import timed
from chatterbox_nb.precision import huge

RUNS = 9
READ_BYTES = 10**9
ROWS, WIDTH, OUT = 512, 1024, 4096


def measure() -> dict[str, Any]:
    """Medians: GB a second, and 10⁹ operations a second by dtype."""
    found: dict[str, Any] = {"read_bytes": READ_BYTES, "multiplied": [ROWS, WIDTH, OUT], "runs": RUNS}
    read = huge.empty([READ_BYTES // 4], torch.float32).fill_(1)
    found["gigabytes_per_second"] = _rate(lambda: read.sum(), READ_BYTES)
    x, weight = torch.randn(ROWS, WIDTH), torch.randn(OUT, WIDTH)
    work = 2 * ROWS * WIDTH * OUT
    found["fp32_gflops"] = _rate(lambda: F.linear(x, weight), work)
    x16, weight16 = x.bfloat16(), weight.bfloat16()
    found["bf16_gflops"] = _rate(lambda: F.linear(x16, weight16), work)
    x8, weight8 = (torch.randint(-127, 128, tensor.shape, dtype=torch.int8) for tensor in (x, weight))
    found["int8_gops"] = _rate(lambda: torch._int_mm(x8, weight8.t()), work)
    return found


def _rate(work: Callable[[], Any], amount: int) -> float:
    """10⁹ a second, after a first call that warms it up."""
    work()
    return amount / 1e9 / statistics.median(timed(work)[1] for _ in range(RUNS))


if __name__ == "__main__":
    with torch.inference_mode():
        print(json.dumps(measure()))

"""What numba compiles for a model on a CPU: when it can be, and that it is done at load."""

from __future__ import annotations

import torch

from chatterbox_nb.checkpoint.spec import S3GenDims, T3Dims
from chatterbox_nb.engine.nets.estimator import Estimator
from chatterbox_nb.engine.nets.llama import Cache
from chatterbox_nb.engine.nets.t3 import T3
from chatterbox_nb.errors import PrecisionError, summary
from chatterbox_nb.precision.plan import Plan

_WIDEST = 8192  # products of int8 and int16 that the compiled step sums


def fits(dims: T3Dims) -> bool:
    """Whether a compiled step can be made for these sizes: whole vectors, and sums that an int32 holds."""
    sizes = (dims.width, dims.ffn, dims.head_width)
    return not any(size % 16 for size in sizes) and max(sizes) <= _WIDEST


def tiles_attention(planned: Plan, dims: S3GenDims) -> bool:
    """Whether the flow's attention is the compiled one (`nets/tiled.py`)."""
    if planned.kernel != "fused" or planned.device != "cpu" or planned.flow_compute != "bfloat16":
        return False
    from chatterbox_nb.engine.nets import tiled

    return tiled.available() and tiled.fits(tiled.QUERIES, dims.estimator_head_width)


def warm_up(t3: T3, estimator: Estimator) -> None:
    """Compiles T3's step for one chunk, guided where T3 can be, and the flow's attention where it is.

    Seconds once, then .1 s.

    Raises:
        PrecisionError: one cannot be compiled here.
    """
    problem = ""
    try:
        with torch.inference_mode():
            _first_step(t3)
            if estimator.tiled:
                _first_attention()
    except Exception as error:  # whatever a compiler and its threads may meet
        problem = summary(error)
    if problem:
        raise PrecisionError(f"T3's step cannot be compiled here ({problem}). Load with --kernel plain.")


def _first_step(t3: T3) -> None:
    from chatterbox_nb.engine.nets.stepper import Place, Stepper, kept_as

    rows = 1 if t3.dims.gpt2 else 2  # with guidance, which a GPT-2 has not
    cache = Cache.empty(t3.dims, rows, 1, torch.device("cpu"), kept_as(t3))
    with Stepper(t3, torch.get_num_threads()) as stepper:
        stepper(torch.zeros(rows, t3.dims.width), [Place(cache, row, 0) for row in range(rows)])


def _first_attention() -> None:
    from chatterbox_nb.engine.nets import tiled

    tiled.attention(torch.zeros(1, tiled.QUERIES, 3 * tiled.WIDTH, dtype=torch.bfloat16), 1)

"""Intervals of what was measured on a sample, by drawing the sample anew."""

from __future__ import annotations

from typing import Any

import numpy as np

_RESAMPLES = 10_000


def interval(amounts: np.ndarray[Any, Any], weights: np.ndarray[Any, Any], digits: int = 2) -> list[float]:
    """95 % of an amount for each unit of weight, over samples drawn with replacement; both `[n]`."""
    drawn = np.random.default_rng(0).integers(0, len(weights), (_RESAMPLES, len(weights)))
    rates = amounts[drawn].sum(1) / weights[drawn].sum(1)
    return [round(float(bound), digits) for bound in np.percentile(rates, [2.5, 97.5])]

"""What `make bench` makes of its runs."""

from __future__ import annotations

import pytest

from benchmarks import cpu


def test_numbers_that_vary_become_medians_with_their_spread() -> None:
    runs = [
        {"load_seconds": load, "kernel": "fused", "seconds": {"mel": mel}} for load, mel in ((3, 9), (1, 9), (2, 9))
    ]
    assert cpu.merged(runs) == {
        "load_seconds": 2,
        "kernel": "fused",
        "seconds": {"mel": 9},
        "spread": {"load_seconds": [1, 3]},
    }


def test_what_only_some_runs_have_is_kept() -> None:
    assert cpu.merged([{"voice": {"total": 7.0}}, {}])["voice"] == {"total": 7.0}


def test_what_must_not_vary_may_not() -> None:
    with pytest.raises(AssertionError, match="tokens differs"):
        cpu.merged([{"tokens": 225}, {"tokens": 224}])


@pytest.mark.parametrize(("total", "again"), [(5.0, True), (7.0, False)])
def test_a_voice_that_takes_long_is_prepared_once(total: float, again: bool) -> None:
    assert cpu._affordable([])
    assert cpu._affordable([{"voice": {"total": total}}]) == again

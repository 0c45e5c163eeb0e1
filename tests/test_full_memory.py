"""The English model's true size: what a load and ten switches leave in memory (`make oracle-full`).

In processes of their own, with the imports done before. Targets are those of the memory guide.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chatterbox_nb.checkpoint import synthetic

pytestmark = [pytest.mark.full, pytest.mark.xdist_group("full")]

LOADING = """
import json, sys
import chatterbox_nb as tts
from chatterbox_nb import usage
from chatterbox_nb.checkpoint import reference
reference.import_package()
import chatterbox_nb.engine.model, chatterbox_nb.engine.pipeline
before = usage.process_bytes()
with usage.PeakMeter() as meter:
    report = tts.load("english", precision="int8", source=sys.argv[1])
found = {"cache": report.cache, "bytes": report.bytes, "seconds": sum(report.seconds.values()),
         "ratios": list(report.ratios.values()), "growth": usage.process_bytes() - before, "peak": meter.peak - before}
print(json.dumps(found))
"""
SWITCHING = """
import json, sys
import chatterbox_nb as tts
from chatterbox_nb import usage
def load(precision): return tts.load("english", precision=precision, source=sys.argv[1])
for precision in ("int8", "fp16", "int8"): load(precision)
before, left = usage.process_bytes(), []
for precision in ("fp16", "int8") * 5:
    report = load(precision)
    left.append(usage.process_bytes() - before)
print(json.dumps(left))
"""


@pytest.fixture(scope="module")
def folder() -> Path:
    return synthetic.kept_full(Path(__file__).parent.parent / "out" / "full")


def told(program: str, folder: Path) -> Any:
    done = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_int8_takes_what_is_claimed_first_and_from_disk(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANTIZED_CACHE_DIR", str(tmp_path / "quantized"))
    first, kept = told(LOADING, folder), told(LOADING, folder)
    print(f"\nfirst: {first}\nkept: {kept}")
    assert (first["cache"], kept["cache"]) == ("written", "read")
    assert first["bytes"] == kept["bytes"]
    shipped, own_fp32, own_fp16 = kept["ratios"]
    assert shipped <= 0.21
    assert own_fp32 <= 0.255
    assert own_fp16 <= 0.495
    assert first["peak"] <= 1.0e9  # its own copy is given back layer by layer, as the file takes its place
    assert kept["peak"] <= 0.95e9


def test_ten_switches_do_not_grow(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTIZED_CACHE_DIR", str(tmp_path / "quantized"))
    left = told(SWITCHING, folder)
    print(f"\n{[round(size / 1e6) for size in left]} MB after each switch")
    assert max(left[1::2]) < 80e6  # int8 again, each time; glibc keeps up to 64 MB

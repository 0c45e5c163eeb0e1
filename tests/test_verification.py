"""A machine is verified: the demo voice, on a CPU, into one file; and the README's table of such files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import verified
from chatterbox_nb import verification

# They share a run of some seconds; `verify.ipynb`, which `make test` runs, shows nearly as much.
pytestmark = [pytest.mark.xdist_group("verification"), pytest.mark.more]


@pytest.fixture(scope="module")
def told() -> list[str]:
    return []


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, told: list[str]) -> Path:
    return verification.run("demo", "cpu", tmp_path_factory.mktemp("verified"), told.append)


@pytest.fixture(scope="module")
def found(report: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads(report.read_text())
    return results


def test_fp32_is_the_package(found: dict[str, Any]) -> None:
    oracle = found["oracle"]
    assert oracle["equal_tokens"] == oracle["tokens"] == 64
    assert oracle["mel_distance"] <= 1e-4
    assert oracle["wave_distance"] <= 1e-5
    assert oracle["held"] is True


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_precision_is_loaded_measured_and_spoken_with(found: dict[str, Any], precision: str) -> None:
    figures = found["precisions"][precision]
    assert figures["device"] == "cpu"
    assert figures["bytes"] == figures["expected_bytes"]
    assert len(figures["ratios"]) == 3
    assert figures["load_seconds"] > 0
    assert figures["memory"]["peak"] > figures["bytes"]
    for take in figures["takes"]:
        assert take["finish"] == "stop"
        assert take["audio_seconds"] > 3
        assert take["real_time_factor"] == pytest.approx(sum(take["seconds"].values()) / take["audio_seconds"])


def test_the_file_is_named_by_the_device_and_the_day(report: Path, found: dict[str, Any]) -> None:
    assert report.name.startswith("verified-")
    assert report.name.endswith(f"-{found['date']}.json")
    assert found["versions"].keys() >= {"python", "torch", "chatterbox-tts", "chatterbox-nb"}
    assert found["title"] == verification.device_title("cpu")


def test_every_step_is_told_as_it_ends(report: Path, told: list[str]) -> None:
    assert [line.split(":")[0] for line in told] == [
        "fp32", "the package's own numbers", "fp16", "bf16", "int8", "written",
    ]  # fmt: skip
    assert "64 of 64 tokens equal" in told[1]


def test_what_fails_is_written_down_and_the_rest_goes_on(tmp_path: Path) -> None:
    found = json.loads(verification.run("demo", "cuda:99", tmp_path).read_text())
    failures = [found["precisions"][precision]["failure"] for precision in verified.PRECISIONS]
    assert all(failure.startswith("PrecisionError: This machine has no device 'cuda:99'") for failure in failures)
    assert found["oracle"] == {"failure": "fp32 did not load."}
    assert found["device"] == "none"


def test_a_file_becomes_a_row(report: Path, tmp_path: Path) -> None:
    assert verified.add(report, tmp_path).parent == tmp_path
    row = verified.table(tmp_path).splitlines()[2]
    assert row.startswith(f"| {verification.device_title('cpu')} (`cpu`), torch ")
    assert "64 of 64 tokens equal" in row
    assert "| 0.0298 GB, × " in row


def test_a_failure_is_in_its_cell(report: Path, tmp_path: Path) -> None:
    found = json.loads(report.read_text())
    found["precisions"]["int8"] = {"failure": "OutOfMemory: a | b"}
    (tmp_path / report.name).write_text(json.dumps(found))
    assert verified.table(tmp_path).splitlines()[2].endswith("| failed: OutOfMemory: a \\| b |")


@pytest.mark.parametrize("content", ["{}", "no JSON", "[]"])
def test_another_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "verified-other.json"
    path.write_text(content)
    with pytest.raises(SystemExit, match=r"verified-other\.json is no verified-<device>-<date>\.json"):
        verified.add(path, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_the_readme_has_every_machine_of_the_folder() -> None:
    made = verified.README.read_text(encoding="utf-8").split(verified.BEGIN)[1].split(verified.END)[0].strip()
    assert made == verified.table()

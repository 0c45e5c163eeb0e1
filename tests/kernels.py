"""Runs the panels in a kernel of every ipykernel that matters: `make test-kernels`.

6.17 is Colab's, 6.30 is of the last without subshells; 7.3 and 7.4 answer a page on other threads than they run cells
on. Each is put in front of the one that is installed, without its dependencies.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
VERSIONS = ("6.17.1", "6.30.1", "7.3.0", "7.4.0")
TESTS = "tests/test_panels_in_a_kernel.py"
# The oldest is older than this Python, and warns of it.
WARNINGS = ("-W", "ignore::DeprecationWarning", "-W", "ignore::ResourceWarning")


def main() -> None:
    failed = []
    for version in VERSIONS:
        print(f"== ipykernel {version}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            _install(version, folder)
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join([folder, str(ROOT / "tests")])}
            told = _run("-c", "import ipykernel; print(ipykernel.__version__)", env=environment, capture_output=True)
            if told.stdout.strip() != version:
                raise SystemExit(f"ipykernel {version} was to run, and {told.stdout or told.stderr} did.")
            command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *WARNINGS, TESTS]
            failed += [version] if _run(*command, env=environment).returncode else []
    if failed:
        raise SystemExit(f"failed with ipykernel {', '.join(failed)}")


def _install(version: str, folder: str) -> None:
    command = ["uv", "pip", "install", "--quiet", "--python", sys.executable, "--target", folder, "--no-deps"]
    _run("-m", *command, f"ipykernel=={version}", check=True)


def _run(*arguments: str, check: bool = False, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, check=check, text=True, **options)  # type: ignore[call-overload,no-any-return]


if __name__ == "__main__":
    main()

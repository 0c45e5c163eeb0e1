"""Installs the wheel into a fresh environment of each Python there is, and speaks: `make test-pythons`.

Not a pytest file: each environment takes a minute and several gigabytes while it lives.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
VERSIONS = ("3.10", "3.11", "3.12", "3.13")
PROGRAM = (
    "import sys, chatterbox_nb as tts; report = tts.load('demo', precision='int8'); "
    "take = tts.speak('The brown spring wants the orange street.', seed=7); assert take.finish == 'stop'; "
    "import torch, numpy, transformers; "
    "print('Python', sys.version.split()[0], 'torch', torch.__version__, 'numpy', numpy.__version__, "
    "'transformers', transformers.__version__, '->', take)"
)


def main() -> None:
    scratch = Path(tempfile.mkdtemp())
    try:
        tools = scratch / "tools"
        subprocess.run([sys.executable, "-m", "venv", str(tools)], check=True)
        subprocess.run([str(tools / "bin" / "pip"), "install", "--quiet", "uv", "build"], check=True)
        uv, python = str(tools / "bin" / "uv"), str(tools / "bin" / "python")
        subprocess.run(
            [python, "-m", "build", "--wheel", "--outdir", str(scratch), str(ROOT)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        (wheel,) = scratch.glob("*.whl")
        failed = [version for version in VERSIONS if not _speaks(uv, version, wheel, scratch)]
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if failed:
        raise SystemExit(f"failed on Python {', '.join(failed)}")


def _speaks(uv: str, version: str, wheel: Path, scratch: Path) -> bool:
    """Whether it speaks in a fresh environment of that version; True where there is no such Python."""
    environment = scratch / f"python{version}"
    made = subprocess.run(
        [uv, "venv", "--quiet", "--python", version, str(environment)], capture_output=True, text=True, check=False
    )
    if made.returncode:
        print(f"Python {version}: not on this machine, skipped")
        return True
    python = str(environment / "bin" / "python")
    installed = subprocess.run([uv, "pip", "install", "--quiet", "--python", python, str(wheel)], check=False)
    spoke = (
        installed.returncode == 0 and subprocess.run([python, "-c", PROGRAM], cwd=scratch, check=False).returncode == 0
    )
    shutil.rmtree(environment, ignore_errors=True)
    return spoke


if __name__ == "__main__":
    main()

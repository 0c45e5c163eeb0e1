"""Which Chromium the tests drive: the one that is here, or Debian's."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

NAMES = ("chromium", "chromium-headless-shell", "google-chrome")
PACKAGES = ("chromium-headless-shell", "chromium")  # the small one is not in every Debian
FONTS = "fonts-dejavu-core"  # without any, text takes no room, and everything fits
MISSING = (
    "There is no Chromium for the browser tests. Install one (Debian: apt-get install chromium), "
    "or say where it is: CHROMIUM=/path/to/chromium make test-browser"
)


class NoChromium(Exception):
    """There is no browser here, and it cannot be installed."""


def path() -> str:
    """The executable; installs it where that is possible, and raises where it is not."""
    if named := os.environ.get("CHROMIUM"):
        if found := shutil.which(named):
            return found
        raise NoChromium(f"CHROMIUM={named} is not a program.")
    found = _here() or _installed()
    if not found:
        raise NoChromium(MISSING)
    return found


def _here() -> str | None:
    return next((found for name in NAMES if (found := shutil.which(name))), None)


def _installed() -> str | None:
    """Debian's, as on a CI machine, where we are root."""
    if os.geteuid() != 0 or not shutil.which("apt-get") or not Path("/etc/debian_version").exists():
        return None
    _apt("update")
    for package in PACKAGES:
        if _apt("install", "--yes", "--no-install-recommends", package, FONTS):
            return _here()
    return None


def _apt(*arguments: str) -> bool:
    command = ["apt-get", "--quiet", *arguments]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    return subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0

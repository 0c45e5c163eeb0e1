"""A JupyterLab of its own: no home, settings, signatures, voices or network of whoever runs the tests."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.error import URLError

from chatterbox_nb import settings

STARTS_WITHIN = STOPS_WITHIN = 60.0
ANNOUNCEMENTS = "@jupyterlab/apputils-extension:announcements"  # asks whether to fetch news, and fetches
FOREIGN = ("JUPYTER", "IPYTHON", "XDG_", "HF_", "PYTHON")


class Server:
    """Serves `notebooks`, a folder in `folder`, at `url`; its kernels are this very Python."""

    def __init__(self, folder: Path, log: Path) -> None:
        self.notebooks = folder / "notebooks"
        self.settings = folder / "settings"
        self.log = log
        for each in (self.notebooks, self.settings):
            each.mkdir()
        _without_announcements(folder / "config")
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        with log.open("wb") as written:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "jupyterlab", *self._options(port)],
                env=_variables(folder),
                stdout=written,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl+C is pytest's, which then stops this
            )
        self._wait()

    def _options(self, port: int) -> list[str]:
        return [
            "--no-browser",
            "--allow-root",
            "--ServerApp.ip=127.0.0.1",
            f"--ServerApp.port={port}",
            "--ServerApp.port_retries=0",
            f"--ServerApp.root_dir={self.notebooks}",
            "--IdentityProvider.token=",
            "--PasswordIdentityProvider.hashed_password=",
            "--ServerApp.disable_check_xsrf=True",
            "--LabApp.expose_app_in_browser=True",
            f"--LabApp.user_settings_dir={self.settings}",
        ]

    def _wait(self) -> None:
        deadline = time.monotonic() + STARTS_WITHIN
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/api/status", timeout=5):
                    return
            except (URLError, OSError):
                time.sleep(0.1)
        self.stop()
        raise RuntimeError(f"JupyterLab did not start. It said:\n{self.log.read_text(errors='replace')[-2000:]}")

    def stop(self) -> None:
        """Ends it and its kernels."""
        self._process.terminate()
        try:
            self._process.wait(STOPS_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _variables(folder: Path) -> dict[str, str]:
    """The environment of the server, and so of the kernels."""
    ours = {setting.variable for setting in settings.SETTINGS}
    kept = {name: value for name, value in os.environ.items() if name not in ours and not name.startswith(FOREIGN)}
    folders = {
        "HOME": "home",
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",  # the signatures of trusted notebooks
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
        "VOICE_LIBRARY_DIR": "voices",
        "QUANTIZED_CACHE_DIR": "quantized",
    }
    return {
        **kept,
        **{name: str(folder / each) for name, each in folders.items()},
        "JUPYTER_PREFER_ENV_PATH": "1",
        "CHATTERBOX_NB_MODEL": "demo",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHON_DOTENV_DISABLED": "1",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }


def _without_announcements(config: Path) -> None:
    page = config / "labconfig" / "page_config.json"
    page.parent.mkdir(parents=True)
    page.write_text(json.dumps({"disabledExtensions": {ANNOUNCEMENTS: True}}))


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port

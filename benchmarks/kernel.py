"""A Jupyter kernel that is started, asked and measured."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jupyter_client.manager import KernelManager


class Kernel:
    """A kernel that was started; ask it, measure it."""

    def __init__(self, manager: KernelManager, client: Any) -> None:
        self._client = client
        self.process = int(manager.provisioner.pid)

    def ask(self, code: str, expression: str = "1") -> Any:
        """Runs code, then gives the value of an expression."""
        message = self._client.execute(code, user_expressions={"it": expression})
        while (reply := self._client.get_shell_msg(timeout=300))["parent_header"].get("msg_id") != message:
            pass
        content = reply["content"]
        assert content["status"] == "ok", content
        return ast.literal_eval(content["user_expressions"]["it"]["data"]["text/plain"])

    def memory(self) -> dict[str, int]:
        """Bytes: PSS, its parts, and USS."""
        text = Path(f"/proc/{self.process}/smaps_rollup").read_text()
        found = {name: 1024 * int(kib) for name, kib in re.findall(r"^(\w+): +(\d+) kB$", text, re.MULTILINE)}
        return {
            "pss": found["Pss"],
            "anonymous": found["Pss_Anon"],
            "file": found["Pss_File"],
            "uss": found["Private_Clean"] + found["Private_Dirty"],
            "rss": found["Rss"],
        }


@contextmanager
def started(environment: Mapping[str, str] | None = None) -> Iterator[Kernel]:
    """A kernel with nothing imported, and more in its environment than there is here."""
    manager = KernelManager()
    manager.start_kernel(env={**os.environ, "PYDEVD_DISABLE_FILE_VALIDATION": "1", **(environment or {})})
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        yield Kernel(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)

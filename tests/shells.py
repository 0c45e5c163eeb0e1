"""A real IPython kernel in this process, and what it tells a front end while a cell runs."""

from __future__ import annotations

import asyncio
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # the kernel's debugger prints a warning otherwise

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Colab's ipykernel on Python 3.13 warns of itself
    from ipykernel.inprocess.ipkernel import InProcessInteractiveShell, InProcessKernel
    from ipykernel.inprocess.manager import InProcessKernelManager
from traitlets.config import Config

Bundle = dict[str, str]  # MIME type -> content


@dataclass(frozen=True)
class Reply:
    """The messages of one cell, in order."""

    messages: list[tuple[str, dict[str, Any]]]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The contents of the messages of a type."""
        return [content for name, content in self.messages if name == kind]

    @property
    def results(self) -> list[Bundle]:
        """What stands behind `Out[n]`."""
        return [content["data"] for content in self.of("execute_result")]

    @property
    def displays(self) -> list[Bundle]:
        """What was displayed, each in its last state, as a notebook saves it."""
        states: dict[str, Bundle] = {}
        for index, (kind, content) in enumerate(self.messages):
            if kind in ("display_data", "update_display_data"):
                states[content["transient"].get("display_id", str(index))] = content["data"]
        return list(states.values())

    @property
    def drawn(self) -> list[Bundle]:
        """Every display and every update."""
        return [content["data"] for kind, content in self.messages if kind in ("display_data", "update_display_data")]

    @property
    def players(self) -> list[str]:
        """The HTML of everything with a player in it, however it was shown."""
        shown = [bundle.get("text/html", "") for bundle in (*self.results, *self.displays)]
        return [html for html in shown if "<audio" in html]

    @property
    def printed(self) -> str:
        return "".join(content["text"] for content in self.of("stream"))

    @property
    def help(self) -> str:
        """What the pager shows."""
        return "".join(content["text"] for content in self.of("page"))

    @property
    def error(self) -> str | None:
        """What a person reads of the error."""
        errors = self.of("error")
        return "\n".join(errors[0]["traceback"]) if errors else None

    @property
    def error_name(self) -> str | None:
        errors = self.of("error")
        return errors[0]["ename"] if errors else None


class Kernel:
    """An IPython kernel as a notebook has it, with `%load_ext chatterbox_nb` done."""

    def __init__(self, folder: Path) -> None:
        self._environment = dict(os.environ)  # a kernel colours the output of everything after it
        config = Config(
            InProcessInteractiveShell={"ipython_dir": str(folder)},
            HistoryManager={"enabled": False},
        )
        self._manager = InProcessKernelManager(config=config)
        self._manager.start_kernel()
        self._kernel: Any = self._manager.kernel
        self._client = self._manager.client()
        self._client.start_channels()

    @property
    def shell(self) -> Any:
        return self._kernel.shell

    def run(self, cell: str) -> Reply:
        """Runs a cell; its error, if any, is in the reply."""
        asked = self._client.execute(cell)
        payload = self._client.get_shell_msg(timeout=10)["content"].get("payload", [])
        messages = [("page", {"text": entry["data"]["text/plain"]}) for entry in payload if entry["source"] == "page"]
        while True:
            message = self._client.get_iopub_msg(timeout=10)
            ours = message["parent_header"].get("msg_id") == asked
            if ours and message["content"].get("execution_state") == "idle":
                return Reply(messages)
            if ours or message["msg_type"] == "stream":  # which has no parent in this kind of kernel
                messages.append((message["msg_type"], message["content"]))

    def complete(self, line: str) -> list[str]:
        """What Tab offers at the end of a line."""
        with warnings.catch_warnings():  # ipykernel warns of its own completer
            warnings.filterwarnings("ignore", "For consistency across implementations", PendingDeprecationWarning)
            self._client.complete(line)
        matches: list[str] = self._client.get_shell_msg(timeout=10)["content"]["matches"]
        return matches

    def ok(self, cell: str) -> Reply:
        """Runs a cell that must not fail."""
        reply = self.run(cell)
        assert reply.error is None, reply.error
        return reply

    def __getitem__(self, name: str) -> Any:
        """A variable of the notebook."""
        return self.shell.user_ns[name]

    def __contains__(self, name: str) -> bool:
        return name in self.shell.user_ns

    def close(self) -> None:
        self._client.stop_channels()
        loop = self._kernel.iopub_thread.io_loop.asyncio_loop
        asyncio.run_coroutine_threadsafe(_cancel_tasks(), loop).result(10)
        self.shell.restore_sys_module_state()
        self._manager.shutdown_kernel()
        os.environ.clear()
        os.environ.update(self._environment)
        InProcessInteractiveShell.clear_instance()
        InProcessKernel.clear_instance()


async def _cancel_tasks() -> None:
    """The kernel would leave one behind, and asyncio complains of it when this process ends."""
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await asyncio.sleep(0)

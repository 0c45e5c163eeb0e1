"""Panels in a kernel process of its own, driven by messages as a page sends them, while cells run.

`make test-kernels` runs this with every ipykernel that matters.
"""

from __future__ import annotations

import ast
import os
import time
from collections.abc import Iterator
from queue import Empty
from typing import Any

import pytest
from conftest import OTHER_SENTENCE, SENTENCE
from panels import until

os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")

from jupyter_client.manager import KernelManager

pytestmark = pytest.mark.xdist_group("panels in a kernel")  # they share one
PATIENCE = 60.0
LONG = " ".join([SENTENCE, OTHER_SENTENCE] * 15)
SETUP = """
%load_ext chatterbox_nb
import time, chatterbox_nb as tts
from chatterbox_nb import manager
from chatterbox_nb.notebook.panels import pump
panel = tts.panel()
parts = {part.name: part for part in panel._board.parts}
tts.load('demo', 'int8').model
"""


class Process:
    """A kernel and the page that is connected to it."""

    def __init__(self) -> None:
        self.manager = KernelManager()
        self.manager.start_kernel(env={**os.environ, "JUPYTER_PREFER_ENV_PATH": "1", "CHATTERBOX_NB_MODEL": "demo"})
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=PATIENCE)
        self.printed: list[str] = []

    def start(self, code: str) -> str:
        """Sends a cell; it runs while other things are done."""
        message: str = self.client.execute(code)
        return message

    def wait(self, message: str) -> dict[str, Any]:
        """Until a cell has ended: its reply."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            reply: dict[str, Any] = self.client.get_shell_msg(timeout=PATIENCE)
            if reply["parent_header"].get("msg_id") == message and reply["msg_type"] == "execute_reply":
                self.listen()
                content: dict[str, Any] = reply["content"]
                return content
        raise AssertionError(f"no reply within {PATIENCE:g} s")

    def listen(self) -> None:
        """Keeps what was printed, by anyone."""
        while True:
            try:
                message = self.client.get_iopub_msg(timeout=0.05)
            except Empty:
                return
            if message["msg_type"] == "stream":
                self.printed.append(message["content"]["text"])

    def run(self, code: str) -> None:
        reply = self.wait(self.start(code))
        assert reply["status"] == "ok", reply

    def ask(self, expression: str) -> Any:
        """The value of an expression."""
        message = self.client.execute("", silent=True, user_expressions={"it": expression})
        answer = self.wait(message)["user_expressions"]["it"]
        assert answer["status"] == "ok", answer
        return ast.literal_eval(answer["data"]["text/plain"])

    def send(self, widget: str, data: dict[str, Any]) -> None:
        """A message of a page to one of our widgets."""
        content = {"comm_id": self.ask(f"{widget}.model_id"), "data": data}
        self.client.shell_channel.send(self.client.session.msg("comm_msg", content))

    def click(self, button: str) -> None:
        self.send(button, {"method": "custom", "content": {"event": "click"}})

    def write(self, field: str, value: Any) -> None:
        self.send(field, {"method": "update", "state": {"value": value}, "buffer_paths": []})

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def process() -> Iterator[Process]:
    process = Process()
    process.run(SETUP)
    yield process
    process.close()


@pytest.fixture(autouse=True)
def idle(process: Process) -> None:
    process.run("manager.get().submit('waiting', lambda job: None).wait(); tts.takes.clear()")
    process.run("panel._board.root._view_count = 0")
    process.write("parts['speak'].text", OTHER_SENTENCE)


def takes(process: Process) -> int:
    count: int = process.ask("len(tts.takes)")
    return count


def test_a_click_while_a_cell_runs_is_done_after_it_at_the_latest(process: Process) -> None:
    content = {"comm_id": process.ask("parts['speak'].speak.model_id"),
               "data": {"method": "custom", "content": {"event": "click"}}}  # fmt: skip
    cell = process.start("time.sleep(2)")
    process.client.shell_channel.send(process.client.session.msg("comm_msg", content))
    assert process.wait(cell)["status"] == "ok"
    until(lambda: takes(process) == 1, PATIENCE)


def test_cells_run_while_a_panel_speaks(process: Process) -> None:
    process.write("parts['speak'].text", LONG)
    process.click("parts['speak'].speak")
    until(lambda: process.ask("manager.get().busy") == "speaking", PATIENCE)
    for number in range(5):
        assert process.ask(f"{number} + 1") == number + 1
    assert process.ask("manager.get().busy") == "speaking"
    process.click("parts['speak'].stop")
    until(lambda: process.ask("manager.get().busy") is None, 10)
    assert process.ask("'Stopped.' in manager.get().activity().last('take').failure")


def test_a_cell_that_waits_for_the_model_gets_it_while_panels_draw(process: Process) -> None:
    """The cell waits for the model thread, which tells the drawing thread, which sends to the page."""
    process.run("panel._board.root._view_count = 1")
    process.run(f"tts.submit({SENTENCE!r})\n%tts_load demo --precision fp16")
    process.run(f"%tts --quiet --out take {OTHER_SENTENCE}")
    process.run("%tts_load demo --precision int8")
    assert takes(process) == 2
    until(lambda: process.ask("parts['precision'].precision.value") == "int8", 10)
    assert process.ask("[part.notice.value for part in panel._board.parts]") == ["", "", "", ""]


def test_memory_ticks_while_a_cell_runs(process: Process) -> None:
    process.run("panel._board.root._view_count = 1")
    process.run("time.sleep(1.5); before = pump.get().sampled; time.sleep(3.2); after = pump.get().sampled")
    assert 3 <= process.ask("after - before") <= 4


def test_interrupting_a_cell_stops_its_take_and_the_panel_says_so(process: Process) -> None:
    process.run("panel._board.root._view_count = 1")
    cell = process.start(f"tts.submit({LONG!r}).wait()")
    time.sleep(1.5)
    process.manager.interrupt_kernel()
    reply = process.wait(cell)
    assert (reply["status"], reply["ename"]) == ("error", "Cancelled")
    until(lambda: "Stopped." in process.ask("parts['speak'].notice.value"), 10)


def test_a_page_that_opens_gets_the_whole_state(process: Process) -> None:
    """JupyterLab asks for it over a channel of its own."""
    process.run("panel._board.root._view_count = 3")
    process.send("panel._board.root", {"method": "request_state"})
    until(lambda: process.ask("panel._board.root._view_count") == 0, 10)


def test_nobody_printed_anything(process: Process) -> None:
    process.listen()
    assert process.printed == []


def test_it_ends_with_panels_open_and_shown() -> None:
    process = Process()
    process.run("%load_ext chatterbox_nb\nimport chatterbox_nb as tts\npanel = tts.panel()")
    process.run("panel._board.root._view_count = 1")
    time.sleep(1.5)
    began = time.monotonic()
    process.client.shutdown()
    until(lambda: not process.manager.is_alive(), 20)
    assert time.monotonic() - began < 15
    process.close()

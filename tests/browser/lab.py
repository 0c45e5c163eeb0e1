"""A notebook as a person has it: open in JupyterLab, run, looked at, saved, opened again by someone else."""

from __future__ import annotations

import itertools
import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Literal

import nbformat
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Error, Locator, Page

from browser.overflow import overflowing
from browser.server import Server

ARTIFACTS = Path(__file__).parents[2] / os.environ.get("OUT", "out") / "browser"
HEIGHT = 1000
PATIENCE = 60_000  # milliseconds; a kernel that imports torch on a busy machine
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}
Theme = Literal["light", "dark"]
# What JupyterLab says by itself, without any output of ours in the page.
CONSOLE_MAY_SAY = (
    r"^Could not restore the debugger state: Canceled future",  # a kernel restarts while the debugger asks it something
)
IN_THE_PAGE = """
async (given) => {
    const app = window.jupyterapp, panel = app.shell.currentWidget, notebook = panel.content;
    const cell = (index) => notebook.model.cells.get(index);
    const late = new Promise((_, no) => setTimeout(() => no(new Error('no answer from JupyterLab')), PATIENCE));
    return Promise.race([late, (async () => { BODY })()]);
}
"""
READY = """
() => {
    const session = window.jupyterapp?.shell.currentWidget?.sessionContext;
    const kernel = session?.session?.kernel;
    return session?.isReady && kernel?.connectionStatus === 'connected' && ['idle', 'busy'].includes(kernel.status)
        && window.jupyterapp.shell.currentWidget.content?.model && !document.querySelector('#jupyterlab-splash');
}
"""
KERNEL_IDLE = "() => window.jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.status === 'idle'"


class Lab:
    """The server and the browser, to open notebooks in."""

    alive: ClassVar[list[Lab]] = []
    _numbers = itertools.count(1)

    def __init__(self, server: Server, browser: Browser) -> None:
        self.server = server
        self.browser = browser
        self._opened: list[Notebook] = []
        self._configured: list[Path] = []
        Lab.alive.append(self)

    def open(self, cells: list[str], width: int = 900, theme: Theme = "light") -> Notebook:
        """A new notebook with these code cells and a kernel, alone in a window of that width."""
        self.configure("@jupyterlab/apputils-extension:themes", theme=THEMES[theme])
        content = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(cell) for cell in cells],
            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        )
        name = f"notebook-{next(self._numbers)}.ipynb"
        nbformat.write(content, self.server.notebooks / name)
        page = self.browser.new_context(viewport={"width": width, "height": HEIGHT}).new_page()
        notebook = Notebook(self.server, page, name)
        self._opened.append(notebook)
        notebook.reload()
        return notebook

    def configure(self, plugin: str, **values: Any) -> None:
        """The settings of a plugin, such as `@jupyterlab/notebook-extension:tracker`, in pages opened after this."""
        extension, name = plugin.split(":")
        path = self.server.settings / extension / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
        self._configured.append(path)

    def take_pictures(self, name: str) -> None:
        """What every notebook of this one looks like now."""
        for number, notebook in enumerate(self._opened, 1):
            with suppress(Error):  # a page that crashed
                notebook.page.screenshot(path=_picture(f"{name}-{number}"))

    def close(self) -> None:
        Lab.alive.remove(self)
        for notebook in self._opened:
            notebook.close()
        for path in self._configured:
            path.unlink(missing_ok=True)


class Notebook:
    """One notebook in a page of its own. Cells are counted from 0."""

    def __init__(self, server: Server, page: Page, name: str) -> None:
        self.page = page
        self.console_errors: list[str] = []
        self._server = server
        self._name = name
        page.set_default_timeout(PATIENCE)
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.console_errors.append(f"uncaught: {error.stack or error.message}"))

    @property
    def path(self) -> Path:
        return self._server.notebooks / self._name

    # Running

    def run(self, index: int, fails: bool = False) -> None:
        """Runs a cell to its end, which must be an error only where that is said."""
        self.run_nowait(index)
        self.wait(index)
        errors = self.errors(index)
        assert bool(errors) == fails, "\n".join(errors) or f"cell {index} did not fail"

    def run_nowait(self, index: int) -> None:
        """Starts a cell."""
        self._ask(
            """
            notebook.activeCellIndex = given;
            notebook.deselectAll();
            const ended = window.ended ??= {};
            ended[given] = false;
            app.commands.execute('notebook:run-cell').finally(() => { ended[given] = true; });
            """,
            index,
        )

    def wait(self, index: int) -> None:
        """Until the cell that was started has ended."""
        self.page.wait_for_function("index => window.ended?.[index]", arg=index)

    def wait_until_idle(self) -> None:
        """Until the kernel has dealt with all it was sent, such as the click on a widget just made."""
        self._ask("await panel.sessionContext.session.kernel.requestKernelInfo()")
        self.page.wait_for_function(KERNEL_IDLE)

    def interrupt(self) -> None:
        self._ask("await panel.sessionContext.session.kernel.interrupt()")

    def restart_kernel(self) -> None:
        """As from the menu: variables and widgets are gone, outputs stay."""
        self._ask("await panel.sessionContext.session.kernel.restart()")
        self.page.wait_for_function(KERNEL_IDLE)

    def clear(self, index: int) -> None:
        """As from the menu: the outputs of a cell go."""
        self._ask("notebook.activeCellIndex = given; await app.commands.execute('notebook:clear-cell-output')", index)

    def wait_until_pictured(self, index: int, text: str) -> None:
        """Until the HTML that will be saved of a cell's outputs has this text; a page may not show it."""
        self.page.wait_for_function(
            """([index, text]) => JSON.stringify(
                window.jupyterapp.shell.currentWidget.content.model.cells.get(index).toJSON().outputs
            ).includes(text)""",
            arg=[index, text],
        )

    # What there is to see

    def cell(self, index: int) -> Locator:
        return self.page.locator(f".jp-Notebook .jp-Cell[data-windowed-list-index='{index}']")

    def output(self, index: int) -> Locator:
        """The area below a cell with all its outputs."""
        return self.cell(index).locator(".jp-Cell-outputArea")

    def errors(self, index: int) -> list[str]:
        """The tracebacks in a cell's output, in words."""
        outputs: list[dict[str, Any]] = self._ask("return cell(given).toJSON().outputs", index)
        tracebacks = ("\n".join(each["traceback"]) for each in outputs if each["output_type"] == "error")
        return [re.sub(r"\x1b\[[\d;]*m", "", traceback) for traceback in tracebacks]

    def screenshot(self, locator: Locator, name: str) -> Path:
        """A picture of all of it, in `out/browser`; the window is as high as that takes for a moment."""
        path = _picture(name)
        size, box = self.page.viewport_size, locator.bounding_box()
        assert size
        assert box
        self.page.set_viewport_size({"width": size["width"], "height": max(size["height"], int(box["height"]) + 400)})
        locator.scroll_into_view_if_needed()
        locator.screenshot(path=path, animations="disabled")
        self.page.set_viewport_size(size)
        return path

    def axe(self, selector: str) -> list[str]:
        """What is wrong for people with a keyboard, a screen reader or poor sight, in what the selector finds."""
        assert self.page.locator(selector).count(), f"there is no {selector}"
        found = Axe().run(self.page, context=selector).response["violations"]
        return [
            f"{rule['id']} ({rule['impact']}): {rule['help']}: {node['html']} {node['failureSummary']}"
            for rule in found
            for node in rule["nodes"]
        ]

    def overflowing(self, locator: Locator, may_scroll: str = "", ellipsis: bool = False) -> list[str]:
        """What is in it and does not fit; see `browser.overflow`."""
        return overflowing(locator, may_scroll, ellipsis)

    def _hear(self, message: ConsoleMessage) -> None:
        said = f"{message.text} ({message.location.get('url', '')})"
        if message.type == "error" and not any(re.search(allowed, said) for allowed in CONSOLE_MAY_SAY):
            self.console_errors.append(said)

    # The window

    def set_theme(self, theme: Theme) -> None:
        self._ask("await app.commands.execute('apputils:change-theme', {theme: given})", THEMES[theme])
        self.page.wait_for_function("name => document.body.dataset.jpThemeName === name", arg=THEMES[theme])

    def set_width(self, pixels: int) -> None:
        self.page.set_viewport_size({"width": pixels, "height": HEIGHT})
        self.page.wait_for_function("pixels => window.innerWidth === pixels", arg=pixels)

    # The file

    def save(self) -> None:
        self._ask("await panel.context.save()")

    def saved(self) -> Any:
        """The notebook as it is on disk."""
        return nbformat.read(self.path, as_version=4)

    @property
    def trusted(self) -> bool:
        """Whether JupyterLab trusts every cell; it cleans the HTML of those that it does not.

        A cell of a new notebook is trusted once it has run, or been saved.
        """
        trusted: bool = self._ask("return [...notebook.model.cells].every((cell) => cell.trusted)")
        return trusted

    def reload(self) -> None:
        """The page anew on the same kernel, with what was saved."""
        self.page.goto(f"{self._server.url}/doc/tree/{self._name}?reset")
        self.page.wait_for_function(READY)

    def close_and_reopen(self, untrusted: bool = False) -> None:
        """Saves, ends the kernel and opens the file again with a new one, here or as if sent by someone else."""
        self.save()
        self._end_kernel()
        if untrusted:
            self._become_foreign()
        self.reload()

    def close(self) -> None:
        with suppress(Error):  # one that never opened; what it left, the server ends
            self._end_kernel()
        self.page.context.close()

    def _become_foreign(self) -> None:
        """A copy of other content, since what is signed is the content and not the name."""
        content = self.saved()
        content.metadata["from"] = "someone else"
        self._name = f"foreign-{self._name}"
        nbformat.write(content, self.path)

    def _end_kernel(self) -> None:
        self._ask("await panel.sessionContext.shutdown()")

    def _ask(self, body: str, given: Any = None) -> Any:
        """Runs JavaScript in the page with `app`, `panel`, `notebook`, `cell(index)` and what is given."""
        return self.page.evaluate(IN_THE_PAGE.replace("PATIENCE", str(PATIENCE)).replace("BODY", body), given)


def _picture(name: str) -> Path:
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    return ARTIFACTS / (re.sub(r"[^\w.-]+", "-", name) + ".png")


def play(audio: Locator) -> tuple[float, float]:
    """Starts a player from the beginning, without a sound; how long it is and how far it came, in seconds."""
    audio.evaluate("async (audio) => { audio.muted = true; audio.currentTime = 0; await audio.play(); }")
    audio.page.wait_for_function("audio => audio.currentTime > 0", arg=audio.element_handle())
    length, at = audio.evaluate("audio => [audio.duration, audio.currentTime]")
    return length, at

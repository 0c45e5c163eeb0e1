"""One JupyterLab and one Chromium for all browser tests; each test opens notebooks of its own.

They end with this folder's tests and not with the session: while Playwright runs, so does its event loop, in which
the kernels of other tests cannot.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from browser import chromium
from browser.lab import ARTIFACTS, Lab
from browser.server import Server

HERE = Path(__file__).parent
OPTIONS = [
    "--no-sandbox",  # Chromium has none for root
    "--autoplay-policy=no-user-gesture-required",
    "--mute-audio",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # no page reaches the network
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that fails leaves pictures of the notebooks that are open."""
    report = yield
    if report.failed and report.when != "teardown":
        for lab in Lab.alive:
            lab.take_pictures(f"failed-{item.name}")
    return report


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    server = Server(tmp_path_factory.mktemp("jupyterlab"), ARTIFACTS / "jupyterlab.log")
    yield server
    server.stop()


@pytest.fixture(scope="package")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    try:
        executable = chromium.path()
    except chromium.NoChromium as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None
    home = {**os.environ, "HOME": str(tmp_path_factory.mktemp("chromium"))}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=OPTIONS, env=home)
        yield browser
        browser.close()


@pytest.fixture
def lab(server: Server, browser: Browser) -> Iterator[Lab]:
    """For notebooks of one test: closed, and their kernels ended, after it."""
    lab = Lab(server, browser)
    yield lab
    lab.close()


@pytest.fixture(scope="module")
def shared_lab(server: Server, browser: Browser) -> Iterator[Lab]:
    """For notebooks that the tests of a file share; a kernel takes ten seconds to start and speak."""
    lab = Lab(server, browser)
    yield lab
    lab.close()

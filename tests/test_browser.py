"""The picker where people meet it: JupyterLab in a headless Chromium, with real keys and clicks.

Needs Debian's `chromium` (or another one, named by the environment variable CHROMIUM); without it the tests are skipped
and say so. Screenshots are left in pytest's temporary folder, or in the one that SCREENSHOTS names.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).resolve().parent.parent / "notebooks" / "06_recommend.ipynb"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
SLOW = 600_000  # ms: the notebook may have to make the data and train the model first

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine: install Debian's `chromium`, or name one in CHROMIUM"
)


class Lab:
    """A JupyterLab of this environment on a free port, with settings of its own, so that a user's change nothing."""

    def __init__(self, root: Path, home: Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.root, self.home, self.token = root, home, secrets.token_hex(16)

    def theme(self, name: str) -> None:
        settings = {
            "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
            "apputils-extension/themes": {"theme": f"JupyterLab {name}"},
            "notebook-extension/tracker": {"windowingMode": "none"},  # all cells are in the page
            "docmanager-extension/plugin": {"autosave": False},
        }
        for plugin, values in settings.items():
            path = self.home / "settings" / "@jupyterlab" / f"{plugin}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(values))

    def __enter__(self) -> Lab:
        self.theme("Light")
        folders = {"CONFIG_DIR": "config", "DATA_DIR": "data", "RUNTIME_DIR": "run"}
        folders |= {"LAB_SETTINGS_DIR": "settings", "LAB_WORKSPACES_DIR": "workspaces"}
        env = os.environ | {
            f"JUPYTER{'' if k.startswith('LAB') else '_'}{k}".replace("JUPYTERLAB_", "JUPYTERLAB_"): str(self.home / v)
            for k, v in folders.items()
        }
        options = [
            "--no-browser", "--allow-root", "--expose-app-in-browser", "--ServerApp.ip=127.0.0.1",
            f"--ServerApp.port={self.port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={self.token}",
            f"--ServerApp.root_dir={self.root}", "--LabApp.extension_manager=readonly",
        ]  # fmt: skip
        self.log = (self.home / "lab.log").open("w")
        command = [sys.executable, "-m", "jupyterlab", *options]
        self.process = subprocess.Popen(command, env=env, stdout=self.log, stderr=self.log, start_new_session=True)
        for _ in range(480):
            assert self.process.poll() is None, (self.home / "lab.log").read_text()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/status?token={self.token}", timeout=2):
                    return self
            except OSError:
                time.sleep(0.25)
        raise TimeoutError("JupyterLab did not start")

    def __exit__(self, *_) -> None:
        self.process.send_signal(signal.SIGTERM)  # it ends its kernels, too
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.log.close()

    def open(self, page, name: str) -> None:
        """Open a notebook and run all its cells."""
        page.goto(f"http://127.0.0.1:{self.port}/lab/tree/{name}?reset&token={self.token}")
        page.locator(".jp-NotebookPanel:visible .jp-CodeCell").first.wait_for(timeout=60_000)
        self.idle(page)
        page.evaluate("() => window.jupyterapp.commands.execute('application:toggle-left-area').catch(() => 0)")
        page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
        self.idle(page)

    def idle(self, page) -> None:
        """Wait until the kernel has nothing to do and what it said has been drawn."""
        page.wait_for_function(
            "() => window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'",
            timeout=SLOW,
        )
        page.evaluate("async () => { for (let i = 0; i < 3; i++) await new Promise(requestAnimationFrame) }")


@pytest.fixture(scope="module")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium):
    page = chromium.new_page(viewport={"width": 1280, "height": 1500})
    page.set_default_timeout(20_000)
    page.errors, page.asked = [], []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("request", lambda request: page.asked.append(request.url))
    yield page
    page.close()


@pytest.fixture
def screenshots(tmp_path) -> Path:
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path / "screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def control(picker, label: str, kind: str = "input, select"):
    """The control with this label, found as a screen reader finds it: by the label itself."""
    return picker.get_by_label(label, exact=True).and_(picker.locator(kind))


def shown(picker) -> dict[str, list[list[str]]]:
    """What the page shows: for each model the rank, track and artist of each row (the extra row of the next left out)."""
    return picker.locator(".answer").evaluate_all(
        """boxes => Object.fromEntries(boxes.map(box => [box.querySelector('caption').textContent,
            [...box.querySelectorAll('tbody tr')].map(row => [row.querySelector('th').textContent,
                row.querySelector('.track').textContent, row.querySelector('.artist').textContent])]))"""
    )


def uris(picker) -> list[str]:
    """The playlist as its own export has it."""
    link = picker.get_by_role("link", name="playlist.m3u8").get_attribute("href")
    text = base64.b64decode(link.split("base64,")[1]).decode()
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def picture(page, picker, path: Path) -> None:
    page.mouse.move(0, 0)
    picker.screenshot(path=path)


def errors(page) -> list[str]:
    """What went wrong in the notebook: exceptions, or anything on stderr."""
    kind = "[data-mime-type='application/vnd.jupyter.stderr'], [data-mime-type='application/vnd.jupyter.error']"
    return page.locator(kind).all_inner_texts()

"""The picker where people meet it: JupyterLab in a headless Chromium, with real keys and clicks.

Needs Debian's `chromium` (or another one, named by the environment variable CHROMIUM); without it the tests are skipped
and say so. Screenshots are left in pytest's temporary folder, or in the one that SCREENSHOTS names.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import numpy as np
import pytest

from sasrec_utils.course import lab
from sasrec_utils.recommender import Recommender
from sasrec_utils.sequences import load_dataset

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "06_recommend.ipynb"
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
        folders = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_WORKSPACES_DIR")
        env = os.environ | {name: str(self.home / name.lower()) for name in folders}
        env["JUPYTERLAB_SETTINGS_DIR"] = str(self.home / "settings")
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


def box(picker, label: str):
    return picker.locator(".widget-slider").filter(has_text=label)


def slider(picker, label: str):
    """The handle of the slider with this label, which takes the keyboard."""
    return box(picker, label).locator(".noUi-handle")


def value(picker, label: str) -> str:
    return box(picker, label).locator(".widget-readout").inner_text()


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


def errors(page) -> list[str]:
    """What went wrong in the notebook: exceptions, or anything on stderr."""
    kind = "[data-mime-type='application/vnd.jupyter.stderr'], [data-mime-type='application/vnd.jupyter.error']"
    return page.locator(kind).all_inner_texts()


# What people do


def test_the_notebook_runs_and_the_picker_follows_every_hand(page, tmp_path, screenshots):
    """Run all cells, then type, pick, slide, remove, ask: what is shown is always what the `Recommender` says."""
    data = lab.open_data(progress=False)
    dataset = load_dataset(data.prepared)
    folder, _ = lab.open_model(data, dataset, full=True, progress=False)
    recommender = Recommender.load(folder)
    root, home = tmp_path / "notebooks", tmp_path / "home"
    root.mkdir()
    shutil.copy(NOTEBOOK, root)
    with Lab(root, home) as server:
        server.open(page, NOTEBOOK.name)
        picker = page.locator(".playlist-picker").first
        picker.locator(".answer").first.wait_for()
        assert errors(page) == []
        # the cells after it have driven this very picker: back to the trained model beside none, ten tracks
        control(picker, "Model").select_option("SASRec")
        control(picker, "Beside it").select_option("nothing")
        server.idle(page)

        def agrees(seen: int | None = None) -> None:
            server.idle(page)
            playlist = uris(picker)
            cut = 0 if seen is None else len(playlist) - seen
            k = int(value(picker, "Show"))
            own = recommender.recommend(playlist[cut:], k, exclude=playlist[:cut]).table
            expected = [[str(r.rank), r.track_name, r.artist_name] for r in own.itertuples()]
            deadline = time.time() + 60
            while shown(picker)["SASRec"][: len(expected)] != expected:  # what was typed may still be on its way
                assert time.time() < deadline, (shown(picker)["SASRec"], expected)
                page.wait_for_timeout(50)

        agrees()
        # type in the search field, letter by letter, and take the first match with Enter
        page.get_by_label("Search", exact=True).fill("")  # a cell has searched before
        page.get_by_label("Search", exact=True).press_sequentially("rainy")
        matches = control(picker, "Playlists").locator("option")
        wait(page, lambda: all("rainy" in text.lower() for text in matches.all_inner_texts() or ["-"]))
        picker.get_by_text(re.compile(r"^\d+ of [\d,]+ playlists")).wait_for()
        before = uris(picker)
        page.get_by_label("Search", exact=True).press("Enter")
        wait(page, lambda: uris(picker) != before)
        agrees()
        # pick the next one with the arrow key, which JupyterLab must not take for itself
        control(picker, "Playlists").focus()
        before = uris(picker)
        page.keyboard.press("ArrowDown")
        wait(page, lambda: uris(picker) != before)
        agrees()
        # a slider, by the keyboard
        handle = slider(picker, "Show")
        handle.focus()
        assert handle.get_attribute("aria-label") == "Show"
        slid = int(value(picker, "Show")) + 3
        for _ in range(3):
            page.keyboard.press("ArrowRight")
        wait(page, lambda: int(value(picker, "Show")) == slid and len(shown(picker)["SASRec"]) >= slid)
        agrees()
        length = len(uris(picker))
        slider(picker, "History").focus()
        page.keyboard.press("Home")
        wait(page, lambda: "see the newest 1" in picker.inner_text())
        agrees(seen=1)
        page.keyboard.press("End")
        wait(page, lambda: "see the newest" not in picker.inner_text())
        # remove a track in the middle, undo it with the mouse
        before = uris(picker)
        control(picker, "Tracks").select_option(index=length - 3)
        picker.get_by_role("button", name="Remove").click()
        wait(page, lambda: uris(picker) == before[: length - 3] + before[length - 2 :])
        agrees()
        picker.get_by_role("button", name="Undo").click()
        wait(page, lambda: uris(picker) == before)
        agrees()
        # letters and arrows in the list of tracks stay there: no cell is cut, the focus stays
        cells = page.locator(".jp-Cell").count()
        control(picker, "Tracks").focus()
        page.keyboard.type("xdd")
        page.keyboard.press("ArrowUp")
        assert page.evaluate("document.activeElement.tagName") == "SELECT"
        assert page.locator(".jp-Cell").count() == cells
        # how long a change takes from the click to the page: the median of twenty, on however busy a machine
        taken = []
        for i in range(20):
            before = uris(picker)
            began = time.perf_counter()
            picker.get_by_role("button", name="Undo" if i % 2 else "Remove").click()
            wait(page, lambda before=before: uris(picker) != before, 5)
            taken.append(1000 * (time.perf_counter() - began))
        (screenshots / "milliseconds.txt").write_text(f"{np.percentile(taken, [50, 95]).round()}\n")
        assert np.median(taken) < 1000
        # two models, and the looks: light and dark, wide and narrow
        control(picker, "Beside it").select_option(index=1)
        page.keyboard.press("Escape")
        server.idle(page)
        for theme in ("Light", "Dark"):
            page.evaluate(
                f"() => window.jupyterapp.commands.execute('apputils:change-theme', {{theme: 'JupyterLab {theme}'}})"
            )
            page.wait_for_function(f"() => document.body.dataset.jpThemeName === 'JupyterLab {theme}'")
            for width in (1280, 600):
                page.set_viewport_size({"width": width, "height": 2600})
                page.wait_for_timeout(400)
                picker.screenshot(path=screenshots / f"picker-{theme.lower()}-{width}.png")
                assert fits(picker)
                assert contrast(picker) >= 4.5
        assert errors(page) == [] and page.errors == []
        assert not [
            url for url in page.asked if not url.startswith((f"http://127.0.0.1:{server.port}/", "data:", "blob:"))
        ]


def wait(page, condition, pause: int = 50) -> None:
    deadline = time.time() + 60
    while not condition():
        assert time.time() < deadline, "nothing happened"
        page.wait_for_timeout(pause)


def fits(picker) -> bool:
    """Nothing stands out of the picker to the right, and no control has shrunk to nothing."""
    return picker.evaluate(
        """root => { const right = root.getBoundingClientRect().right + 1;
            return root.scrollWidth <= root.clientWidth + 1 &&
                [...root.querySelectorAll('select, input, button, table, .noUi-target')].filter(e => e.offsetParent)
                    .every(e => { const r = e.getBoundingClientRect(); return r.right <= right && r.width >= 20 }) }"""
    )


def contrast(picker) -> float:
    """The smallest contrast (WCAG) between text of the predictions and what is behind it."""
    return picker.evaluate(
        """root => { const parse = c => c.match(/[\\d.]+/g).map(Number);
            const over = (top, under) => { const a = top[3] ?? 1; return [0, 1, 2].map(i => a * top[i] + (1 - a) * under[i]) };
            const light = c => c.map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
                .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
            const paper = parse(getComputedStyle(root).backgroundColor);
            return Math.min(...[...root.querySelectorAll('.answer bdi, .answer th, .number, p, caption')].map(e => {
                const a = light(over(parse(getComputedStyle(e).color), paper)), b = light(paper);
                return (Math.max(a, b) + .05) / (Math.min(a, b) + .05) })) }"""
    )


HOSTILE = """
import numpy as np, pandas as pd
from sasrec_utils.baselines import Markov, Popularity
from sasrec_utils.recommender import Recommender
from sasrec_utils.sequences import Sequences
from sasrec_utils.course.picker import PlaylistPicker
bad = ["<script>window.hacked = 1</script>", '"><img src=x onerror="window.hacked = 1">', "</style><h1>bold</h1>",
       "🎧🎵👩‍👩‍👧", "שיר ערש", "أغنية", "\\u202eevil", "line\\nbreak", "x" * 400, "", None, "a &amp; b"]
names = [bad[i % len(bad)] for i in range(300)]
tracks = pd.DataFrame({"track_uri": [f"spotify:track:{i:022d}" for i in range(300)], "track_name": names,
                       "artist_name": names[1:] + names[:1], "album_name": names[2:] + names[:2]})
playlists = Sequences.from_lists([[i % 300 + 1 for i in range(251)], [1, 2, 3]])
models = {m.name: Recommender(m.fit(playlists, 300), tracks) for m in (Markov, Popularity)}
picker = PlaylistPicker(models, playlists, [bad[1], bad[0]], tracks)
picker
"""


def test_hostile_names_stay_text_and_250_tracks_keep_the_layout(page, tmp_path, screenshots):
    root, home = tmp_path / "notebooks", tmp_path / "home"
    root.mkdir()
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(HOSTILE)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, root / "hostile.ipynb")
    with Lab(root, home) as server:
        server.open(page, "hostile.ipynb")
        picker = page.locator(".playlist-picker").first
        picker.locator(".answer").first.wait_for()
        assert errors(page) == []
        control(picker, "Playlists").select_option(index=1)
        control(picker, "Draw").select_option("what removing each track does")
        control(picker, "Playlists").select_option(index=0)
        server.idle(page)
        page.wait_for_timeout(500)
        assert control(picker, "Tracks").locator("option").count() == 250
        for width in (1280, 600):
            page.set_viewport_size({"width": width, "height": 2600})
            page.wait_for_timeout(300)
            picker.screenshot(path=screenshots / f"hostile-{width}.png")
            assert fits(picker)
        assert page.evaluate("window.hacked") is None
        assert picker.locator("h1, script").count() == 0
        assert picker.locator("img").count() == 1  # the picker's own, which keeps keys from JupyterLab
        assert page.errors == []
        box = control(picker, "Tracks").bounding_box()
        assert box["height"] < 500  # a long playlist scrolls

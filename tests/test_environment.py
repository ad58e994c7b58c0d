"""Threads that do not fight: the settings that torch reads when it is loaded are there wherever the project starts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SETTINGS = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS", "PYTEST_XDIST_WORKER")
SHOW = "; ".join(["import os", *(f"print(os.environ.get({name!r}, ''))" for name in SETTINGS[:3])])


def shown(command: list[str], given: str = "", **own: str) -> list[str]:
    """What a command prints in an environment without these settings but a person's own."""
    clean = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    done = subprocess.run(
        command, input=given, capture_output=True, text=True, check=True, cwd=ROOT, env=clean | own, timeout=100
    )
    return done.stdout.splitlines()


def python(code: str, **own: str) -> list[str]:
    return shown([sys.executable, "-c", code], **own)


def test_the_package_sets_a_short_spin_before_torch():
    assert python(f"import sasrec_utils; {SHOW}") == ["10000", "", ""]
    code = (ROOT / "sasrec_utils" / "__init__.py").read_text(encoding="utf-8")
    assert "import torch" not in code and "from sasrec_utils" not in code  # it comes before every import


@pytest.mark.parametrize(("own", "expected"), [
    ({"OMP_WAIT_POLICY": "PASSIVE"}, ["", "PASSIVE", ""]), ({"GOMP_SPINCOUNT": "7"}, ["7", "", ""]),
    ({"OMP_WAIT_POLICY": "ACTIVE", "GOMP_SPINCOUNT": "7"}, ["7", "ACTIVE", ""]),
])  # fmt: skip
def test_what_a_person_has_set_is_kept(own, expected):
    assert python(f"import sasrec_utils; {SHOW}", **own) == expected
    if shutil.which("make"):
        assert made(**own) == expected[:2]


def made(**own: str) -> list[str]:
    """The settings that a target of the Makefile has."""
    target = 'show:\n\t@echo "$$GOMP_SPINCOUNT"\n\t@echo "$$OMP_WAIT_POLICY"\n'
    return shown(["make", "--silent", "-f", "Makefile", "-f", "-", "show"], target, **own)


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_every_target_of_the_makefile_has_it_so_that_kernels_do():
    assert made() == ["10000", ""]


def test_a_test_worker_has_one_thread_and_hands_it_on():
    """The first conftest does it, before any other file is read: also for the kernels that nbval starts."""
    begin = f"import runpy; runpy.run_path('conftest.py'); {SHOW}"
    assert python(begin, PYTEST_XDIST_WORKER="gw0") == ["10000", "", "1"]
    assert python(begin, PYTEST_XDIST_WORKER="gw0", OMP_NUM_THREADS="3") == ["10000", "", "3"]
    assert python(begin) == ["10000", "", ""]


def test_this_very_run_has_it():
    assert "GOMP_SPINCOUNT" in os.environ or "OMP_WAIT_POLICY" in os.environ
    if "PYTEST_XDIST_WORKER" in os.environ:
        import torch

        assert torch.get_num_threads() == int(os.environ["OMP_NUM_THREADS"])

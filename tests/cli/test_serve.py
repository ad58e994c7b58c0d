"""`serve` on the command line: what it says where it cannot serve. What it serves is tested in tests/serving."""

from __future__ import annotations

import json
import sys

import pytest
from command_line import refused, sasrec

from sasrec_utils.evaluation import kept_reports


def test_without_the_extra_a_sentence_says_what_to_install(made, monkeypatch):
    for module in [name for name in sys.modules if name.startswith("sasrec_utils.serving")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    refused(sasrec("serve", "--data-dir", made[0]), "fastapi is not installed: python -m pip install")


def test_mistakes(made):
    pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
    for port in ("-1", "65536", "many"):
        refused(sasrec("serve", "--data-dir", made[0], "--port", port), port)
    refused(sasrec("serve", "--data-dir", made[0], "--port", "0", "--name", "none"), "config.json")


def test_what_run_measured_is_kept_for_the_server(made):
    data, outcome = made
    folder = data / "models" / "default"
    kept = kept_reports(folder, json.loads((folder / "config.json").read_text(encoding="utf-8")))
    told = json.loads(outcome.out)
    assert kept["playlists"] == told["playlists"]
    assert kept["metrics"]["sasrec"]["recall@10"] == pytest.approx(told["metrics"]["sasrec"]["recall@10"])

"""Reports kept beside the model that they are about, so that whoever loads it can say how good it is."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

from sasrec_utils.evaluation.reports import Report
from sasrec_utils.mpd.files import write_beside

__all__ = ["keep_reports", "kept_reports"]

FILE = "metrics.json"


def keep_reports(folder: str | os.PathLike, about: dict, reports: Sequence[Report]) -> None:
    """Write `metrics.json` beside a model: each report's metrics with their intervals, on the same test playlists.

    `about`: the model's config.json, by which `kept_reports` knows that they are about these weights. A model whose
    training was stopped is not described. Raises OSError.
    """
    if not _named(about):
        return
    kept = {"protocol": reports[0].protocol, "playlists": reports[0].playlists, "of": _named(about), "metrics": {}}
    for report in reports:
        kept["metrics"][report.name] = {
            metric: {name: value if math.isfinite(value) else None for name, value in interval._asdict().items()}
            for metric, interval in report.metrics.items()
        }
    file, text = Path(folder) / FILE, json.dumps(kept, indent=1) + "\n"
    if file.exists() and file.read_text(encoding="utf-8", errors="replace") == text:
        return
    with write_beside(file) as beside:
        beside.write_text(text, encoding="utf-8")


def kept_reports(folder: str | os.PathLike, about: dict) -> dict:
    """What `keep_reports` wrote: `protocol`, `playlists` and `metrics`; {} if nothing, or about other weights."""
    try:
        kept = json.loads((Path(folder) / FILE).read_text(encoding="utf-8"))
        same = kept["of"] == _named(about) and isinstance(kept["metrics"], dict)
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return kept if same and kept["of"] else {}


def _named(about: dict) -> dict:
    """What tells these weights from those of another training; {} if it has not ended, or was not one of `run`'s."""
    return {key: about[key] for key in ("run", "train_seconds")} if {"run", "train_seconds"} <= about.keys() else {}

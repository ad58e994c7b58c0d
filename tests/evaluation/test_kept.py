"""Reports beside a model: read back as they were, and never taken for those of other weights."""

from __future__ import annotations

import json

import pytest

from sasrec_utils.baselines import Popularity
from sasrec_utils.evaluation import evaluate, keep_reports, kept_reports
from sasrec_utils.sequences import Sequences

ABOUT = {"run": "1f", "train_seconds": 2.5, "model": {}}


def test_reports_are_kept_for_these_weights_only(tmp_path):
    popularity = Popularity.fit(Sequences.from_lists([[1, 2, 3], [2, 3]]), 3)
    report = evaluate(popularity, Sequences.from_lists([[1], [2]]), [2, 3], n_boot=10)
    assert kept_reports(tmp_path, ABOUT) == {}
    keep_reports(tmp_path, {"model": {}}, [report])  # not trained to its end
    assert not list(tmp_path.iterdir())
    keep_reports(tmp_path, ABOUT, [report])
    kept = kept_reports(tmp_path, ABOUT)
    assert kept["playlists"] == 2 and kept["protocol"] == "full"
    assert kept["metrics"]["popularity"]["recall@10"] == pytest.approx(report.metrics["recall@10"]._asdict())
    assert kept_reports(tmp_path, {**ABOUT, "train_seconds": 2.6}) == kept_reports(tmp_path, {"model": {}}) == {}
    for spoilt in ("", "[]", "{", json.dumps({"of": {}, "metrics": {}})):
        (tmp_path / "metrics.json").write_text(spoilt)
        assert kept_reports(tmp_path, ABOUT) == kept_reports(tmp_path, {}) == {}

"""benchmarks/experiments.py: stopped and started again it makes each run once, and its records are whole."""

import importlib.util
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def experiments(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("experiments", ROOT / "benchmarks" / "experiments.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "NOTEBOOKS", tmp_path)
    (tmp_path / "data").mkdir()
    return module


def test_a_run_is_made_once_however_often_the_script_is_started(experiments):
    made = []

    def make(name, seed):
        made.append((name, seed))
        return [{"ndcg": 0.1 * seed}]

    def runs():
        for name in ("a", "b", "c"):
            for seed in (0, 1):
                yield {"model": name, "seed": seed}, partial(make, name, seed)

    def stopped():
        for index, run in enumerate(runs()):
            if index == 3:
                raise KeyboardInterrupt
            yield run

    with pytest.raises(KeyboardInterrupt):
        experiments.record("tried", stopped(), minutes=1)
    assert experiments.record("tried", runs(), minutes=1) == 0
    assert made == [(name, seed) for name in "abc" for seed in (0, 1)]
    table = experiments.recorded("tried")
    assert table["ndcg"].tolist() == [0, 0.1] * 3


def test_no_new_run_begins_when_the_time_is_over(experiments):
    assert experiments.record("tried", iter([({"seed": 0}, list)]), minutes=-1) == 1
    assert experiments.recorded("tried").empty


def test_the_records_of_notebook_05_are_whole():
    contest = pd.read_csv(ROOT / "notebooks" / "data" / "experiments_contest.csv").query("part == 'contest'")
    assert (contest.groupby(["loss", "seed"])["epoch"].max() == 30).all()
    assert contest.groupby("loss")["seed"].nunique().to_dict() == dict.fromkeys(
        ("bce", "gbce", "sampled_softmax", "softmax"), 3
    )
    ablation = pd.read_csv(ROOT / "notebooks" / "data" / "experiments_ablation.csv")
    assert (ablation.groupby("variant")["seed"].nunique() == 3).all()

"""The command line from nothing to ten named tracks, on a tiny made-up world, and what it says to mistakes."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from sasrec_utils import __main__ as commands
from sasrec_utils import training
from sasrec_utils.model import SASRec, SASRecConfig
from sasrec_utils.training import save

COMMANDS = ("run", "make-data", "prepare", "train", "evaluate", "recommend")
SMALL = ("--epochs", "1", "--accelerator", "cpu")


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


def sasrec(*arguments) -> Outcome:
    """One command, in this process; a wrong option ends it the way argparse does."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = commands.main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code
    return Outcome(code, out.getvalue(), err.getvalue())


def program(*arguments) -> Outcome:
    """The same as its own process, as a person starts it."""
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "sasrec_utils", *map(str, arguments)], capture_output=True, text=True, encoding="utf-8",
        timeout=200, cwd=root, env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    return Outcome(done.returncode, done.stdout, done.stderr)


def refused(outcome: Outcome, word: str) -> None:
    """Exit code 2, nothing on stdout, no traceback, and at the end one sentence that says what is wrong."""
    assert outcome.code == 2 and outcome.out == ""
    assert "Traceback" not in outcome.err
    last = outcome.err.rstrip().splitlines()[-1]
    assert last.startswith("sasrec") and word in last, last


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The whole way once: (data directory, outcome)."""
    data = tmp_path_factory.mktemp("data")
    outcome = sasrec("run", "--playlists", 300, *SMALL, "--data-dir", data, "--json")
    assert outcome.code == 0, outcome.err
    return data, outcome


@pytest.fixture
def copy(made, tmp_path):
    """A copy of its data directory, to be spoilt."""
    shutil.copytree(made[0], tmp_path / "data")
    return tmp_path / "data"


# From nothing to ten tracks


def test_the_whole_way_prints_one_json_object(made):
    data, outcome = made
    result = json.loads(outcome.out, parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    assert set(result) == {"metrics", "playlists", "targets_kept", "train_seconds", "playlist", "recommendations"}
    assert {"sasrec", "oracle", "popularity", "Markov", "item-kNN", "item-kNN + Markov"} <= set(result["metrics"])
    for metrics in result["metrics"].values():
        assert set(metrics) == {"recall@10", "ndcg@10"}
        for interval in metrics.values():
            assert set(interval) == {"mean", "low", "high"}
            assert 0 <= interval["low"] <= interval["mean"] <= interval["high"] <= 1
        assert metrics["ndcg@10"]["mean"] <= metrics["recall@10"]["mean"]
    assert result["playlists"] == 30 and 0 < result["targets_kept"] <= 1 and result["train_seconds"] > 0
    rows = result["recommendations"]
    assert [row["rank"] for row in rows] == list(range(1, 11))
    tracks = pd.read_parquet(data / "models" / "default" / "tracks.parquet").set_index("track_uri")
    for row in rows:
        assert set(row) == {"rank", "track_id", "track_uri", "track_name", "artist_name", "score"}
        named = tracks.loc[row["track_uri"]]
        assert (named["track_name"], named["artist_name"]) == (row["track_name"], row["artist_name"])
    assert len({row["track_uri"] for row in rows}) == 10
    assert all(a["score"] >= b["score"] for a, b in itertools.pairwise(rows))


def test_progress_and_remarks_go_to_stderr(made):
    _, outcome = made
    for text in ("making up playlists", "slices", "training on cpu", "batch", "baselines"):
        assert text in outcome.err and text not in outcome.out
    assert outcome.out.startswith("{") and outcome.out.endswith("}\n")


def test_a_second_run_repeats_nothing(made):
    """Its own process, without the word `run`: the same answer, byte by byte, from the files that are there."""
    data, first = made
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*") if path.is_file()}
    second = program("--playlists", 300, *SMALL, "--data-dir", data, "--json")
    assert second.code == 0, second.err
    assert second.out == first.out
    assert "not trained again" in second.err and "batch/s" not in second.err and "making up" not in second.err
    assert {path: path.stat().st_mtime_ns for path in data.rglob("*") if path.is_file()} == before


def test_tables_for_people(made):
    data, first = made
    outcome = sasrec(*SMALL, "--data-dir", data, "-k", 3)
    assert outcome.code == 0
    rows = json.loads(first.out)["recommendations"]
    for text in ("30 test playlists", "95 %", "share of best recall@10", "oracle", "SASRec - popularity", rows[0]["track_name"],
                 rows[2]["artist_name"], "What really came next", json.loads(first.out)["playlist"]):  # fmt: skip
        assert text in outcome.out
    assert "\n    3 " in outcome.out and "\n    4 " not in outcome.out  # as many as asked for
    assert "nan" not in outcome.out.lower()


@pytest.mark.parametrize("changes", [("--lr", "1e-4"), ("--seed", "1"), ("--again",)])
def test_other_settings_train_again(copy, changes):
    old = (copy / "models" / "default" / "model.safetensors").read_bytes()
    outcome = sasrec("train", *SMALL, *changes, "--data-dir", copy)
    assert outcome.code == 0 and "not trained again" not in outcome.err and "batch" in outcome.err
    new = (copy / "models" / "default" / "model.safetensors").read_bytes()
    assert (new == old) == (changes == ("--again",))  # the same settings give the same weights
    again = sasrec("train", *SMALL, *(c for c in changes if c != "--again"), "--data-dir", copy)
    assert "not trained again" in again.err and again.code == 0


def test_a_stopped_training_goes_on(copy, monkeypatch):
    """Ctrl-C in the second epoch: one sentence, code 130, and the same command takes up the thread."""
    validate, calls = training.validate, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return validate(*args)

    arguments = (
        "train",
        "--name",
        "long",
        "--epochs",
        3,
        "--shape",
        "paper",
        "--accelerator",
        "cpu",
        "--data-dir",
        copy,
    )
    with monkeypatch.context() as patch:
        patch.setattr(training, "validate", interrupted)
        outcome = sasrec(*arguments)
    assert outcome.code == 130 and outcome.err.rstrip().splitlines()[-1].startswith("sasrec: stopped; ")
    calls.clear()
    monkeypatch.setattr(training, "validate", lambda *args: calls.append(args) or validate(*args))
    assert sasrec(*arguments).code == 0
    assert len(calls) == 2  # epochs 2 and 3


def test_weights_never_meet_the_names_of_another_run(copy, monkeypatch):
    """Other settings, and killed before the first epoch ended: no model rather than one with wrong names."""
    monkeypatch.setattr(training, "validate", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert sasrec("train", *SMALL, "--seed", 8, "--data-dir", copy).code == 130
    refused(sasrec("recommend", "--data-dir", copy), "train a model there first")


# Each command


def test_make_data_and_prepare(tmp_path):
    outcome = sasrec("make-data", "--out", tmp_path / "raw", "--playlists", 30, "--seed", 4)
    assert outcome.code == 0 and "1 slices" in outcome.out
    slices = list((tmp_path / "raw").glob("mpd.slice.*.json"))
    assert len(slices) == 1 and len(json.loads(slices[0].read_text(encoding="utf-8"))["playlists"]) == 30
    outcome = sasrec("prepare", "--raw", tmp_path / "raw", "--out", tmp_path / "out", "--csv")
    folder = Path(outcome.out.strip())
    assert outcome.code == 0 and folder.parent == tmp_path / "out"
    assert (folder / "interactions.parquet").exists() and (folder / "spotify_mpd_interactions.csv").exists()
    indented = sasrec("make-data", "--out", tmp_path / "b", "--playlists", 30, "--seed", 4, "--indent")
    assert indented.code == 0
    first, second = (next((tmp_path / d).glob("mpd.*")).read_text(encoding="utf-8") for d in ("raw", "b"))
    assert len(second) > len(first) and json.loads(second)["playlists"] == json.loads(first)["playlists"]


def test_train_prints_its_history(made):
    data, _ = made
    outcome = sasrec("train", *SMALL, "--data-dir", data)
    assert outcome.code == 0 and "valid_ndcg@10" in outcome.out and "model in " in outcome.out


def test_evaluate(made):
    data, first = made
    outcome = sasrec("evaluate", "--data-dir", data, "--json")
    rows = {row["model"]: row for row in json.loads(outcome.out)}
    for name, metrics in json.loads(first.out)["metrics"].items():
        assert math.isclose(rows[name]["recall@10"], metrics["recall@10"]["mean"]), name
    sampled = {
        row["model"]: row
        for row in json.loads(sasrec("evaluate", "--data-dir", data, "--json", "--protocol", "sampled").out)
    }
    assert sampled["oracle"]["protocol"] != rows["oracle"]["protocol"]
    assert sampled["oracle"]["recall@10"] > rows["oracle"]["recall@10"]
    assert "30 test playlists" in sasrec("evaluate", "--data-dir", data).out


def test_recommend(made):
    data, first = made
    known = json.loads(first.out)["recommendations"][0]
    outcome = sasrec("recommend", known["track_uri"], "never heard of", "--data-dir", data, "-k", 4, "--json")
    answer = json.loads(outcome.out)
    assert outcome.code == 0 and set(answer) == {"recommendations", "unknown", "note"}
    assert answer["unknown"] == ["never heard of"] and len(answer["recommendations"]) == 4
    assert known["track_uri"] not in {row["track_uri"] for row in answer["recommendations"]}
    by_name = sasrec("recommend", f"{known['artist_name']} - {known['track_name']}".upper(), "--data-dir", data)
    assert by_name.code == 0 and "Not known" not in by_name.out and len(by_name.out.splitlines()) == 11
    popular = sasrec("recommend", "--data-dir", data)
    assert popular.code == 0 and "most played" in popular.out
    assert sasrec("recommend", "--data-dir", data, "-k", 10**15).code == 0


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help(command):
    outcome = sasrec(*([command] if command else []), "--help")
    assert outcome.code == 0 and outcome.err == ""
    assert all(name in outcome.out for name in COMMANDS) if command is None else "options:" in outcome.out


# Mistakes


@pytest.mark.parametrize(("arguments", "word"), [
    (["nonsense"], "nonsense"), (["run", "--nonsense"], "--nonsense"), (["run", "--epochs", "0"], "0 is less than 1"),
    (["run", "--epochs", "ten"], "ten"), (["run", "-k", "0"], "less than 1"), (["run", "--seed", "-1"], "less than 0"),
    (["run", "--min-count", "0"], "less than 1"), (["run", "--playlists", "0"], "less than 1"), (["run", "--lr", "fast"], "fast"),
    (["run", "--preset", "other"], "other"), (["train", "--shape", "round"], "round"), (["make-data", "--playlists", "-3"], "less than"),
    (["evaluate", "--protocol", "other"], "other"), (["recommend", "-k", "x"], "x"), (["prepare", "--processes", "0"], "less than 1"),
])  # fmt: skip
def test_a_wrong_option_is_refused_before_anything_is_done(arguments, word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(sasrec(*arguments), word)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("option", "value", "word"), [
    ("--loss", "nonsense", "softmax, sampled_softmax, bce, gbce"), ("--precision", "nonsense", "nonsense"),
    ("--accelerator", "nonsense", "nonsense"), ("--lr", "nan", "lr"), ("--lr", "-1", "lr"), ("--lr", "1e30", "learning rate"),
    ("--seed", str(10**20), "seed"), ("--batch-size", "0", "less than 1"), ("--min-count", "1000000", "1000000"),
])  # fmt: skip
def test_a_value_that_cannot_be_is_one_sentence(made, option, value, word):
    data, _ = made
    refused(sasrec("run", *SMALL, "--data-dir", data, "--name", "other", option, value), word)
    assert json.loads((data / "models" / "default" / "config.json").read_text())["kind"] == "sasrec"


def test_a_device_that_is_not_there_is_one_sentence(made):
    import torch

    for device, there in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())):
        if not there:
            arguments = ("train", "--accelerator", device, "--name", "other", "--data-dir", made[0])
            refused(sasrec(*arguments), "cannot be used on this machine")


def test_nothing_there_yet_is_one_sentence(tmp_path):
    nowhere = tmp_path / "nowhere"
    for command in ("train", "evaluate"):
        refused(sasrec(command, "--data-dir", nowhere), "no slices")
    refused(sasrec("recommend", "--data-dir", nowhere), "train a model there first")
    refused(sasrec("prepare", "--raw", nowhere, "--out", tmp_path / "out"), "nowhere")
    (tmp_path / "file").write_text("")
    for command in ("run", "train", "evaluate", "recommend"):
        refused(sasrec(command, "--data-dir", tmp_path / "file"), "file")


def test_a_program_that_fails_says_one_sentence_too(tmp_path):
    outcome = program("recommend", "--data-dir", tmp_path)
    refused(outcome, "train a model there first")
    assert len(outcome.err.splitlines()) == 1


def test_broken_slices_are_named(tmp_path):
    raw = tmp_path / "raw"
    assert sasrec("make-data", "--out", raw, "--playlists", 20).code == 0
    path = next(raw.glob("mpd.slice.*"))
    path.write_bytes(path.read_bytes()[:5000])
    for command in (["run"], ["train"], ["evaluate"]):
        refused(sasrec(*command, "--data-dir", tmp_path), path.name)
    refused(sasrec("prepare", "--raw", raw, "--out", tmp_path / "out"), path.name)
    assert not [path for path in (tmp_path / "prepared").iterdir() if path.is_dir()]  # nothing half-made


def test_slices_are_never_written_over_others(made):
    data, _ = made
    before = {path: path.read_bytes() for path in (data / "raw").iterdir()}
    refused(sasrec("make-data", "--out", data / "raw", "--playlists", 10), "holds slices already")
    assert {path: path.read_bytes() for path in (data / "raw").iterdir()} == before


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tracks.parquet"])
def test_a_damaged_model_is_named_and_trained_again(copy, name):
    path = copy / "models" / "default" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(sasrec("recommend", "--data-dir", copy), name)
    if name != "tracks.parquet":
        refused(sasrec("evaluate", "--data-dir", copy), name)
    assert sasrec("run", *SMALL, "--data-dir", copy, "--json").code == 0
    assert sasrec("recommend", "--data-dir", copy).code == 0


@pytest.mark.parametrize("name", ["interactions.parquet", "playlists.parquet", "tracks.parquet"])
def test_damaged_tables_are_made_again(copy, name):
    path = next((copy / "prepared").glob(f"*/{name}"))
    before = path.read_bytes()
    path.write_bytes(before[: len(before) // 2])
    with pytest.warns(UserWarning, match="missing or damaged and have been made again"):
        assert sasrec("evaluate", "--data-dir", copy).code == 0
    assert path.read_bytes() == before


def test_a_model_of_other_playlists_is_not_judged_on_these(copy):
    model = copy / "models" / "default"
    about = json.loads((model / "config.json").read_text())
    for data in ({**about["data"], "prepared": "0" * 16}, {"prepared": about["data"]["prepared"]}, None, "none"):
        (model / "config.json").write_text(json.dumps({**about, "data": data}))
        refused(sasrec("evaluate", "--data-dir", copy), "was not trained by `train` on the playlists")
    save(copy / "models" / "notebook", SASRec(SASRecConfig(5, dim=4, heads=1)))
    refused(sasrec("evaluate", "--data-dir", copy, "--name", "notebook"), "was not trained by `train`")


@pytest.mark.parametrize("playlists", [1, 3, 20])
def test_too_few_playlists_are_one_sentence_or_enough(tmp_path, playlists):
    outcome = sasrec("run", "--playlists", playlists, *SMALL, "--data-dir", tmp_path)
    if outcome.code:
        refused(outcome, "")


def test_nobody_is_best_where_even_the_oracle_finds_nothing(made, capsys):
    """Shares of the best possible, where that is 0: left out instead of a division by zero."""
    from dataclasses import replace

    from sasrec_utils.baselines import Popularity
    from sasrec_utils.evaluation import Interval, evaluate
    from sasrec_utils.sequences import Sequences

    train = Sequences.from_lists([[1, 2, 3], [2, 3, 1]])
    report = evaluate(Popularity.fit(train, 3), Sequences.from_lists([[1], [2]]), [2, 3], n_boot=10)
    nothing = {metric: Interval(0.0, 0.0, 0.0) for metric in report.metrics}
    commands._print_reports([replace(report, name="sasrec"), replace(report, name="oracle", metrics=nothing)])
    assert "share of best" in capsys.readouterr().out

"""The whole way from nothing to ten named tracks, on a tiny made-up world, and each step of it."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from command_line import COMMANDS, SMALL, no_json, program, refused, sasrec

from sasrec_utils import training
from sasrec_utils.baselines import Popularity
from sasrec_utils.checkpoints import load
from sasrec_utils.cli import commands
from sasrec_utils.cli.output import print_reports, short
from sasrec_utils.evaluation import Interval, evaluate
from sasrec_utils.sequences import Sequences, leave_last_out, load_dataset


def test_the_whole_way_prints_one_json_object(made):
    data, outcome = made
    result = json.loads(outcome.out, parse_constant=no_json)
    assert set(result) == {"metrics", "playlists", "targets_kept", "train_seconds", "playlist", "recommendations"}
    assert {"sasrec", "oracle", "popularity", "Markov", "item-kNN", "item-kNN + Markov"} <= set(result["metrics"])
    for metrics in result["metrics"].values():
        assert set(metrics) == {"recall@10", "ndcg@10", "recall@10_all"}
        for interval in metrics.values():
            assert set(interval) == {"mean", "low", "high"}
            assert 0 <= interval["low"] <= interval["mean"] <= interval["high"] <= 1
        assert metrics["ndcg@10"]["mean"] <= metrics["recall@10"]["mean"]
        all_targets = result["targets_kept"] * metrics["recall@10"]["mean"]  # a lost target is a miss
        assert math.isclose(metrics["recall@10_all"]["mean"], all_targets)
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


def test_models_are_judged_on_the_test_playlists(made):
    """Not on those that the settings were chosen by: the numbers are those of a judgement made here, by hand."""
    data, outcome = made
    dataset = load_dataset(next(path for path in (data / "prepared").iterdir() if path.is_dir()))
    metrics = json.loads(outcome.out)["metrics"]
    model, _ = load(data / "models" / "default")
    for scorer in (Popularity.fit(dataset.train, dataset.vocabulary.n_items), model):
        on_test = evaluate(scorer, *leave_last_out(dataset.test)).metrics["ndcg@10"].mean
        on_valid = evaluate(scorer, *leave_last_out(dataset.valid)).metrics["ndcg@10"].mean
        assert metrics[scorer.name]["ndcg@10"]["mean"] == pytest.approx(on_test)
        assert on_test != pytest.approx(on_valid)  # or this would show nothing


def test_tables_for_people(made):
    data, first = made
    outcome = sasrec(*SMALL, "--data-dir", data, "-k", 3)
    assert outcome.code == 0
    result = json.loads(first.out)
    rows = result["recommendations"]
    headings = ["30 test playlists", "95 %", "share", "recall_all", "SASRec against popularity: recall@10 "]
    for text in [
        *headings,
        rows[0]["track_name"],
        rows[2]["artist_name"],
        "What really came next",
        result["playlist"].strip(),
    ]:
        assert text in outcome.out
    assert "\n    3 " in outcome.out and "\n    4 " not in outcome.out  # as many as asked for
    assert "nan" not in outcome.out.lower()
    metrics = outcome.out.split("\nPlaylist")[0]  # below it are names, which are as long as they are
    assert "oracle" in metrics and max(map(len, metrics.splitlines())) <= 100
    interval = result["metrics"]["item-kNN"]["recall@10"]
    assert f"{interval['mean']:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]".replace("0.", ".") in outcome.out


@pytest.mark.parametrize("changes", [("--lr", "1e-4"), ("--seed", "1"), ("--shape", "paper")])
def test_a_model_is_not_replaced_unless_asked_for(copy, changes):
    """Other settings: one sentence says what differs, and nothing is touched; --again replaces the model."""
    model = copy / "models" / "default"
    old = {path: path.read_bytes() for path in model.iterdir()}
    refused(sasrec("train", *SMALL, *changes, "--data-dir", copy), "--again")
    assert {path: path.read_bytes() for path in model.iterdir()} == old
    outcome = sasrec("train", *SMALL, *changes, "--again", "--data-dir", copy)
    assert outcome.code == 0 and "not trained again" not in outcome.err and "batch" in outcome.err
    assert (model / "model.safetensors").read_bytes() != old[model / "model.safetensors"]
    again = sasrec("train", *SMALL, *changes, "--data-dir", copy)
    assert "not trained again" in again.err and again.code == 0


def test_what_would_be_replaced_is_told_by_its_settings(copy):
    outcome = sasrec("run", "--epochs", 9, "--accelerator", "cpu", "--data-dir", copy)
    refused(outcome, "holds a model with epochs = 1, not 9; give the new one another --name")
    raw = copy / "raw"
    path = next(raw.glob("mpd.slice.*"))
    content = json.loads(path.read_text(encoding="utf-8"))
    content["playlists"].pop()
    path.write_text(json.dumps(content), encoding="utf-8")
    refused(sasrec("run", *SMALL, "--data-dir", copy), "other playlists than those in raw/")


def test_the_same_settings_give_the_same_weights(copy):
    weights = copy / "models" / "default" / "model.safetensors"
    old = weights.read_bytes()
    assert sasrec("train", *SMALL, "--again", "--data-dir", copy).code == 0
    assert weights.read_bytes() == old


@pytest.mark.parametrize("loss", ["bce", "sampled_softmax"])
def test_losses_and_their_negatives(copy, loss):
    options = ("--loss", loss, "--negatives", 7, "--name", loss, "--shape", "paper")
    outcome = sasrec("train", *SMALL, *options, "--data-dir", copy)
    assert outcome.code == 0, outcome.err
    plan = json.loads((copy / "models" / loss / "config.json").read_text())["training"]
    assert plan["loss"] == loss and plan["negatives"] == 7


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
    assert outcome.code == 130
    last = outcome.err.rstrip().splitlines()[-1]
    assert last == "sasrec: stopped; 1 epoch of training is kept, the same command goes on from there."

    # Its model can be used, and says what it is.
    track = json.loads(sasrec("tracks", "a", "-k", 1, "--json", "--name", "long", "--data-dir", copy).out)["tracks"][0]
    answer = sasrec("recommend", track["track_uri"], "--name", "long", "--data-dir", copy)
    assert answer.code == 0 and "Its training was stopped after epoch 1 of 3" in answer.out
    assert "stopped after epoch 1 of 3" in sasrec("evaluate", "--name", "long", "--data-dir", copy).err

    calls.clear()
    monkeypatch.setattr(training, "validate", lambda *args: calls.append(args) or validate(*args))
    assert sasrec(*arguments).code == 0
    assert len(calls) == 2  # epochs 2 and 3
    assert "stopped" not in sasrec("recommend", track["track_uri"], "--name", "long", "--data-dir", copy).out


def test_weights_never_meet_the_names_of_another_run(copy, monkeypatch):
    """Other settings, and killed before the first epoch ended: no model rather than one with wrong names."""
    monkeypatch.setattr(training, "validate", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    outcome = sasrec("train", *SMALL, "--seed", 8, "--again", "--data-dir", copy)
    assert outcome.code == 130 and "kept" not in outcome.err and "has left nothing" in outcome.err
    refused(sasrec("recommend", "Silence", "--data-dir", copy), "train a model there first")


def test_nothing_is_said_to_be_kept_where_nothing_is(tmp_path, monkeypatch):
    assert sasrec("make-data", "--out", tmp_path / "raw", "--playlists", 20).code == 0
    monkeypatch.setattr(commands, "prepare", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    for command in (
        ["prepare", "--raw", tmp_path / "raw", "--out", tmp_path / "out"],
        ["train", "--data-dir", tmp_path],
    ):
        outcome = sasrec(*command)
        assert outcome.code == 130 and "has left nothing" in outcome.err and "kept" not in outcome.err


def test_make_data_and_prepare(tmp_path):
    outcome = sasrec("make-data", "--out", tmp_path / "raw", "--playlists", 30, "--seed", 4)
    assert outcome.code == 0 and "1 slice of" in outcome.out
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
        for row in json.loads(
            sasrec("evaluate", "--data-dir", data, "--json", "--protocol", "sampled").out, parse_constant=no_json
        )
    }
    assert sampled["oracle"]["coverage"] is None  # a hundred sampled tracks cannot show it
    assert sampled["oracle"]["protocol"] != rows["oracle"]["protocol"]
    assert sampled["oracle"]["recall@10"] > rows["oracle"]["recall@10"]
    assert "30 test playlists" in sasrec("evaluate", "--data-dir", data).out


def test_slices_without_names_are_no_mistake(made, tmp_path):
    """Reduced copies have neither names nor albums: null in JSON, nothing in tables."""
    content = json.loads(next((made[0] / "raw").glob("mpd.slice.*")).read_text(encoding="utf-8"))
    for playlist in content["playlists"]:
        del playlist["name"]
        for track in playlist["tracks"]:
            del track["album_name"], track["artist_name"]
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "mpd.slice.0-999.json").write_text(json.dumps(content), encoding="utf-8")
    options = (*SMALL, "--shape", "paper", "--data-dir", tmp_path)
    result = json.loads(sasrec("run", *options, "--json").out, parse_constant=no_json)
    assert result["playlist"] is None and result["recommendations"][0]["artist_name"] is None
    text = sasrec("run", *options).out
    assert "A test playlist that no model has seen" in text
    assert "None" not in text and "nan" not in text.lower()


def test_version():
    outcome = sasrec("--version")
    assert outcome.code == 0 and outcome.out.startswith("sasrec ") and "torch 2" in outcome.out


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help(command):
    outcome = sasrec(*([command] if command else []), "--help")
    assert outcome.code == 0 and outcome.err == ""
    assert all(name in outcome.out for name in COMMANDS) if command is None else "options:" in outcome.out
    assert "None" not in outcome.out and "False" not in outcome.out
    for option in outcome.out.split("\n  -"):
        assert option.count("(default") <= 1, option


def test_nobody_is_best_where_even_the_oracle_finds_nothing(capsys):
    """Shares of the best possible, where that is 0: left out instead of a division by zero."""
    train = Sequences.from_lists([[1, 2, 3], [2, 3, 1]])
    report = evaluate(Popularity.fit(train, 3), Sequences.from_lists([[1], [2]]), [2, 3], n_boot=10)
    nothing = {metric: Interval(0.0, 0.0, 0.0) for metric in report.metrics}
    print_reports([replace(report, name="sasrec"), replace(report, name="oracle", metrics=nothing)])
    assert "share" in capsys.readouterr().out


@pytest.mark.parametrize(("interval", "sign", "text"), [
    ((0.3724, 0.3471, 0.396), False, ".372 [.347, .396]"), ((0, 0, 1), False, ".000 [.000, 1.000]"),
    ((0.1149, -0.0091, 1.0), True, "+.115 [-.009, +1.000]"), ((math.nan,) * 3, False, "- [-, -]"),
    ((0.9996, 0, 0), False, "1.000 [.000, .000]"),
])  # fmt: skip
def test_intervals_are_short(interval, sign, text):
    assert short(Interval(*interval), sign) == text


# The second stage


def test_the_second_stage_is_trained_judged_kept_and_used(copy):
    few = sasrec("run", *SMALL, "--data-dir", copy, "--rerank", "--json")
    assert few.code == 0 and "two stages" in json.loads(few.out)["metrics"], few.err
    files = {name: (copy / "models" / "default" / f"reranker.{name}") for name in ("txt", "json", "safetensors")}
    times = {name: path.stat().st_mtime_ns for name, path in files.items()}
    judged = sasrec("evaluate", "--data-dir", copy)
    assert "two stages against SASRec + item-kNN + Markov: recall@10 " in judged.out  # it is there: it is judged
    assert "two stages" not in sasrec("evaluate", "--no-rerank", "--data-dir", copy).out
    assert {name: path.stat().st_mtime_ns for name, path in files.items()} == times  # trained once
    uri = pd.read_parquet(copy / "models" / "default" / "tracks.parquet")["track_uri"][5]
    asked = ("recommend", uri, "--data-dir", copy, "--json")
    answers = {flag: json.loads(sasrec(*asked, *flag).out)["recommendations"] for flag in ((), ("--no-rerank",))}
    assert answers[()] != answers["--no-rerank",]
    files["safetensors"].write_bytes(files["safetensors"].read_bytes()[:-1])
    refused(sasrec(*asked), "reranker.safetensors")


def test_with_few_validation_playlists_there_is_no_second_stage(made):
    data, outcome = made
    assert "two stages" not in outcome.out and not list((data / "models" / "default").glob("reranker*"))


def test_another_model_takes_its_second_stage_with_it(copy):
    assert sasrec("run", *SMALL, "--data-dir", copy, "--rerank").code == 0
    assert sasrec("train", *SMALL, "--seed", "1", "--again", "--data-dir", copy).code == 0
    assert not (copy / "models" / "default" / "reranker.json").exists()

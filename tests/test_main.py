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
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pytest

from sasrec_utils import training
from sasrec_utils.__main__ import main
from sasrec_utils.baselines import Popularity
from sasrec_utils.evaluation import Interval, evaluate
from sasrec_utils.model import SASRec, SASRecConfig
from sasrec_utils.sequences import Sequences, leave_last_out, load_dataset
from sasrec_utils.training import load, save

COMMANDS = ("run", "make-data", "prepare", "train", "evaluate", "recommend", "tracks")
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
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code
    return Outcome(code, out.getvalue(), err.getvalue())


def program(*arguments, given: bytes = b"") -> Outcome:
    """The same as its own process, as a person starts it."""
    done = subprocess.run(
        [sys.executable, "-m", "sasrec_utils", *map(str, arguments)],
        input=given,
        capture_output=True,
        timeout=200,
        cwd=Path(__file__).parents[1],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"},
    )
    return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())


def no_json(text: str) -> None:
    pytest.fail(f"{text} is no JSON")


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
        on_test = evaluate(scorer, *leave_last_out(dataset.test)).metrics["recall@10"].mean
        on_valid = evaluate(scorer, *leave_last_out(dataset.valid)).metrics["recall@10"].mean
        assert metrics[scorer.name]["recall@10"]["mean"] == pytest.approx(on_test)
        assert on_test != pytest.approx(on_valid)  # or this would show nothing


def test_tables_for_people(made):
    data, first = made
    outcome = sasrec(*SMALL, "--data-dir", data, "-k", 3)
    assert outcome.code == 0
    result = json.loads(first.out)
    rows = result["recommendations"]
    for text in ("30 test playlists", "95 %", "share", "oracle", "SASRec against popularity: recall@10 ", "recall_all",
                 rows[0]["track_name"], rows[2]["artist_name"], "What really came next", result["playlist"]):  # fmt: skip
        assert text in outcome.out
    assert "\n    3 " in outcome.out and "\n    4 " not in outcome.out  # as many as asked for
    assert "nan" not in outcome.out.lower()
    assert max(map(len, outcome.out.splitlines())) <= 100
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
    from sasrec_utils.cli import commands

    monkeypatch.setattr(commands, "prepare", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    for command in (
        ["prepare", "--raw", tmp_path / "raw", "--out", tmp_path / "out"],
        ["train", "--data-dir", tmp_path],
    ):
        outcome = sasrec(*command)
        assert outcome.code == 130 and "has left nothing" in outcome.err and "kept" not in outcome.err


# Each command


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


def test_recommend(made):
    data, first = made
    known = json.loads(first.out)["recommendations"][0]
    outcome = sasrec("recommend", known["track_uri"], "never heard of", "--data-dir", data, "-k", 4, "--json")
    answer = json.loads(outcome.out)
    assert outcome.code == 0 and answer["recognised"] == 1
    assert set(answer) == {"recommendations", "recognised", "unknown", "suggestions", "note"}
    assert answer["unknown"] == ["never heard of"] and len(answer["recommendations"]) == 4
    assert known["track_uri"] not in {row["track_uri"] for row in answer["recommendations"]}
    by_name = sasrec("recommend", f"{known['artist_name']} - {known['track_name']}".upper(), "--data-dir", data)
    assert by_name.code == 0 and by_name.err == "" and len(by_name.out.splitlines()) == 11
    assert sasrec("recommend", known["track_uri"], "--data-dir", data, "-k", 10**15).code == 0


def test_a_name_that_is_nearly_right_is_answered_by_the_right_one(made):
    data, first = made
    known = json.loads(first.out)["recommendations"][0]
    label = f"{known['artist_name']} - {known['track_name']}"
    typo = f"{label[:3]}{label[4:]}x"
    for given in (typo, "https://open.spotify.com/playlist/37i9dQZF1DX", "spotify:track:unknown"):
        outcome = sasrec("recommend", given, "--data-dir", data)
        assert outcome.code == 1 and outcome.out == "" and "sasrec tracks" in outcome.err.splitlines()[-1]
        assert "is a link to a playlist" in outcome.err or "is not known" in outcome.err
        assert (label in outcome.err) == (given == typo)
        answer = sasrec("recommend", given, "--json", "--data-dir", data)
        result = json.loads(answer.out)
        assert answer.code == 1 and result["recommendations"] == [] and result["unknown"] == [given]
        suggested = [row["track_uri"] for row in result["suggestions"][given]]
        assert (known["track_uri"] in suggested) == (given == typo)
    refused(sasrec("recommend", "--data-dir", data), "name at least one track")
    one_known = sasrec("recommend", known["track_uri"], typo, "--data-dir", data)
    assert one_known.code == 0 and f"perhaps {label}" in one_known.err and "most played" not in one_known.out


def test_recommend_for_a_playlist_in_a_file(made, tmp_path):
    data, first = made
    rows = json.loads(first.out)["recommendations"][:4]
    table = pd.DataFrame(
        {"Track URI": ["", *(row["track_uri"] for row in rows[1:])], "Track Name": [row["track_name"] for row in rows],
         "Artist Name(s)": [f"{row['artist_name']},Guest" for row in rows]}
    )  # fmt: skip
    table.loc[len(table)] = ["spotify:track:0", "No Such Song", "Nobody"]
    table.to_csv(tmp_path / "mine.csv", index=False)
    text = "\n".join(f"{row['track_name']} — {row['artist_name']}" for row in rows) + "\nNo Such Song — Nobody"
    (tmp_path / "mine.txt").write_text(text, encoding="utf-8")
    uris = [row["track_uri"] for row in rows]
    expected = json.loads(sasrec("recommend", *uris, "--data-dir", data, "--json").out)
    for name in ("mine.csv", "mine.txt"):
        outcome = sasrec("recommend", "--playlist", tmp_path / name, "--data-dir", data, "--json")
        assert outcome.code == 0 and "4 of 5 tracks recognised." in outcome.err
        answer = json.loads(outcome.out)
        assert answer["recommendations"] == expected["recommendations"] and answer["recognised"] == 4
    more = sasrec("recommend", uris[0], "--playlist", tmp_path / "mine.csv", "--data-dir", data, "--json")
    assert json.loads(more.out)["recognised"] == 5
    piped = program("recommend", "--playlist", "-", "--data-dir", data, "--json", given=text.encode())
    assert json.loads(piped.out)["recommendations"] == expected["recommendations"]
    (tmp_path / "empty.csv").write_text("")
    refused(sasrec("recommend", "--playlist", tmp_path / "empty.csv", "--data-dir", data), "empty.csv is empty")
    refused(sasrec("recommend", "--playlist", tmp_path / "gone.csv", "--data-dir", data), "gone.csv: cannot be read")


def test_tracks_finds_names(made):
    data, first = made
    known = json.loads(first.out)["recommendations"][0]
    for query in (
        known["track_name"][:-2],
        f"{known['artist_name']} {known['track_name']}".upper(),
        known["track_uri"],
    ):
        result = json.loads(sasrec("tracks", *query.split(), "-k", 1000, "--data-dir", data, "--json").out)
        assert known["track_uri"] in [row["track_uri"] for row in result["tracks"]] and result["nearest"] == []
    outcome = sasrec("tracks", known["track_name"], "--data-dir", data)
    assert outcome.code == 0 and known["track_uri"] in outcome.out
    nothing = sasrec("tracks", f"{known['artist_name']} - {known['track_name']}"[1:] + "q", "--data-dir", data)
    assert nothing.code == 1 and nothing.out == "" and known["track_name"] in nothing.err
    assert sasrec("tracks", "?!", "--data-dir", data).code == 1
    refused(sasrec("tracks", "a", "--name", "other", "--data-dir", data), "train a model there first")


@pytest.fixture
def strange(made, tmp_path):
    """A model whose tracks have the names that people give them: other letters, escapes, nothing."""
    folder = tmp_path / "data" / "models" / "default"
    shutil.copytree(made[0] / "models" / "default", folder)
    tracks = pd.read_parquet(folder / "tracks.parquet")
    names = ["Тихий океан", "\x1b[31mRed\x1b[0m\r\nline", "夜", None]
    tracks["track_name"] = [names[i % 4] for i in range(len(tracks))]
    tracks["album_name"] = None
    tracks.to_parquet(folder / "tracks.parquet")
    return tmp_path / "data", tracks["track_uri"][0]


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_letters_that_a_terminal_does_not_have_are_written_in_others(strange, encoding):
    data, uri = strange
    with io.TextIOWrapper(io.BytesIO(), encoding=encoding) as terminal:
        with contextlib.redirect_stdout(terminal):
            assert main(["recommend", uri, "--data-dir", str(data), "-k", "30"]) == 0
        text = terminal.buffer.getvalue().decode(encoding)
    assert r"\u0422\u0438\u0445\u0438\u0439" in text and len(text.splitlines()) == 31


def test_names_cannot_command_a_terminal_and_missing_ones_are_left_out(strange):
    data, uri = strange
    for arguments in (["recommend", uri, "-k", 30], ["tracks", "red"], ["recommend", "\x1b[31mRed\x1b[2J"]):
        outcome = sasrec(*arguments, "--data-dir", data)
        assert "Red" in outcome.out + outcome.err and "\x1b" not in outcome.out + outcome.err
        assert "None" not in outcome.out and "nan" not in outcome.out.lower()
    refused(sasrec("recommend", uri, "--data-dir", f"{data}\x1b[31m\nline"), "train a model there first")


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


def test_a_closed_pipe_is_no_error(made, capsys):
    """`sasrec … | head`: the reader leaves, and nothing is said about it, not even when Python ends."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8") as stdout, contextlib.redirect_stdout(stdout):
        assert main(["tracks", "a", "-k", "100000", "--data-dir", str(made[0])]) == 141
    assert capsys.readouterr().err == ""


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


# Mistakes


@pytest.mark.parametrize(
    "name", ["../x", "..", ".", "", " ", "a/b", "/tmp/x", "C:x", "a\\b", "con", "LPT1.txt", "x.", " x", "a\nb", "a*"]
)
def test_a_model_stays_in_its_folder(made, name):
    """In models/ and nowhere else, under a name that every system has: nothing beside it is ever written over."""
    data, _ = made
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*") if path.is_file()}
    for command in (["train", *SMALL], ["run", *SMALL], ["evaluate"], ["recommend", "Silence"], ["tracks", "a"]):
        refused(sasrec(*command, "--data-dir", data, "--name", name), "cannot name a folder in models/")
    assert {path: path.stat().st_mtime_ns for path in data.rglob("*") if path.is_file()} == before


def test_every_command_finds_the_same_slices(made, tmp_path):
    """Whatever `prepare` takes for slices, `train` and `run` do, and the other way round."""
    content = next((made[0] / "raw").glob("mpd.slice.*")).read_bytes()
    for name in ("mine.json", "mpd.slice.0-999.json", "notes.txt"):
        raw = tmp_path / name / "raw"
        raw.mkdir(parents=True)
        (raw / name).write_bytes(content)
        prepares = sasrec("prepare", "--raw", raw, "--out", tmp_path / name / "prepared").code == 0
        trained = sasrec("train", "--shape", "paper", *SMALL, "--data-dir", tmp_path / name)
        assert ("no slices" in trained.err) != prepares and (trained.code == 0) == prepares


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
    ("--loss", "nonsense", "sampled_softmax"), ("--precision", "transformer-engine", "bf16-mixed"), ("--negatives", "0", "less"),
    ("--accelerator", "tpu", "cuda"), ("--lr", "nan", "lr"), ("--lr", "-1", "lr"), ("--lr", "1e30", "learning rate"),
    ("--seed", str(10**20), "seed"), ("--batch-size", "0", "less than 1"), ("--min-count", "1000000", "1000000"),
])  # fmt: skip
def test_a_value_that_cannot_be_is_one_sentence(made, option, value, word):
    data, _ = made
    refused(sasrec("run", *SMALL, "--shape", "paper", "--data-dir", data, "--name", "other", option, value), word)
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
    refused(sasrec("recommend", "Silence", "--data-dir", nowhere), "train a model there first")
    refused(sasrec("prepare", "--raw", nowhere, "--out", tmp_path / "out"), "nowhere")
    (tmp_path / "file").write_text("")
    for command in (["run"], ["train"], ["evaluate"], ["recommend", "Silence"], ["tracks", "Silence"]):
        refused(sasrec(*command, "--data-dir", tmp_path / "file"), "file")


def test_a_program_that_fails_says_one_sentence_too(tmp_path):
    outcome = program("recommend", "Silence", "--data-dir", tmp_path)
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
    refused(sasrec("recommend", "Silence", "--data-dir", copy), name)
    if name != "tracks.parquet":
        refused(sasrec("evaluate", "--data-dir", copy), name)
    assert sasrec("run", *SMALL, "--data-dir", copy, "--json").code == 0
    assert sasrec("tracks", "a", "--data-dir", copy).code == 0


@pytest.mark.parametrize("name", ["interactions.parquet", "playlists.parquet", "tracks.parquet"])
def test_damaged_tables_are_one_sentence(copy, name):
    path = next((copy / "prepared").glob(f"*/{name}"))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for command in ("run", "train", "evaluate"):
        refused(sasrec(command, "--data-dir", copy), "")


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


def test_nobody_is_best_where_even_the_oracle_finds_nothing(capsys):
    """Shares of the best possible, where that is 0: left out instead of a division by zero."""
    from sasrec_utils.cli.output import print_reports

    train = Sequences.from_lists([[1, 2, 3], [2, 3, 1]])
    report = evaluate(Popularity.fit(train, 3), Sequences.from_lists([[1], [2]]), [2, 3], n_boot=10)
    nothing = {metric: Interval(0.0, 0.0, 0.0) for metric in report.metrics}
    print_reports([replace(report, name="sasrec"), replace(report, name="oracle", metrics=nothing)])
    assert "share" in capsys.readouterr().out


@pytest.mark.parametrize(("interval", "sign", "text"), [
    ((0.3724, 0.3471, 0.396), False, ".372 [.347, .396]"), ((0, 0, 1), False, ".000 [.000, 1.000]"),
    ((0.1149, -0.0091, 1.0), True, "+.115 [-.009, +1.000]"), ((math.nan,) * 3, False, "- [-, -]"), ((0.9996, 0, 0), False, "1.000 [.000, .000]"),
])  # fmt: skip
def test_intervals_are_short(interval, sign, text):
    from sasrec_utils.cli.output import short

    assert short(Interval(*interval), sign) == text

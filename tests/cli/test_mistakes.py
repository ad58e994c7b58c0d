"""What is said to mistakes: one sentence that names the place and the remedy, and nothing is lost."""

from __future__ import annotations

import json
import warnings

import pytest
from command_line import SMALL, program, refused, sasrec

from sasrec_utils import cli
from sasrec_utils.checkpoints import save
from sasrec_utils.model import SASRec, SASRecConfig


@pytest.mark.parametrize(
    "name",
    ["../x", "..", ".", "", " ", "a/b", "/nowhere/x", "C:x", "a\\b", "con", "LPT1.txt", "x.", " x", "a\nb", "a*"],
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
    (["run", "--min-count", "0"], "less than 1"), (["run", "--playlists", "0"], "less than 1"),
    (["run", "--lr", "fast"], "fast"),
    (["run", "--preset", "other"], "other"), (["train", "--shape", "round"], "round"),
    (["make-data", "--playlists", "-3"], "less than"),
    (["evaluate", "--protocol", "other"], "other"), (["recommend", "-k", "x"], "x"),
    (["prepare", "--processes", "0"], "less than 1"),
])  # fmt: skip
def test_a_wrong_option_is_refused_before_anything_is_done(arguments, word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(sasrec(*arguments), word)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("option", "value", "word"), [
    ("--loss", "nonsense", "sampled_softmax"), ("--precision", "transformer-engine", "bf16-mixed"),
    ("--negatives", "0", "less"),
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
def test_damaged_tables_are_made_again(copy, name):
    path = next((copy / "prepared").glob(f"*/{name}"))
    before = path.read_bytes()
    path.write_bytes(before[: len(before) // 2])
    with pytest.warns(UserWarning, match="missing or damaged and have been made again"):
        assert sasrec("evaluate", "--data-dir", copy).code == 0
    assert path.read_bytes() == before


def test_a_warning_is_a_sentence(monkeypatch):
    """Without the file and the line of our code, and without a second line; only while a command runs."""
    shown = []

    def warn(_) -> int:
        shown.append(warnings.formatwarning(UserWarning("one file\nwas skipped"), UserWarning, "file.py", 7))
        return 0

    before = warnings.formatwarning
    monkeypatch.setitem(cli.COMMANDS, "tracks", warn)
    assert sasrec("tracks", "a").code == 0 and shown == ["sasrec: one file was skipped\n"]
    assert warnings.formatwarning is before


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

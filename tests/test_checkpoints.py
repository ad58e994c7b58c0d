"""Checkpoints come back whole or say what is wrong with them; two writers never mix; nothing on disk runs code."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save as to_safetensors
from test_training import PLAN, POSITIONS, TRAIN, VALID, fresh, same_weights

from sasrec_utils import checkpoints
from sasrec_utils.checkpoints import CheckpointError, load, save
from sasrec_utils.mpd.files import lock
from sasrec_utils.training import fit


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("artists", [0, 3])
def test_a_saved_model_comes_back(positions, tied, artists, tmp_path):
    model = fresh(seed=4, positions=positions, tied=tied, n_artists=artists)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.1)
    save(tmp_path / "deep" / "er", model, {"extra": [1, "two"]})
    again, about = load(tmp_path / "deep" / "er")
    assert same_weights(model, again) and again.config == model.config and not again.training
    assert about["extra"] == [1, "two"] and about["model"] == asdict(model.config)
    assert np.array_equal(model.score(VALID), again.score(VALID))
    assert sorted(path.name for path in (tmp_path / "deep" / "er").iterdir()) == ["config.json", "model.safetensors"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    directory = tmp_path_factory.mktemp("saved")
    fit(fresh(), TRAIN, VALID, replace(PLAN, epochs=1), directory, progress=False)
    return directory


def one_clear_sentence(error: CheckpointError, directory: Path) -> None:
    text = str(error)
    assert text.startswith(str(directory)) and "\n" not in text and len(text) < 600
    assert text.rstrip(".").endswith(
        ("train the model again", "train a model there first", "train one with `train`")
    ), text


def mutilate(directory: Path, name: str, change) -> None:
    path = directory / name
    path.write_bytes(change(path.read_bytes()))


def edit(**changes):
    return lambda content: json.dumps(json.loads(content) | changes).encode()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
@pytest.mark.parametrize(
    "change",
    [
        None, lambda b: b"", lambda b: b"\0" * len(b), lambda b: b[: len(b) // 2], lambda b: b[:-3],
        lambda b: b"\x80\x04K\x01." + b, lambda b: b"[1, 2]", lambda b: b"{}", lambda b: b"[" * 100_000,
        lambda b: b"\xff\xfe" + b, lambda b: (2**63).to_bytes(8, "little") + b[8:],
    ],
)  # fmt: skip
def test_a_damaged_file_is_named(saved, tmp_path, name, change):
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    if change is None:
        (tmp_path / name).unlink()
    else:
        mutilate(tmp_path, name, change)
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path)
    one_clear_sentence(caught.value, tmp_path)
    assert name in str(caught.value)


def test_files_that_do_not_belong_together_are_found_out(saved, tmp_path):
    def expect(word):
        with pytest.raises(CheckpointError, match=word) as caught:
            load(tmp_path / "it")
        one_clear_sentence(caught.value, tmp_path / "it")

    def start(name=None, change=None):
        shutil.rmtree(tmp_path / "it", ignore_errors=True)
        shutil.copytree(saved, tmp_path / "it")
        if name:
            mutilate(tmp_path / "it", name, change)

    model = json.loads((saved / "config.json").read_text())["model"]
    start("config.json", edit(kind="other"))
    expect("not the settings of a SASRec")
    start("config.json", edit(format=99))
    expect("format 99")
    start("config.json", edit(model=model | {"dim": 32}))
    expect("different runs")
    start("config.json", edit(model=None))
    expect("different runs")
    save(tmp_path / "other", fresh(dim=8))
    start()
    shutil.copy(tmp_path / "other" / "model.safetensors", tmp_path / "it")
    expect("different runs")
    # Both files agree about a shape that the weights do not have, or that no model can have.
    for wrong in ({"dim": 32}, {"blocks": 2}, {"n_artists": 0}, {"n_albums": 3}, {"dim": -1}, {"dim": "16"},
                  {"dim": 16.5}, {"extra": 1}, {"n_items": 10**30}, {"positions": []}):  # fmt: skip
        start("config.json", edit(model=model | wrong))
        tensors, _ = checkpoints.read_tensors(saved / "model.safetensors")
        checkpoints.write_tensors(tmp_path / "it" / "model.safetensors", tensors, {"model": json.dumps(model | wrong)})
        expect("do not fit")
    start()
    checkpoints.write_tensors(tmp_path / "it" / "model.safetensors", tensors, {})
    expect("do not fit")
    content = to_safetensors({name: value.clone() for name, value in tensors.items()})
    (tmp_path / "it" / "model.safetensors").write_bytes(content)  # weights by somebody else, without our header
    expect("checksum")
    start()
    (tmp_path / "it" / "config.json").unlink()
    (tmp_path / "it" / "config.json").mkdir()
    expect("config.json")
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(CheckpointError, match="file"):
        load(tmp_path / "file")


harsh = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@harsh
@given(st.sampled_from(["config.json", "model.safetensors"]), st.data())
def test_no_damage_gives_any_other_error(saved, tmp_path_factory, name, data):
    """Flipped, lost or foreign bytes: either the directory still loads or there is one clear sentence."""
    directory = tmp_path_factory.mktemp("damaged")
    for file in ("config.json", "model.safetensors"):
        shutil.copy(saved / file, directory)
    mutilate(directory, name, lambda content: damage(content, data))
    try:
        load(directory)
    except CheckpointError as error:
        one_clear_sentence(error, directory)
    finally:
        shutil.rmtree(directory)


def damage(content: bytes, data) -> bytes:
    kind = data.draw(st.sampled_from(["flip", "flip head", "cut", "random", "insert"]))
    if kind == "random":
        return data.draw(st.binary(max_size=200))
    # The first kilobytes of a safetensors file say where everything is: faults there do the most.
    place = data.draw(st.integers(0, min(len(content), 4000 if kind == "flip head" else len(content)) - 1))
    if kind == "cut":
        return content[:place]
    if kind == "insert":
        return content[:place] + data.draw(st.binary(min_size=1, max_size=9)) + content[place:]
    return content[:place] + bytes([content[place] ^ data.draw(st.integers(1, 255))]) + content[place + 1 :]


@settings(harsh, max_examples=100)
@given(st.data())
def test_no_damage_to_a_run_gives_any_other_error(saved, tmp_path_factory, data):
    """A run that cannot be continued says so before it trains; one that can ends as runs do."""
    directory = tmp_path_factory.mktemp("run")
    shutil.copy(saved / "resume.safetensors", directory)
    mutilate(directory, "resume.safetensors", lambda content: damage(content, data))
    try:
        fit(fresh(), TRAIN, VALID, replace(PLAN, epochs=1), directory, resume=True, progress=False)
    except CheckpointError as error:
        assert str(error).startswith(str(directory / "resume.safetensors")) and "\n" not in str(error)
    finally:
        shutil.rmtree(directory)


def test_an_interrupted_save_leaves_the_old_model(saved, tmp_path, monkeypatch):
    save(tmp_path, fresh(seed=1))
    with monkeypatch.context() as patch, pytest.raises(OSError, match="full"):
        patch.setattr(checkpoints, "_bytes", full_disk)
        save(tmp_path, fresh(seed=2))
    assert same_weights(load(tmp_path)[0], fresh(seed=1))
    save(tmp_path, fresh(seed=2))
    assert same_weights(load(tmp_path)[0], fresh(seed=2))


def full_disk(tensor):
    raise OSError(errno.ENOSPC, "the disk is full")


class Bomb:
    """What a hostile pickle would be: loading it runs code."""

    def __reduce__(self):
        return os.mkdir, (str(Path(self.place)),)


def test_nothing_is_ever_unpickled(saved, tmp_path, monkeypatch):
    def forbidden(*_, **__):
        raise AssertionError("something was unpickled")

    shutil.copytree(saved, tmp_path / "it")
    monkeypatch.setattr(torch, "load", forbidden)
    monkeypatch.setattr(pickle, "load", forbidden)
    monkeypatch.setattr(pickle, "loads", forbidden)
    load(tmp_path / "it")
    fit(fresh(), TRAIN, VALID, replace(PLAN, epochs=1), tmp_path / "it", resume=True, progress=False)
    bomb = Bomb()
    bomb.place = tmp_path / "ran"
    for name in ("model.safetensors", "config.json", "resume.safetensors"):
        shutil.copytree(saved, tmp_path / "it", dirs_exist_ok=True)
        (tmp_path / "it" / name).write_bytes(pickle.dumps(bomb))
        with pytest.raises(CheckpointError):
            load(tmp_path / "it")
            fit(fresh(), TRAIN, VALID, replace(PLAN, epochs=1), tmp_path / "it", resume=True, progress=False)
    assert not (tmp_path / "ran").exists()


def test_every_flipped_bit_is_noticed(saved, tmp_path):
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "model.safetensors"
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in [*range(8), *rng.integers(0, len(whole), 250)]:
        bit = 1 << int(rng.integers(8))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
        with pytest.raises(CheckpointError) as caught:
            load(tmp_path)
        one_clear_sentence(caught.value, tmp_path)


def test_loading_draws_no_random_numbers(saved):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    load(saved)
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize("wrong", [{"blocks": 10**7}, {"max_len": 10**9, "positions": "rotary"}, {"n_items": 10**9}])
def test_settings_that_would_take_forever_are_refused_at_once(saved, tmp_path, wrong):
    """Crafted, and in both files alike: nothing is built before the weights have been looked at."""
    tensors, header = checkpoints.read_tensors(saved / "model.safetensors")
    shape = json.loads(header["model"]) | wrong
    about = json.loads((saved / "config.json").read_text()) | {"model": shape}
    (tmp_path / "config.json").write_text(json.dumps(about))
    if "positions" in wrong:
        tensors = {name: value for name, value in tensors.items() if name != "pos_emb.weight"}
    checkpoints.write_tensors(tmp_path / "model.safetensors", tensors, {"model": json.dumps(shape)})
    began = time.perf_counter()
    with pytest.raises(CheckpointError, match="do not fit"):
        load(tmp_path)
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "history.csv", "resume.safetensors"])
def test_a_full_disk_names_the_file_and_leaves_nothing(name, monkeypatch, tmp_path):
    opened = Path.open

    class Full:
        def __init__(self, file):
            self.file = file

        def write(self, content):
            self.file.write(bytes(content[:10]))
            raise OSError(errno.ENOSPC, "No space left on device")

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

    def open_full(path, mode="r", *args, **kwargs):
        file = opened(path, mode, *args, **kwargs)
        return Full(file) if path.name.startswith(f".{name}.") and "w" in mode else file

    monkeypatch.setattr(Path, "open", open_full)
    with pytest.raises(OSError, match="No space left") as caught:
        fit(fresh(), TRAIN, VALID, PLAN, tmp_path, progress=False)
    assert caught.value.filename == str(tmp_path / name)
    assert not [path.name for path in tmp_path.iterdir() if path.name.endswith((".tmp", ".part"))]


MEASURE = """
import resource, sys
from dataclasses import asdict
from pathlib import Path
import torch
from sasrec_utils import checkpoints
from sasrec_utils.model import SASRec, SASRecConfig
model = SASRec(SASRecConfig(150_000, dim=128))
adam = torch.optim.Adam(model.parameters(), fused=True)
for p in model.parameters():
    p.grad = torch.zeros_like(p)
adam.step()
directory, peak = Path(sys.argv[1]), lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
checkpoints.save(directory, model)
checkpoints.write_run(directory, model, adam, {}, checkpoints.RunState([{}], 0.5, 1))
print((peak() - before) * (1 if sys.platform == "darwin" else 1024) / (150_001 * 128 * 4))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no resource module")
def test_a_checkpoint_needs_no_memory_of_its_own(tmp_path):
    """Model, its best and the moments, four times the weights, go to the disk from where they are."""
    command = [sys.executable, "-c", MEASURE, str(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 0.2


def test_the_best_weights_of_an_earlier_epoch_are_in_the_run(tmp_path):
    """They come from the folder, not from memory: a later call finds them though the folder's model is lost."""
    plan = replace(PLAN, epochs=6, lr=0.05, patience=6)
    model = fresh()
    history = fit(model, TRAIN, VALID, plan, tmp_path, progress=False)
    assert history["valid_ndcg@10"].argmax() < 5
    for lost in ("model.safetensors", "config.json"):
        (tmp_path / lost).unlink()
        again = fresh(seed=4)
        fit(again, TRAIN, VALID, plan, tmp_path, resume=True, progress=False)
        assert same_weights(again, model) and same_weights(load(tmp_path)[0], model)


def test_a_second_training_into_the_same_folder_is_told_so(tmp_path):
    folder = tmp_path / "model"
    with lock(tmp_path / ".model.lock"):  # as another process would hold it
        with pytest.raises(CheckpointError, match="model: another training is writing there; wait until"):
            fit(fresh(), TRAIN, VALID, PLAN, folder, progress=False)
    with checkpoints.writing(folder):  # one process may enter twice: train_recommender around fit
        fit(fresh(), TRAIN, VALID, replace(PLAN, epochs=1), folder, progress=False)
    assert same_weights(load(folder)[0], load(folder)[0])


def test_only_the_first_of_several_processes_writes(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    save(tmp_path / "model", fresh())
    with checkpoints.writing(tmp_path / "model"):
        pass
    assert not list(tmp_path.iterdir())


def test_files_of_killed_writers_are_cleared_away(tmp_path):
    stale = tmp_path / ".resume.safetensors.0123456789abcdef.tmp"
    stale.write_bytes(b"half")
    fit(fresh(), TRAIN, VALID, replace(PLAN, epochs=1), tmp_path, progress=False)
    assert not stale.exists()

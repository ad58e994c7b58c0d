"""Checkpoints come back whole or say what is wrong with them; two writers never mix; nothing on disk runs code."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
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

"""What every notebook begins with: the project's data and model, loaded if they are there and made if they are not.

So every notebook runs on its own and in any order, on made-up playlists or, without a change, on real slices that lie
in `data/raw`. Two notebooks that start at once wait for each other here.
"""

from __future__ import annotations

import os
import re
import sys
import tomllib
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sasrec_utils.checkpoints import CheckpointError, load, save
from sasrec_utils.model import SASRec
from sasrec_utils.mpd import has_slices, prepare
from sasrec_utils.mpd.files import lock
from sasrec_utils.recommender import Recommender, save_tracks, train_recommender
from sasrec_utils.sequences import Dataset, load_dataset
from sasrec_utils.training import fit, recipe
from sasrec_utils.world import SIDECAR, TEACHING, World, load_world, write_slices

if TYPE_CHECKING:
    from sasrec_utils.course.game import Game

__all__ = ["MPD", "Data", "data_dir", "environment", "new_game", "open_data", "open_model"]

# What is published about the Million Playlist Dataset: its own stats.txt and README (Chen, Lamere, Schedl and Zamani,
# RecSys 2018), and counts over one slice of it from notebooks published with it. No row of it is in here.
MPD = {
    "playlists": 1_000_000,
    "rows": 66_346_428,
    "tracks": 2_262_292,
    "played once": 0.475,
    "median length": 49,
    "one slice: rows": 67_503,
    "one slice: tracks": 34_443,
    "one slice: played once": 0.72,
    "one slice: plays of the top tracks": {0.01: 0.11, 0.10: 0.42},
}
# Recall@10 on real playlists, measured for this series on 7,071 of them with ten followers or more (each track in five
# playlists at least, the last track of each from all before it, all tracks ranked).
REAL_RECALL = {"item-kNN (no order)": 0.113, "Markov chain (order only)": 0.065, "both blended": 0.125}
QUICK = {"playlists": 4_000, "epochs": 2}  # the model that a notebook trains when there is no better one


@dataclass(frozen=True)
class Data:
    """Where the project's data are: `raw` holds slices, `prepared` their tables; `made_up`: none of them is real."""

    raw: Path
    prepared: Path
    made_up: bool


def environment() -> dict[str, str]:
    """What the notebooks need: "ok", or what is wrong and how to put it right, for Python and every requirement.

    The list is that of pyproject.toml, beside the package.
    """
    root = Path(__file__).resolve().parents[2]
    wanted = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    found = {"python": "ok" if sys.version_info >= (3, 11) else "is older than 3.11: install a newer Python"}
    for line in wanted:
        name, least = re.match(r"([\w-]+)[^>]*>=([\d.]+)", line).groups()
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "is missing: run `make setup`, or pip install as the README says"
            continue
        old = _numbers(version) < _numbers(least)
        found[name] = f"is {version}, older than {least}: pip install --upgrade {name}" if old else "ok"
    return found


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)[:2]]


def data_dir() -> Path:
    """The project's data folder: `data` beside the package, or what the environment variable SASREC_DATA names."""
    return Path(os.environ.get("SASREC_DATA") or Path(__file__).resolve().parents[2] / "data")


def open_data(progress: bool = True) -> Data:
    """The prepared playlists of `data/raw`; made-up ones (the `teaching` world) are written there if it has none.

    Takes about 20 seconds the first time on two quiet cores and none after that. Raises what `prepare` and
    `write_slices` raise.
    """
    raw, prepared = data_dir() / "raw", data_dir() / "prepared"
    raw.mkdir(parents=True, exist_ok=True)
    with lock(data_dir() / ".lock"):
        if not has_slices(raw):
            write_slices(World(TEACHING), raw, progress=progress)
        folder = prepare(raw, prepared, progress=progress)
    return Data(raw, folder, (raw / SIDECAR).exists())


def new_game(round_number: int = 1, progress: bool = True) -> Game:
    """A round of guessing on the first test playlist that can be guessed, or on another one. Taught in notebook 00.

    Data and model are opened as in `open_data` and `open_model`. Raises what these raise, and ValueError for a round
    that
    there is not.
    """
    from sasrec_utils.course.game import Game  # the picker's widget is heavy, and most notebooks do not need it

    data = open_data(progress)
    dataset = load_dataset(data.prepared)
    folder, about = open_model(data, dataset, progress=progress)
    names = pd.read_parquet(data.prepared / "playlists.parquet", columns=["name"])["name"]
    names = names.iloc[dataset.split.test].to_numpy(dtype=object, na_value=None)
    return Game(dataset, Recommender.load(folder), about, load_world(data.raw), round_number, names)


def open_model(data: Data, dataset: Dataset, full: bool = False, progress: bool = True) -> tuple[Path, str]:
    """The folder of a trained model for these playlists, and one sentence that says which model it is.

    `data/models/default` (made by `make run`) if it was trained on the same playlists, split and vocabulary, as
    `load_dataset` makes them by default. If it was not: with `full` it is trained now, within three minutes; else a
    quick one, trained within a minute on a part of the playlists and kept in `data/models/quick`.
    """
    models = data_dir() / "models"
    for name, about in (("default", "The fully trained model"), ("quick", "A quickly trained model")):
        wanted = name == "default" or not full
        if wanted and _fits(models / name, data, dataset):
            return models / name, f"{about} (data/models/{name})."
    with lock(data_dir() / ".lock"):
        if full:
            train_recommender(models / "default", dataset, data.prepared.name, progress=progress)
            return models / "default", "The fully trained model (data/models/default)."
        if not _fits(models / "quick", data, dataset):
            _train_quickly(models / "quick", data, dataset, progress)
    return models / "quick", f"{about} ({QUICK['epochs']} epochs on at most {QUICK['playlists']:,} playlists)."


def _fits(folder: Path, data: Data, dataset: Dataset) -> bool:
    try:
        model, about = load(folder)
    except CheckpointError:
        return False
    if folder.name == "default" and "train_seconds" not in about:
        return False  # its training has not ended yet
    trained_on = about.get("data", {})
    return (
        trained_on.get("prepared") == data.prepared.name
        and trained_on.get("min_count") == 2
        and trained_on.get("seed") == 0
        and model.n_items == dataset.vocabulary.n_items
        and (folder / "tracks.parquet").exists()
    )


def _train_quickly(folder: Path, data: Data, dataset: Dataset, progress: bool) -> None:
    n_items = dataset.vocabulary.n_items
    shape, plan = recipe("best", n_items, int(dataset.artist_of.max()), int(dataset.album_of.max()))
    plan = replace(plan, epochs=QUICK["epochs"], batch_size=32, warmup_steps=50)
    known = slice(n_items + 1)
    model = SASRec(shape, dataset.artist_of[known], dataset.album_of[known])
    few = dataset.train.take(np.arange(min(QUICK["playlists"], len(dataset.train))))
    fit(model, few, dataset.valid.take(np.arange(min(500, len(dataset.valid)))), plan, progress=progress)
    save_tracks(folder, dataset.catalogue, dataset.vocabulary)
    save(folder, model, {"data": {"prepared": data.prepared.name, "min_count": 2, "seed": 0}, "quick": QUICK})

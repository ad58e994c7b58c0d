"""What notebook 08 works with: a world in which tracks come out, models that are told more, and what was recorded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from sasrec_utils.checkpoints import CheckpointError, load
from sasrec_utils.course.lab import data_dir
from sasrec_utils.features import TrackFeatures, load_titles, with_titles
from sasrec_utils.model import SASRec, SASRecConfig
from sasrec_utils.mpd import has_slices, prepare
from sasrec_utils.mpd.files import lock
from sasrec_utils.sequences import Dataset, Sequences, Split, load_dataset
from sasrec_utils.training import TrainConfig, fit
from sasrec_utils.world import FEATURES, TEACHING, World, release_split, write_slices

__all__ = ["PLAYLISTS", "Release", "open_release", "recorded", "returning", "trained"]

PLAYLISTS = 7_000
RELEASE = replace(TEACHING, cold_share=0.1, release=5_600)
RECORD = Path(__file__).resolve().parents[2] / "notebooks" / "data" / "features.csv"


@dataclass(frozen=True, eq=False)
class Release:
    """A world in which a tenth of the tracks come out one day: training knows the playlists from before that day.

    `data`: every track of the catalogue has a model id, the newcomers the last ones; playlists have their titles.
    `table`: the file of features. `titles`: of all playlists.
    """

    world: World
    data: Dataset
    table: Path
    titles: list[str]

    def titles_of(self, part: str) -> list[str]:
        """The titles of one part: "train", "valid" or "test"."""
        return [self.titles[u] for u in getattr(self.data.split, part)]


def open_release(progress: bool = True) -> Release:
    """The world of notebook 08 in `data/release`: made, some seconds long, if it is not there."""
    folder = data_dir() / "release"
    folder.mkdir(parents=True, exist_ok=True)
    world = World(RELEASE)
    with lock(data_dir() / ".lock"):
        if not has_slices(folder / "raw"):
            write_slices(world, folder / "raw", PLAYLISTS, progress=progress)
        prepared = prepare(folder / "raw", folder / "prepared", progress=progress)
    split = Split(*release_split(world, np.arange(PLAYLISTS)))
    titles = load_titles(prepared)
    data = with_titles(load_dataset(prepared, newcomers=True, split=split), titles)
    return Release(world, data, folder / "raw" / FEATURES, titles)


def trained(
    name: str,
    config: SASRecConfig,
    train: Sequences,
    valid: Sequences,
    features: TrackFeatures | None = None,
    artist_of: np.ndarray | None = None,
    album_of: np.ndarray | None = None,
    epochs: int = 3,
) -> SASRec:
    """A model of this shape: the one in `data/release/models`, or, if none like it is there, trained now and kept."""
    folder = data_dir() / "release" / "models" / name
    try:
        model, about = load(folder)
        if model.config == config and about.get("epochs") == epochs:
            return model
    except CheckpointError:
        pass
    known = slice(config.n_items + 1)
    groups = [None if ids is None else ids[known] for ids in (artist_of, album_of)]
    model = SASRec(config, *groups, features=features)
    plan = TrainConfig(epochs=epochs, batch_size=64, lr=5e-3, table_lr=5.0, unseen_only=True)
    fit(model, train, valid, plan, folder, progress=False, extra={"epochs": epochs})
    return model


def recorded(world: str, metric: str = "recall@10") -> pd.DataFrame:
    """What `benchmarks/features.py` has measured in one world: a row for each model and group of targets."""
    record = pd.read_csv(RECORD)
    return record[(record["world"] == world) & (record["metric"] == metric)].set_index(["model", "group"])


def returning(world: World, people: int, playlists: int, seed: int = 0) -> tuple[Sequences, np.ndarray]:
    """Playlists of people who come back, each with one mood of their own: (world ids + 1, who made each playlist).

    As in the listening logs of LastFM: the same people in training and later. Playlist u is made by somebody whose mood
    is the hidden mood of the u-th playlist that the world draws.
    """
    parts = [world.draw_slice(index, 1_000) for index in range(-(-playlists // 1_000))]
    items = np.concatenate([part.tracks for part in parts]) + 1
    lengths = np.concatenate([np.diff(part.offsets) for part in parts])
    moods = np.concatenate([part.mood for part in parts])
    each = -(-people // world.config.moods)  # people of one mood
    who = moods * each + np.random.default_rng(seed).integers(0, each, len(moods))
    whole = Sequences(items, np.concatenate([[0], np.cumsum(lengths)]))
    return whole.take(np.arange(playlists)), who[:playlists]

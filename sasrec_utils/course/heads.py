"""The model whose heads notebook 04 reads: the package's best one as it is without a pointer.

A pointer (where the default model has one) looks up the artists of the history itself, and the heads then have nothing
left to do there. Without it they have to find what stood some steps before, and that is what the notebook shows.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sasrec_utils.course import lab
from sasrec_utils.model import SASRec
from sasrec_utils.mpd.files import lock
from sasrec_utils.sequences import Dataset
from sasrec_utils.training import CheckpointError, fit, load, recipe, save

__all__ = ["open_heads"]

FOLDERS = ("heads", "second")  # data/models/…, by seed


def open_heads(data: lab.Data, dataset: Dataset, seed: int = 0, progress: bool = True) -> Path:
    """The folder of the trained model of this seed (0 or 1); trained now, within some minutes, if it is not there.

    Seed 0 is the default model itself where that has no pointer. Taught in notebook 04.
    """
    models = lab.data_dir() / "models"
    if seed == 0 and _fits(models / "default", data):
        return models / "default"
    models.mkdir(parents=True, exist_ok=True)
    folder = models / FOLDERS[seed]
    with lock(models / ".reading.lock"):
        if not _fits(folder, data):
            n_items = dataset.vocabulary.n_items
            shape, plan = recipe("best", n_items, int(dataset.artist_of.max()), int(dataset.album_of.max()))
            if getattr(shape, "pointer", False):
                shape = replace(shape, pointer=False)
            known = slice(n_items + 1)
            model = SASRec(shape, dataset.artist_of[known], dataset.album_of[known], seed=seed)
            history = fit(model, dataset.train, dataset.valid, replace(plan, seed=seed), folder, progress=progress)
            seconds = round(float(history["seconds"].sum()), 1)
            save(folder, model, {"data": {"prepared": data.prepared.name}, "train_seconds": seconds})
    return folder


def _fits(folder: Path, data: lab.Data) -> bool:
    try:
        model, about = load(folder)
    except CheckpointError:
        return False
    trained = "train_seconds" in about and about.get("data", {}).get("prepared") == data.prepared.name
    return trained and model.config.positions == "relative" and not getattr(model.config, "pointer", False)

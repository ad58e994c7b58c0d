"""What the heads of two trained models do: the record that notebook 04 shows beside the reader's own model.

    python benchmarks/heads.py [--notebook notebooks/04_heads.ipynb]

Runs the notebook's own cells (nothing is measured twice in two ways) on the models of seed 0 and seed 1, and writes
`heads.csv`, `heads_swap.csv` and `heads_direct.csv` into `data` beside the notebook. Trains the models that are missing
(some minutes each); the measuring takes about a minute a seed on two quiet cores.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nbformat
import pandas as pd

NOTEBOOK = Path(__file__).resolve().parents[1] / "notebooks" / "04_heads.ipynb"
NOT_MEASURING = ("recorded", "checks.distance_bias", "checks.cut_head", "checks.head_loss", "distance_bias(")


def measure(notebook: Path, seed: int) -> dict:
    """The names that the notebook's measuring cells leave behind, run on the model of this seed."""
    scope: dict = {}
    for cell in nbformat.read(notebook, as_version=4).cells:
        wanted = cell.cell_type == "code" and not any(word in cell.source for word in NOT_MEASURING)
        if wanted and "exercise" not in cell.metadata.get("tags", []):
            exec(cell.source.replace("dataset, seed=0)", f"dataset, seed={seed})"), scope)
        if "direct" in scope:
            break
    return scope


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--notebook", type=Path, default=NOTEBOOK)
    args = parser.parse_args()
    rows, swaps, direct = [], [], {}
    for seed in (0, 1):
        found = measure(args.notebook, seed)
        for change, effect in found["effects"].items():
            rows += [(seed, change, group, *value) for group, value in effect.items()]
        swaps += [(seed, playlist, a, b) for playlist, (a, b) in found["swap"].items()]
        direct[f"seed {seed}"] = found["direct"]
    folder = args.notebook.parent / "data"
    folder.mkdir(exist_ok=True)
    effects = pd.DataFrame(rows, columns=["seed", "change", "group", "mean", "low", "high"])
    effects.round(4).to_csv(folder / "heads.csv", index=False)
    swaps = pd.DataFrame(swaps, columns=["seed", "playlist", "P(artist A)", "P(artist B)"])
    swaps.round(4).to_csv(folder / "heads_swap.csv", index=False)
    pd.DataFrame(direct).rename_axis("part").round(4).to_csv(folder / "heads_direct.csv")


if __name__ == "__main__":
    main()

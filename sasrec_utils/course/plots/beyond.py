"""Figures of what a model has learned about tracks beside their ids (notebook 08)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from sasrec_utils.course.plots.style import OKABE_ITO, Picture, styled

MARKERS = "osD^vPX*"


@styled
def maps(
    panels: dict[str, np.ndarray], groups: np.ndarray, names: Sequence[str], finding: str, new: np.ndarray | None = None
) -> Picture:
    """Tracks as points, a panel for each kind of vector [n, D], seen from its two widest sides (PCA).

    `groups` int [n]: which of `names` (at most eight) a track belongs to, by colour and marker. `new` bool [n]: drawn
    hollow, larger and on top. Rows of NaN are left out of their panel. The titles say how many of a track's ten nearest
    neighbours, in all D dimensions, belong to its own group. Taught in notebook 08.
    """
    figure = Figure(figsize=(8.4, 4.5), layout="constrained")
    colours = [c for name, c in OKABE_ITO.items() if name != "black"] + ["#7F7F7F"]
    new = np.zeros(len(groups), bool) if new is None else new
    each = []
    for axes, (title, vectors) in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels.items(), strict=True):
        there = np.isfinite(vectors).all(1)
        points, group, fresh_ones = _two_widest(vectors[there]), groups[there], new[there]
        for g in range(len(names)):
            style = {"marker": MARKERS[g], "s": 12, "linewidths": 0.7}
            old, fresh = (points[(group == g) & kind] for kind in (~fresh_ones, fresh_ones))
            axes.scatter(*old.T, color=colours[g], alpha=0.55, label=names[g], **style)
            axes.scatter(*fresh.T, facecolors="white", edgecolors=colours[g], **style | {"s": 34, "linewidths": 1.3})
        axes.set_xticks([])
        axes.set_yticks([])
        axes.grid(visible=False)
        axes.set(xlabel="widest direction", ylabel="second widest")
        share = same_group(vectors[there], group)
        axes.set_title(f"{title}: {share:.0%} of neighbours alike", fontsize=10, fontweight="normal")
        often = "few" if share < 0.4 else "many" if share < 0.8 else "nearly all"
        each.append(f"{title}: {often} of a track's ten nearest neighbours belong to its own group")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9, markerscale=1.6)
    figure.suptitle(finding, fontsize=11, fontweight="bold", x=0.01, ha="left")
    return Picture(figure, f"{'; '.join(each)}. Colours are {', '.join(names)}.")


def same_group(vectors: np.ndarray, groups: np.ndarray, k: int = 10) -> float:
    """Share of the k nearest neighbours (by cosine) that belong to a track's own group; mean over tracks."""
    near = nearest(vectors, np.arange(len(vectors)), k)
    return float((groups[near] == groups[:, None]).mean())


def nearest(vectors: np.ndarray, rows: np.ndarray, k: int) -> np.ndarray:
    """Rows of the k nearest neighbours of some rows, by cosine, nearest first; int [len(rows), k]."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    cosine = unit[rows] @ unit.T
    cosine[np.arange(len(rows)), rows] = -np.inf
    return np.argsort(-cosine, axis=1, kind="stable")[:, :k]


def _two_widest(vectors: np.ndarray) -> np.ndarray:
    centred = vectors - vectors.mean(0)
    _, _, sides = np.linalg.svd(centred, full_matrices=False)
    sides = sides[:2] * np.sign(sides[:2, np.abs(sides[:2]).argmax(1)].diagonal())[:, None]  # the sign is arbitrary
    return centred @ sides.T

"""Drawings of what cannot be plotted: the way from a file to a batch, and the shift with its mask (notebook 02).

One look for all: rounded boxes, one colour a track, arrows from left to right, hatching for what is empty or hidden.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from sasrec_utils.course.plots.style import OKABE_ITO, Picture, styled

GREY, INK = "#8A8A8A", "#222222"
# Light enough for black numbers. A track is told by its number first; the colour only helps to follow it.
TRACKS = ("#BFE0F5", "#FBD9A0", "#B5E3D2", "#F7D3E3", "#F6EFA8", "#D9D9D9")


@styled
def journey(catalogue: Sequence[Sequence[int]], model: Sequence[Sequence[int]], ids: np.ndarray) -> Picture:
    """JSON → tables → windows → batch, for two toy playlists. Taught in notebook 02 §1.

    `catalogue`, `model`: the playlists in catalogue ids and in model ids; `ids` int [B, L]: the batch, 0 = padding.
    """
    axes = _canvas(10.4, 4.0)
    axes.text(0.15, 3.78, "From a file to a batch: names become numbers, and playlists a rectangle", fontsize=11,
              fontweight="bold", color=INK, va="center")  # fmt: skip
    tops = (0.25, 3.05, 5.75, 8.5)
    names = ("1  JSON", "2  tables", "3  windows", "4  a batch")
    notes = (
        "a playlist as it comes,\nwith names and URIs",
        "one row a track,\nnumbered by the catalogue",
        "numbered for the model;\ndashed: a target only",
        "equally long rows,\nfilled up with 0",
    )
    for x, name, note in zip(tops, names, notes, strict=True):
        axes.text(x, 3.36, name, fontsize=10, fontweight="bold", color=INK, va="center")
        axes.text(x, 0.1, note, fontsize=9, color="#555555", va="bottom")
    # 1: a sheet of paper with the file's first lines
    axes.add_patch(
        FancyBboxPatch((0.25, 1.0), 2.05, 2.0, boxstyle="round,pad=0.05", facecolor="#F7F7F4", edgecolor=GREY)
    )
    lines = [
        "{'pid': 0,",
        " 'name': 'rainy day',",
        " 'tracks': [",
        "  {'track_uri': …},",
        "  {'track_uri': …},",
        "  …]}",
    ]
    for i, text in enumerate(lines):
        axes.text(
            0.36,
            2.82 - 0.325 * i,
            text.replace("'", '"'),
            fontsize=8,
            family="DejaVu Sans Mono",
            color=INK,
            va="center",
        )
    # 2: the table of interactions
    axes.text(3.05, 2.92, "playlist", fontsize=8, color="#555555", va="center")
    axes.text(3.92, 2.92, "track", fontsize=8, color="#555555", va="center")
    rows = [(u, track) for u, playlist in enumerate(catalogue) for track in playlist]
    step = min(0.3, 2.05 / len(rows))
    number = {c: m for u in range(len(catalogue)) for c, m in zip(catalogue[u], model[u], strict=True)}
    for i, (u, track) in enumerate(rows):
        y = 2.55 - step * i
        _cell(axes, 3.05, y, str(u), 0.62, step * 0.88, "white")
        _cell(axes, 3.85, y, str(track), 0.62, step * 0.88, _colour(number[track]))
    # 3: the same playlists in model ids, each a strip
    for u, playlist in enumerate(model):
        y = 2.35 - 0.9 * u
        axes.text(5.75, y + 0.46, f"playlist {u}", fontsize=8, color="#555555", va="center")
        for place, track in enumerate(playlist):
            last = place == len(playlist) - 1
            _cell(axes, 5.75 + 0.4 * place, y, str(track), 0.36, 0.34, _colour(track), dashed=last)
    # 4: the inputs, padded
    for row, values in enumerate(ids):
        for place, track in enumerate(values):
            y = 2.35 - 0.42 * row
            _cell(axes, 8.5 + 0.4 * place, y, str(int(track)), 0.36, 0.36, _colour(int(track)) if track else "white",
                  hatch="" if track else "////")  # fmt: skip
    axes.text(8.5, 2.85, "ids [B, L]", fontsize=8, color="#555555", va="center")
    for left, right in ((2.4, 2.95), (4.6, 5.6), (7.75, 8.38)):
        _arrow(axes, (left, 1.95), (right, 1.95))
    inputs = "; ".join(" ".join(str(int(i)) for i in row) for row in ids)
    return Picture(
        axes.figure,
        f"a JSON file with {len(catalogue)} playlists becomes a table of {len(rows)} rows (playlist, catalogue id), "
        f"the table becomes sequences of model ids ({'; '.join(' '.join(map(str, p)) for p in model)}), and all but "
        f"the last track of each become the rows of a batch, filled up with 0: {inputs}.",
    )


@styled
def shift(playlist: Sequence[int]) -> Picture:
    """The target is the input moved by one, and the mask that hides it. `playlist`: model ids. Notebook 02 §2."""
    inputs, targets = playlist[:-1], playlist[1:]
    n = len(inputs)
    axes = _canvas(9.4, 3.5)
    axes.text(
        0.15, 3.2, "The target is the input moved by one …", fontsize=11, fontweight="bold", color=INK, va="center"
    )
    for name, y in (("input", 2.2), ("target", 0.75)):
        axes.text(0.15, y + 0.22, name, fontsize=9, color="#555555", va="center")
    for place in range(n):
        x = 0.95 + 0.75 * place
        _cell(axes, x, 2.2, str(inputs[place]), 0.46, 0.44, _colour(inputs[place]))
        _cell(axes, x, 0.75, str(targets[place]), 0.46, 0.44, _colour(targets[place]))
        _arrow(axes, (x + 0.23, 2.12), (x + 0.23, 1.26))
        if place + 1 < n:  # the same track stands at the next input
            axes.add_patch(FancyArrowPatch((x + 0.98, 2.12), (x + 0.4, 1.26), arrowstyle="-", linestyle=":",
                                           color=OKABE_ITO["vermilion"], linewidth=1.5))  # fmt: skip
    axes.text(
        0.95,
        0.32,
        "dotted: the answer, already among the inputs",
        fontsize=9,
        color=OKABE_ITO["vermilion"],
        va="center",
    )
    left, size = 5.9, 0.5
    axes.text(
        left - 1.0, 3.2, "… so a mask hides what comes later", fontsize=11, fontweight="bold", color=INK, va="center"
    )
    axes.text(left + n * size / 2, 2.72, "may look at input", fontsize=9, color="#555555", ha="center", va="center")
    for row in range(n):
        y = 2.0 - size * row
        axes.text(
            left - 0.12,
            y + size / 2,
            f"to predict {targets[row]}",
            fontsize=9,
            color="#555555",
            ha="right",
            va="center",
        )
        for column in range(n):
            seen = column <= row
            x = left + size * column
            axes.add_patch(Rectangle((x, y), size * 0.94, size * 0.94, linewidth=0.9,
                                     edgecolor=INK if seen else "#B5B5B5",
                                     facecolor=_colour(inputs[column]) if seen else "white",
                                     hatch="" if seen else "////"))  # fmt: skip
            if seen:
                axes.text(x + size * 0.47, y + size * 0.47, str(inputs[column]), fontsize=10, ha="center", va="center")
            elif column == row + 1:
                axes.text(x + size * 0.47, y + size * 0.47, "★", fontsize=12, ha="center", va="center",
                          color=OKABE_ITO["vermilion"])  # fmt: skip
    axes.text(left, 2.0 - size * (n - 1) - 0.3, "hatched: hidden; ★ would be the answer itself", fontsize=9,
              color=OKABE_ITO["vermilion"], va="center")  # fmt: skip
    sees = "; ".join(f"{' '.join(map(str, inputs[: t + 1]))} to predict {targets[t]}" for t in range(n))
    return Picture(
        axes.figure,
        f"inputs {' '.join(map(str, inputs))}, targets {' '.join(map(str, targets))}. With the mask each position sees "
        f"the inputs up to its own: {sees}. The input after it, which is its target, is hidden.",
    )


def _canvas(width: float, height: float) -> Axes:
    """Empty axes whose units are inches, so that text and boxes keep their proportions."""
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    return axes


def _colour(track: int) -> str:
    return TRACKS[(track - 1) % len(TRACKS)]


def _cell(axes: Axes, x: float, y: float, text: str, width: float, height: float, colour: str, hatch: str = "",
          dashed: bool = False) -> None:  # fmt: skip
    """A rounded box with a number in it."""
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=0.06", facecolor=colour,
                                  edgecolor=GREY if hatch else INK, linewidth=0.9, hatch=hatch,
                                  linestyle="--" if dashed else "-"))  # fmt: skip
    axes.text(x + width / 2, y + height / 2, text, fontsize=10 if height > 0.3 else 8, ha="center", va="center",
              color=INK, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8} if hatch else None)  # fmt: skip


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=13, color=INK, linewidth=1.3,
                                   shrinkA=0, shrinkB=0))  # fmt: skip

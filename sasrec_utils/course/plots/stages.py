"""The two stages of notebook 09 as a drawing: many tracks on the left, ten on the right."""

from __future__ import annotations

from collections.abc import Mapping

from sasrec_utils.course.plots.diagrams import INK, _arrow, _canvas, _cell
from sasrec_utils.course.plots.style import OKABE_ITO, Picture, styled


@styled
def funnel(tracks: int, lists: Mapping[str, int], shown: int = 10) -> Picture:
    """All tracks → the best of each list → candidates → features and trees → the list that is shown.

    `tracks`: how many there are; `lists`: name of each scorer → how many candidates it names. Taught in notebook 09 §1.
    """
    axes = _canvas(10.4, 3.9)
    axes.text(0.15, 3.68, "Two stages: cheap scorers find, trees that look closely put in order", fontsize=11,
              fontweight="bold", color=INK, va="center")  # fmt: skip
    middle = 1.85
    _cell(axes, 0.2, middle - 1.3, f"all\n{tracks:,}\ntracks", 1.2, 2.6, "#BFE0F5")
    names = list(lists)
    high = 2.6 / len(names)
    for row, name in enumerate(names):
        y = middle + 1.3 - high * (row + 1) + 0.08
        _cell(axes, 2.25, y, f"{name}: best {lists[name]}", 2.05, high - 0.16, "#FBD9A0")
        _arrow(axes, (1.48, y + high / 2 - 0.08), (2.17, y + high / 2 - 0.08))
        _arrow(axes, (4.38, y + high / 2 - 0.08), (4.97, middle + 0.18 * (1.5 - row)))
    _cell(axes, 5.05, middle - 0.75, "candidates,\neach once", 1.35, 1.5, "#FBD9A0")
    _arrow(axes, (6.48, middle), (6.95, middle))
    _cell(axes, 7.03, middle - 0.75, "a row of\nfeatures for each,\ntrees score it", 1.75, 1.5, "#B5E3D2")
    _arrow(axes, (8.86, middle), (9.3, middle))
    _cell(axes, 9.38, middle - 0.45, f"the best\n{shown}", 0.85, 0.9, "#B5E3D2")
    axes.plot([6.71, 6.71], [0.42, 3.3], color=OKABE_ITO["vermilion"], linestyle="--", linewidth=1.4, zorder=0)
    axes.text(6.6, 0.22, "first stage: find", fontsize=9, color="#8A3B00", ha="right", va="center")
    axes.text(6.82, 0.22, "second stage: order", fontsize=9, color="#8A3B00", ha="left", va="center")
    named = ", ".join(f"{name} its best {take}" for name, take in lists.items())
    return Picture(
        axes.figure,
        f"first stage: of all {tracks:,} tracks {named}; together, each once, they are the candidates. Second stage: "
        f"trees score a row of features for each candidate, and the best {shown} are shown.",
    )

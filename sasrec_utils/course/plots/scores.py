"""Figures of how good a model is: against others, by group, over k, against a claim (notebooks 00, 06 and 07)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from sasrec_utils.course.plots.style import CYCLE, OKABE_ITO, Picture, line, new_axes, styled, thousands


@styled
def bars(
    names: Sequence[str],
    values: Sequence[float],
    unit: str,
    finding: str,
    intervals: Sequence[tuple[float, float]] | None = None,
    mark: int | None = None,
    digits: int = 3,
) -> Picture:
    """Some numbers side by side; `mark` is the bar that the finding is about. `intervals`: low and high of each."""
    figure, axes = new_axes(height=1.0 + 0.42 * len(names))
    for row, value in enumerate(values):
        marked = row == mark
        axes.barh(row, value, color=OKABE_ITO["orange" if marked else "sky"], hatch="///" if marked else "",
                  edgecolor=OKABE_ITO["black" if marked else "blue"], linewidth=0.8, height=0.62)  # fmt: skip
    right = np.array(values, dtype=float)
    if intervals is not None:
        low, high = np.array(intervals).T
        error = np.abs(np.stack([right - low, high - right]))
        axes.errorbar(values, range(len(names)), xerr=error, fmt="none", ecolor="black", capsize=3, linewidth=1.2)
        right = np.maximum(right, high)
    for row, value in enumerate(values):
        axes.annotate(
            f"{value:.{digits}f}", (right[row], row), xytext=(6, 0), textcoords="offset points", va="center", fontsize=9
        )
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0, max(right.max() * 1.15, 1e-9))
    axes.grid(axis="y", visible=False)
    axes.set(xlabel=unit)
    axes.set_title(finding)
    each = []
    for i, (name, value) in enumerate(zip(names, values, strict=True)):
        span = f" ({intervals[i][0]:.{digits}f} to {intervals[i][1]:.{digits}f})" if intervals is not None else ""
        each.append(f"{name} {value:.{digits}f}{span}")
    return Picture(figure, f"{unit}: {', '.join(each)}.")


@styled
def by_group(
    groups: Sequence[str],
    series: Mapping[str, Sequence[tuple[float, float, float]]],
    unit: str,
    finding: str,
) -> Picture:
    """One row per group, one marker per series (at most four), each (mean, low, high). Taught in notebook 06 §4."""
    figure, axes = new_axes(width=7.2, height=1.3 + 0.17 * len(groups) * (len(series) + 1))
    step = 0.8 / max(len(series), 2)
    for index, (name, values) in enumerate(series.items()):
        colour, marker, _ = CYCLE[index]
        mean, low, high = np.array(values, dtype=float).T
        place = np.arange(len(groups)) + (index - (len(series) - 1) / 2) * step
        error = np.stack([mean - low, high - mean])
        axes.errorbar(
            mean, place, xerr=error, fmt=marker, color=colour, capsize=2.5, linewidth=1.2, markersize=6, label=name
        )
    for edge in range(1, len(groups)):
        axes.axhline(edge - 0.5, color="#C8C8C8", linewidth=0.8)
    axes.set_yticks(range(len(groups)), groups)
    axes.set_ylim(len(groups) - 0.5, -0.5)
    top = max(high for values in series.values() for _, _, high in values)
    axes.set_xlim(0, min(1.02, top * 1.06) if top <= 1 else top * 1.06)
    axes.grid(axis="y", visible=False)
    axes.set(xlabel=unit)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(series), fontsize=9, handletextpad=0.3)
    axes.set_title(finding, pad=30)
    each = [
        f"{group}: " + ", ".join(f"{name} {values[i][0]:.3f}" for name, values in series.items())
        for i, group in enumerate(groups)
    ]
    return Picture(figure, f"{unit}. {'; '.join(each)}.")


@styled
def curves(
    x: Sequence[float],
    lines: Mapping[str, Sequence[float]],
    xlabel: str,
    unit: str,
    finding: str,
    marks: Mapping[float, str] | None = None,
    level: tuple[float, str] | None = None,
    log: bool = False,
    ranges: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None = None,
) -> Picture:
    """At most four lines over one axis. `marks`: vertical lines with their text; `level`: a horizontal one.

    A line may end before the others. `ranges`: for some of the lines, the low and high end of a bar at each point.
    """
    figure, axes = new_axes(width=7.2)
    right = max(x)
    for index, (name, y) in enumerate(lines.items()):
        line(axes, x[: len(y)], y, index, name)
        if ranges and name in ranges:
            axes.vlines(x[: len(y)], *ranges[name], color=CYCLE[index][0], linewidth=1.4)
    for place, text in (marks or {}).items():
        axes.axvline(place, color="#5F5F5F", linestyle="--", linewidth=1.2)
        axes.annotate(text, (place, 0), xycoords=("data", "axes fraction"), xytext=(4, 3), textcoords="offset points",
                      va="bottom", fontsize=9, color="#3F3F3F")  # fmt: skip
    top = max(max(y) for y in lines.values())
    if level is not None:
        axes.axhline(level[0], color=OKABE_ITO["vermilion"], linestyle="--", linewidth=1.4)
        axes.annotate(level[1], (0, level[0]), xycoords=("axes fraction", "data"), xytext=(4, 4),
                      textcoords="offset points", fontsize=9, color=OKABE_ITO["vermilion"])  # fmt: skip
        top = max(top, level[0])
    if log:
        axes.set_xscale("log")
        axes.set_xlim(min(x) * 0.85, right**1.35 / min(x) ** 0.35)
        ticks = [first * 10**power for power in range(5) for first in (1, 2, 5)]
        axes.set_xticks([tick for tick in ticks if min(x) <= tick <= right])
        thousands(axes.xaxis)
        axes.minorticks_off()
    else:
        axes.set_xlim(min(x) - 0.04 * right, right * 1.32)
    axes.set_ylim(0, top * 1.12)
    axes.set(xlabel=xlabel, ylabel=unit)
    axes.set_title(finding)
    each = [
        f"{name} " + ", ".join(f"{value:.3f}" for value in y) + f" at {', '.join(f'{v:g}' for v in x[: len(y)])}"
        for name, y in lines.items()
    ]
    words = f"{unit}, by {xlabel}: {'; '.join(each)}"
    for name, ends in (ranges or {}).items():
        low, high = map(np.asarray, ends)
        words += f"; {name} at the last point from {low[-1]:.3f} to {high[-1]:.3f}"
    if level is not None:
        words += f"; the dashed line is at {level[0]:g}, {level[1]}"
    return Picture(figure, words + ".")


@styled
def against_claim(
    names: Sequence[str],
    values: Sequence[float],
    claimed: float,
    unit: str,
    finding: str,
    bounds: Sequence[int] = (),
    digits: int = 3,
) -> Picture:
    """Numbers beside one that is claimed (a dashed line). `bounds`: rows that are upper bounds, drawn hatched.

    Taught in notebook 06 §11.
    """
    figure, axes = new_axes(width=7.2, height=1.4 + 0.34 * len(names))
    for row, value in enumerate(values):
        bound = row in bounds
        axes.barh(row, value, color="white" if bound else OKABE_ITO["sky"], hatch="///" if bound else "",
                  edgecolor=OKABE_ITO["blue"], linewidth=0.8, height=0.62)  # fmt: skip
        axes.annotate(f"{value:.{digits}f}", (value, row), xytext=(5, 0), textcoords="offset points", va="center",
                      fontsize=9, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})  # fmt: skip
    axes.axvline(claimed, color=OKABE_ITO["vermilion"], linestyle="--", linewidth=1.6)
    axes.annotate(f"claimed: {claimed:g}", (claimed, 1), xycoords=("data", "axes fraction"), xytext=(5, 3),
                  textcoords="offset points", color=OKABE_ITO["vermilion"], fontsize=9)  # fmt: skip
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.6)
    axes.set_xlim(0, max(*values, claimed) * 1.12)
    axes.grid(axis="y", visible=False)
    axes.set(xlabel=unit)
    figure.suptitle(finding, fontsize=11, fontweight="bold", x=0.01, ha="left")  # wider than the axes
    each = ", ".join(f"{name} {value:.{digits}f}" for name, value in zip(names, values, strict=True))
    words = f"{unit}, against the claimed {claimed:g}: {each}"
    if bounds:
        words += "; hatched: " + ", ".join(names[row] for row in bounds)
    return Picture(figure, words + ".")


@styled
def continuation(
    seeds: Sequence[int], metrics: Mapping[str, Mapping[str, Sequence[tuple[float, float, float]]]], finding: str
) -> Picture:
    """A panel per metric, a line per model over the number of seed tracks: (mean, low, high) each. Notebook 06 §8."""
    figure = Figure(figsize=(8.6, 3.5), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(metrics)))
    for axes, (metric, models) in zip(panels, metrics.items(), strict=True):
        top = 0.0
        for index, (name, values) in enumerate(models.items()):
            colour, marker, style = CYCLE[index]
            mean, low, high = np.array(values, dtype=float).T
            place = np.arange(len(seeds)) + 0.07 * (index - (len(models) - 1) / 2)  # side by side
            axes.errorbar(place, mean, yerr=[mean - low, high - mean], color=colour, marker=marker, linestyle=style,
                          capsize=2, linewidth=1.4, label=name)  # fmt: skip
            top = max(top, high.max())
        axes.set_xticks(range(len(seeds)), seeds)
        axes.set_ylim(0, top * 1.08)
        axes.set(xlabel="seed tracks")
        axes.set_title(metric, fontsize=10)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=9)
    figure.suptitle(finding, fontsize=11, fontweight="bold", x=0.01, ha="left")
    each = [
        f"{metric}: "
        + ", ".join(f"{name} {' '.join(f'{v[0]:.3f}' for v in values)}" for name, values in models.items())
        for metric, models in metrics.items()
    ]
    return Picture(figure, f"with {', '.join(map(str, seeds))} seeds, {'; '.join(each)}.")


@styled
def promises(names: Sequence[str], promised: Sequence[float], kept: Sequence[tuple[float, float, float]]) -> Picture:
    """What models say that their ten tracks are worth, and what they are. `kept`: mean, low, high. Notebook 07 §2."""
    figure, axes = new_axes(height=1.3 + 0.62 * len(names))
    for row, (said, (mean, low, high)) in enumerate(zip(promised, kept, strict=True)):
        axes.barh(row - 0.19, said, color=OKABE_ITO["orange"], hatch="///", edgecolor=OKABE_ITO["black"],
                  linewidth=0.8, height=0.36, label="said" if row == 0 else None)  # fmt: skip
        axes.barh(row + 0.19, mean, color=OKABE_ITO["sky"], edgecolor=OKABE_ITO["blue"], linewidth=0.8, height=0.36,
                  label="found" if row == 0 else None)  # fmt: skip
        axes.errorbar([mean], [row + 0.19], xerr=[[mean - low], [high - mean]], fmt="none", ecolor="black", capsize=3)
        for y, value, right in ((row - 0.19, said, said), (row + 0.19, mean, high)):
            axes.annotate(
                f"{value:.3f}", (right, y), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8
            )
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0, max(*promised, *(high for *_, high in kept)) * 1.12)
    axes.grid(axis="y", visible=False)
    axes.legend(loc="center right")
    axes.set(xlabel="chance that the next track is among the ten")
    off = [abs(said - mean) for said, (mean, _, _) in zip(promised, kept, strict=True)]
    axes.set_title(f"{names[int(np.argmax(off))]} is furthest from its word")
    each = "; ".join(
        f"{name} says {said:.3f} and finds {mean:.3f} ({low:.3f} to {high:.3f})"
        for name, said, (mean, low, high) in zip(names, promised, kept, strict=True)
    )
    return Picture(figure, f"chance that the next track is among the ten: {each}.")

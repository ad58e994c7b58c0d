"""Figures of what grows with the data: seconds and memory against size, both on logarithmic axes (notebook 10)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from sasrec_utils.course.plots.style import CYCLE, Picture, styled

Curve = tuple[Sequence[float], Sequence[float]]  # sizes, values


def power_law(sizes: Sequence[float], values: Sequence[float], wanted: float) -> float:
    """What c · size^a through the measured values, by least squares of the logarithms, says about the size `wanted`."""
    slope, start = np.polyfit(np.log(sizes), np.log(values), 1)
    return float(np.exp(start + slope * np.log(wanted)))


@styled
def growth(
    panels: Mapping[str, Mapping[str, Curve]],
    across: str,
    finding: str,
    estimated: Mapping[str, Mapping[str, Curve]] = {},
) -> Picture:
    """Values against sizes, a panel for each unit: {"seconds": {"prepare": (sizes, values), …}, …}; up to four curves.

    `across`: what the sizes are. `estimated`: points of the same curves that nobody has measured; hollow, dashed, and
    named as estimates in the words. Taught in notebook 10 §4.
    """
    figure = Figure(figsize=(max(5.6, 4.2 * len(panels)), 3.5), layout="constrained")
    words = []
    for axes, (unit, curves) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        ticks: set[float] = set()
        last = max(sizes[-1] for sizes, _ in [*curves.values(), *estimated.get(unit, {}).values()])
        for series, (name, (sizes, values)) in enumerate(curves.items()):
            colour, marker, style = CYCLE[series]
            axes.plot(sizes, values, color=colour, marker=marker, linestyle=style)
            ticks, end = ticks | set(sizes), (sizes[-1], values[-1])
            told = f"{name} {_each(sizes, values)}"
            if name in estimated.get(unit, {}):
                more, guessed = estimated[unit][name]
                axes.plot([sizes[-1], *more], [values[-1], *guessed], color=colour, linestyle=":", linewidth=1.4)
                axes.plot(more, guessed, color=colour, marker=marker, linestyle="", markerfacecolor="white")
                ticks, end = ticks | set(more), (more[-1], guessed[-1])
                told += f", estimated {_each(more, guessed)}"
            # Beside its end; a curve that ends in the middle, above it, where the others do not pass.
            place = {"xytext": (8, 0), "va": "center"} if end[0] == last else {"xytext": (-6, 5), "ha": "right"}
            axes.annotate(name, end, textcoords="offset points", fontsize=9, **place)
            words.append(f"{unit}, {told}")
        axes.set(xscale="log", yscale="log", xlabel=across, ylabel=f"{unit} (log scale)")
        axes.set_xticks(sorted(ticks), [_short(size) for size in sorted(ticks)], fontsize=9)
        axes.minorticks_off()
        low, high = axes.get_xlim()
        axes.set_xlim(low, high * (high / low) ** 0.35)  # room for the names
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    figure.suptitle(finding, fontsize=11, fontweight="bold", x=0.01, ha="left")
    return Picture(figure, f"By {across}. " + "; ".join(words) + ".")


def _each(sizes: Sequence[float], values: Sequence[float]) -> str:
    points = zip(sizes, values, strict=True)
    return ", ".join(f"{f'{v:,.0f}' if v >= 100 else f'{v:.3g}'} at {_short(size)}" for size, v in points)


def _short(size: float) -> str:
    """10,000 as 10k, 2,262,292 as 2.3M."""
    if size >= 1e6:
        return f"{size / 1e6:.2g}M"
    return f"{size / 1e3:g}k" if size >= 1e4 else f"{size:,.0f}"

"""Figures of what a model computes and looks at (notebooks 00, 03, 04 and 07)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from sasrec_utils.course.plots.style import CYCLE, OKABE_ITO, Picture, line, new_axes, number, styled, thousands

HATCHED = {"facecolor": "white", "edgecolor": "#B5B5B5", "hatch": "////", "linewidth": 0}
MAGNITUDE = "Blues"  # white is 0: black figures are readable on most of it, white ones on the rest


def _title(figure: Figure, finding: str) -> None:
    figure.suptitle(finding, fontsize=11, fontweight="bold", x=0.01, ha="left")


def _bare(axes: Axes) -> None:
    """Axes of a matrix: no grid, no frame, no ticks."""
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def _short(names: Sequence[str], most: int = 22) -> list[str]:
    return [name if len(name) <= most else name[: most - 1] + "…" for name in names]


def _weight(axes: Axes, column: float, row: float, value: float, dark: float) -> None:
    """A weight written into its cell; `dark`: from here on the cell is so dark that the figure is white."""
    text = "1" if value >= 0.995 else f"{value:.2f}"[1:]
    axes.text(column, row, text, ha="center", va="center", fontsize=8, color="white" if value > dark else "black")


@styled
def attention(
    weights: np.ndarray,
    tracks: Sequence[str],
    names: Sequence[str] | None = None,
    finding: str = "Where each track looks",
) -> Picture:
    """Where each position looks. `weights` [H, L, L], row = query, column = key; `tracks`: L names, oldest first;
    `names`: of the heads.

    The masked upper triangle (the future) is hatched; values are printed when L ≤ 8. Taught in notebook 03 §6.
    """
    heads, length = len(weights), len(tracks)
    names = names or [f"head {head + 1}" for head in range(heads)]
    figure = Figure(figsize=(1.9 + 2.9 * heads, 4.5), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, heads, sharey=True))
    past = np.tril(np.ones((length, length), dtype=bool))
    for head, (axes, values) in enumerate(zip(panels, weights, strict=True)):
        image = axes.imshow(np.where(past, values, np.nan), cmap=MAGNITUDE, vmin=0, vmax=1)
        for row, column in zip(*np.nonzero(~past), strict=True):
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, **HATCHED))
        if length <= 8:
            for row, column in zip(*np.nonzero(past), strict=True):
                _weight(axes, column, row, values[row, column], 0.6)
        _bare(axes)
        axes.set_xticks(range(length), _short(tracks, 16), fontsize=8, rotation=45, ha="right")
        axes.set_yticks(range(length), _short(tracks), fontsize=8)
        axes.set(xlabel="key: the track looked at")
        axes.set_title(names[head], fontsize=10)
    panels[0].set_ylabel("query: the track that looks")
    figure.colorbar(image, ax=panels, shrink=0.75, label="weight", pad=0.02)
    _title(figure, finding)
    newest = weights[:, -1]
    most = newest.argmax(1)
    where = [f"{length - 1 - m} back" if m < length - 1 else "itself" for m in most]
    each = "; ".join(f"{names[h]} gives {newest[h, m]:.2f} to “{tracks[m]}” ({where[h]})" for h, m in enumerate(most))
    lack = "What a row lacks to 1 goes to no track. " if (weights.sum(-1) < 0.995).any() else ""
    return Picture(figure, f"from the newest track, {each}. {lack}Nothing to its right is looked at.")


@styled
def matrices(
    parts: Mapping[str, np.ndarray],
    rows: Sequence[str],
    finding: str,
    signs: Sequence[str] = (),
    columns: Sequence[str] = (),
) -> Picture:
    """Small matrices side by side with every value printed; `signs` stand between them ("+", "=", "→").

    `parts`: name → [R, C], R the number of `rows`; `columns`: the C headings, written over every matrix that has C
    columns. False in a matrix of True and False is hatched. Taught in notebook 03, where a toy playlist is carried
    through the model.
    """
    arrays = {name: np.asarray(part) for name, part in parts.items()}
    widths = [part.shape[1] for part in arrays.values()]
    size = (min(1.6 + 0.62 * sum(widths) + 0.5 * len(widths), 9.4), 1.25 + 0.36 * len(rows) + 0.2 * bool(columns))
    figure = Figure(figsize=size, layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(parts), width_ratios=widths))
    top = max(1e-9, *(np.abs(part).max() for part in arrays.values()))
    for index, (axes, (name, part)) in enumerate(zip(panels, arrays.items(), strict=True)):
        _matrix(axes, part, top, columns)
        axes.set_yticks(range(len(rows)), rows if index == 0 else [], fontsize=9)
        axes.set_xlabel(name)
        if 0 < index <= len(signs):
            axes.annotate(signs[index - 1], (0, 0.5), xycoords="axes fraction", xytext=(-9, 0), fontsize=13,
                          textcoords="offset points", ha="center", va="center")  # fmt: skip
    _title(figure, finding)
    each = []
    for name, part in arrays.items():
        if part.dtype == bool:
            each.append(f"“{name}” has {part.sum()} True, and {(~part.any(1)).sum()} rows without any")
        else:
            each.append(f"“{name}” {', '.join(number(float(value)) for value in part[-1])}")
    last = "" if any(part.dtype == bool for part in arrays.values()) else f"the last row, {rows[-1]}: "
    return Picture(figure, f"{last}{'; '.join(each)}.")


def _matrix(axes: Axes, part: np.ndarray, top: float, columns: Sequence[str] = ()) -> None:
    """One matrix [R, C] with its values: purple above 0, orange below, white 0; the palest that `top` allows."""
    hidden = ~part if part.dtype == bool else np.zeros(part.shape, dtype=bool)
    axes.imshow(part.astype(float), cmap="PuOr", vmin=-2 * top, vmax=2 * top, aspect="auto")
    for row, column in np.ndindex(part.shape):
        if hidden[row, column]:
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, **HATCHED))
        else:
            text = "True" if part.dtype == bool else number(float(part[row, column]))
            axes.text(column, row, text, ha="center", va="center", fontsize=9)
    _bare(axes)
    axes.xaxis.set_ticks_position("top")
    axes.tick_params(length=0)
    headings = columns if len(columns) == part.shape[1] else []
    axes.set_xticks(range(len(headings)), headings, fontsize=8)


@styled
def one_query(
    rows: Sequence[str],
    columns: Sequence[str],
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    finding: str,
    scale: float = 1.0,
) -> Picture:
    """The whole of attention for one query, the last row: query → products → softmax → weighted values → sum.

    `q` [C]: the query; `k`, `v` [L, C]: keys and values of the L `rows` that it may see; products are divided by
    `scale` (√d) before the softmax. Taught in notebook 03 §2 and §5.
    """
    q, k, v = (np.asarray(part, dtype=float) for part in (q, k, v))
    products = k @ q / scale
    weights = np.exp(products - products.max())
    weights /= weights.sum()
    carried = weights[:, None] * v
    C = len(columns)
    figure = Figure(figsize=(9.6, 1.9 + 0.36 * len(rows)), layout="constrained")
    grid = figure.add_gridspec(3, 4, width_ratios=[C, 1.5, 2.6, C], height_ratios=[1, len(rows), 1])
    top = max(np.abs(part).max() for part in (q, k, carried))
    panels = {}
    for name, place, part, headings in (
        ("query", (0, 0), q[None], columns),
        ("keys", (1, 0), k, ()),
        ("products", (1, 1), products[:, None], ()),
        ("carried", (1, 3), carried, columns),
        ("sum", (2, 3), carried.sum(0)[None], ()),
    ):
        panels[name] = axes = figure.add_subplot(grid[place])
        _matrix(axes, part, max(top, np.abs(products).max()) if name == "products" else top, headings)
        axes.set_yticks([])
    panels["query"].set_yticks([0], [f"{rows[-1]} asks"], fontsize=9, fontweight="bold")
    panels["keys"].set_yticks(range(len(rows)), rows, fontsize=9)
    panels["keys"].set_xlabel("1  keys, one a track")
    panels["products"].set_xlabel("2  products" + ("" if scale == 1 else f"\nover {number(scale)}"))
    axes = figure.add_subplot(grid[1, 2])
    axes.barh(range(len(rows)), weights, color=OKABE_ITO["sky"], edgecolor=OKABE_ITO["blue"], height=0.62)
    for row, weight in enumerate(weights):
        axes.annotate(
            f"{weight:.2f}", (weight, row), xytext=(4, 0), textcoords="offset points", va="center", fontsize=9
        )
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 1.3)
    axes.set_xticks([])
    axes.set_yticks([])
    _bare(axes)
    axes.spines["left"].set_visible(True)
    axes.set_xlabel("3  softmax")
    panels["carried"].yaxis.set_ticks_position("right")
    panels["carried"].tick_params(length=0)
    panels["carried"].set_yticks(range(len(rows)), rows, fontsize=9)
    panels["carried"].set_xlabel("4  weight × value")
    panels["sum"].yaxis.set_ticks_position("right")
    panels["sum"].tick_params(length=0)
    panels["sum"].set_yticks([0], ["5  their sum"], fontsize=9, fontweight="bold")
    _title(figure, finding)
    shares = ", ".join(f"{row} {number(p)} and {w:.2f}" for row, p, w in zip(rows, products, weights, strict=True))
    total = ", ".join(f"{name} {number(x)}" for name, x in zip(columns, carried.sum(0), strict=True))
    return Picture(figure, f"{rows[-1]} asks; products and weights: {shares}. It takes home {total}.")


@styled
def split_heads(q: np.ndarray, heads: int, rows: Sequence[str], columns: Sequence[str], finding: str) -> Picture:
    """What `view` and `permute` do to queries [L, D]: the columns are cut into H bundles, one head each.

    Taught in notebook 03 §8.
    """
    q = np.asarray(q, dtype=float)
    width = q.shape[1] // heads
    figure = Figure(figsize=(8.8, 1.5 + 0.36 * len(rows)), layout="constrained")
    panels = figure.subplots(1, 1 + heads, width_ratios=[q.shape[1], *[width] * heads])
    top = np.abs(q).max()
    _matrix(panels[0], q, top, columns)
    panels[0].set_yticks(range(len(rows)), rows, fontsize=9)
    panels[0].set_xlabel(f"q [L, D], D = {q.shape[1]}")
    for cut in range(1, heads):
        panels[0].axvline(cut * width - 0.5, color="black", linestyle="--", linewidth=1.5)
    for head in range(heads):
        axes, part = panels[1 + head], slice(head * width, (head + 1) * width)
        _matrix(axes, q[:, part], top, columns[part])
        axes.set_yticks(range(len(rows)), rows if head == 0 else [], fontsize=9)
        axes.set_xlabel(f"head {head + 1}: q[{head}] [L, D/H]")
    _title(figure, finding)
    each = "; ".join(f"head {h + 1} has {' and '.join(columns[h * width : (h + 1) * width])}" for h in range(heads))
    return Picture(figure, f"[L, D] → view → [L, H, D/H] → permute → [H, L, D/H], here {heads} heads: {each}.")


@styled
def by_distance(weights: np.ndarray, names: Sequence[str], finding: str) -> Picture:
    """Mean weight of each head by distance back. `weights` [heads, K + 2]: 0 … K-1 back, farther, nothing.

    Taught in notebook 04 §1.
    """
    heads, columns = weights.shape
    figure, axes = new_axes(width=7.2, height=1.3 + 0.33 * heads)
    image = axes.imshow(weights, cmap=MAGNITUDE, vmin=0, vmax=0.6, aspect="auto")
    for row, column in np.ndindex(weights.shape):
        _weight(axes, column, row, weights[row, column], 0.36)
    axes.axvline(columns - 2.5, color="white", linewidth=3)
    axes.set_xticks(range(columns), ["itself", *map(str, range(1, columns - 2)), "more", "nothing"], fontsize=9)
    axes.set_yticks(range(heads), names, fontsize=9)
    _bare(axes)
    axes.set(xlabel="how many tracks back the newest one looks")
    axes.set_title(finding)
    figure.colorbar(image, ax=axes, label="mean weight", pad=0.02, extend="max")
    kinds = ["itself", *(f"{k} back" for k in range(1, columns - 2)), "farther back"]
    best = weights[:, :-1].argmax(1)
    each = "; ".join(
        f"{n}: {kinds[m]} {row[m]:.2f}, nothing {row[-1]:.2f}" for n, m, row in zip(names, best, weights, strict=True)
    )
    return Picture(figure, f"where the heads look on average, their largest share among tracks and nothing: {each}.")


@styled
def effects(
    names: Sequence[str],
    series: Mapping[str, Sequence[tuple[float, float, float]]],
    unit: str,
    finding: str,
    digits: int = 2,
) -> Picture:
    """What interventions do, one row each: series → (mean, low, high) a row, at most four series, on both sides of 0.

    `digits`: after the point, in the words. Taught in notebook 04 §3.
    """
    figure, axes = new_axes(width=7.6, height=1.4 + 0.15 * len(names) * (len(series) + 1))
    step = 0.8 / max(len(series), 2)
    for index, (name, values) in enumerate(series.items()):
        colour, marker, _ = CYCLE[index]
        mean, low, high = np.array(values, dtype=float).T
        place = np.arange(len(names)) + (index - (len(series) - 1) / 2) * step
        axes.errorbar(mean, place, xerr=np.stack([mean - low, high - mean]), fmt=marker, color=colour, capsize=2.5,
                      linewidth=1.2, markersize=5, label=name)  # fmt: skip
    axes.axvline(0, color="black", linewidth=1)
    for edge in range(1, len(names)):
        axes.axhline(edge - 0.5, color="#C8C8C8", linewidth=0.8)
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.set(xlabel=unit)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=9)
    axes.set_title(finding)
    each = []
    for row, name in enumerate(names):
        told = ", ".join(
            f"{s} {v[row][0]:.{digits}f} ({v[row][1]:.{digits}f} to {v[row][2]:.{digits}f})" for s, v in series.items()
        )
        each.append(f"{name}: {told}")
    return Picture(figure, f"{unit}. {'; '.join(each)}.")


@styled
def wiring() -> Picture:
    """Where LayerNorm and the residual stand: three ways to wire one sub-layer. Taught in notebook 03 §10."""
    figure = Figure(figsize=(8.2, 3.5), layout="constrained")
    panels = figure.subplots(1, 3)
    ways = (
        ("Here, and the paper's text", "x + f(LN(x))", False, True, False),
        ("The authors' code, feed-forward", "LN(x) + f(LN(x))", True, False, False),
        ("The Transformer of 2017", "LN(x + f(x))", False, False, True),
    )
    for axes, (name, formula, before_both, before_f, after) in zip(panels, ways, strict=True):
        axes.set(xlim=(0, 10), ylim=(0, 10))
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel(formula, family="monospace", loc="left", labelpad=2)
        arrow = {"arrowstyle": "-|>", "color": "black", "linewidth": 1.3, "shrinkA": 0, "shrinkB": 0}

        def box(x, y, text, colour, axes=axes):
            axes.add_patch(
                Rectangle((x - 1.7, y - 0.6), 3.4, 1.2, facecolor=colour, edgecolor="black", linewidth=1, zorder=3)
            )
            axes.text(x, y, text, ha="center", va="center", fontsize=9, zorder=4)

        main, side, fork, join = 2.6, 7.0, 7.9 if not before_both else 6.7, 2.9 if not after else 3.4
        axes.text(main, 9.6, "x", ha="center", va="center", fontsize=11, fontstyle="italic")
        axes.annotate("", (main, join + 0.4), (main, 9.2), arrowprops=arrow)
        if before_both:
            box(main, 8.2, "LayerNorm", OKABE_ITO["orange"])
        axes.plot([main, side], [fork, fork], color="black", linewidth=1.3)
        if before_f:
            axes.annotate("", (side, 7.1), (side, fork), arrowprops=arrow)
            box(side, 6.5, "LayerNorm", OKABE_ITO["orange"])
            axes.annotate("", (side, 5.1), (side, 5.9), arrowprops=arrow)
        else:
            axes.annotate("", (side, 5.1), (side, fork), arrowprops=arrow)
        box(side, 4.5, "f", OKABE_ITO["sky"])
        if join < 3.9:
            axes.plot([side, side], [3.9, join], color="black", linewidth=1.3)
        axes.annotate("", (main + 0.4, join), (side, join), arrowprops=arrow)
        axes.text(main, join, "+", ha="center", va="center", fontsize=12,
                  bbox={"boxstyle": "circle,pad=0.15", "facecolor": "white", "edgecolor": "black"})  # fmt: skip
        axes.annotate("", (main, 0.5), (main, join - 0.45), arrowprops=arrow)
        if after:
            box(main, 2.2, "LayerNorm", OKABE_ITO["orange"])
    _title(figure, "Only the first wiring lets x pass untouched")
    return Picture(
        figure,
        "three ways to wire a sub-layer f: x + f(LN(x)), where the straight way from input to output holds nothing but "
        "an addition; LN(x) + f(LN(x)), where the LayerNorm stands on the straight way before the fork; LN(x + f(x)), "
        "where it stands on the straight way after the addition.",
    )


@styled
def over_sizes(
    x: Sequence[float], series: Mapping[str, Sequence[float]], axis: tuple[str, str], finding: str, log: bool = False
) -> Picture:
    """Up to four series over x; `axis`: names of x and y; `log`: whether x is logarithmic, base 2. Notebook 03 §5."""
    figure, axes = new_axes()
    for index, (name, y) in enumerate(series.items()):
        line(axes, x, y, index, name)
    if log:
        axes.set_xscale("log", base=2)
    axes.set_xticks(x, [f"{value:,}" for value in x])
    axes.minorticks_off()
    low, high = axes.get_xlim()
    axes.set_xlim(low, high * (high / low) ** 0.3 if log else high + 0.2 * (high - low))
    axes.set(xlabel=axis[0], ylabel=axis[1])
    axes.set_title(finding)
    each = "; ".join(f"{name} {', '.join(number(float(value)) for value in y)}" for name, y in series.items())
    return Picture(figure, f"{axis[1]} for {axis[0]} {', '.join(f'{value:,}' for value in x)}: {each}.")


@styled
def cost(measured: Mapping[str, tuple[Sequence[int], Sequence[float], Sequence[float]]], finding: str) -> Picture:
    """What a step costs against each size: name → (sizes, seconds, seconds by the formula). Notebook 05 §3."""
    figure = Figure(figsize=(8.6, 3.3), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(measured), sharey=True))
    each = []
    for axes, (name, (sizes, seconds, formula)) in zip(panels, measured.items(), strict=True):
        milliseconds = 1e3 * np.asarray(seconds)
        axes.plot(sizes, 1e3 * np.asarray(formula), color=OKABE_ITO["orange"], linestyle="--", label="formula")
        axes.plot(sizes, milliseconds, color=OKABE_ITO["blue"], linestyle="", marker="o", label="measured")
        axes.set(xscale="log", yscale="log", xlabel=name)
        axes.set_xticks(sizes, [f"{s:,}" if s < 10_000 else f"{s / 1000:g}k" for s in sizes], fontsize=9)
        axes.minorticks_off()
        each.append(
            f"{name} from {sizes[0]:,} to {sizes[-1]:,} takes {milliseconds[0]:.1f} to {milliseconds[-1]:.1f} ms "
            f"(formula {1e3 * formula[0]:.1f} to {1e3 * formula[-1]:.1f})"
        )
    low, high = panels[0].get_ylim()
    ticks = [first * 10.0**power for power in range(-3, 6) for first in (1, 2, 5)]
    panels[0].set_yticks([tick for tick in ticks if low <= tick <= high])
    thousands(panels[0].yaxis)
    panels[0].set_ylabel("ms a batch (log scale)")
    panels[0].legend(loc="upper left", fontsize=9)
    _title(figure, finding)
    return Picture(figure, "; ".join(each) + ".")


@styled
def falls(lags: Sequence[int], series: Mapping[str, np.ndarray]) -> Picture:
    """How far log p(the real next track) falls when the track `lag` back is removed, by model. Notebook 07 §5."""
    figure, axes = new_axes()
    for index, (name, values) in enumerate(series.items()):
        colour, marker, style = CYCLE[index]
        axes.plot(lags, values, color=colour, marker=marker, linestyle=style, label=name)
    axes.legend()
    axes.set_xticks(lags)
    axes.set(xlabel="the track removed, counted back from the end", ylabel="fall of log p (nats)")
    name, values = next(iter(series.items()))
    top = float(np.max(values))
    matter = [lag for lag, value in zip(lags, values, strict=True) if top > 0 and value > 0.1 * top]
    if matter:
        axes.set_title(f"For the {name}, no track more than {max(matter)} back matters much by itself")
    else:
        axes.set_title(f"For the {name}, no single track matters")
    each = "; ".join(f"{name} {', '.join(f'{v:.2f}' for v in values)}" for name, values in series.items())
    return Picture(
        figure,
        f"mean fall of log p of the real next track, in nats, for removals {lags[0]} to {lags[-1]} back: {each}.",
    )

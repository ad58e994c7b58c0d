"""The figures of the notebooks: one style, a title that states the finding, and the finding again in words.

Every function takes numbers and returns a `Picture`. Shown in a notebook it is a PNG at twice the screen's resolution
and, under it, one printed line that begins "In words:", for people who do not see the picture and for tests, which do
not look at it either. Colours are Okabe and Ito's (distinct for colour-blind people), always doubled by a marker, a
line style or a hatch; `cividis` is for magnitudes. Nothing here keeps pyplot figures open.
"""

from __future__ import annotations

import base64
import functools
import io
import logging
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import seaborn as sns
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, PercentFormatter

# The first import on a new machine says that it builds a list of fonts: nothing a reader, or a test, has to know.
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)

__all__ = [
    "CYCLE",
    "OKABE_ITO",
    "Live",
    "Picture",
    "against_claim",
    "attention",
    "bars",
    "batch",
    "by_distance",
    "by_group",
    "continuation",
    "cost",
    "coverage",
    "curves",
    "dots",
    "falls",
    "gaps",
    "growth",
    "lags",
    "learning_rates",
    "lengths",
    "long_tail",
    "loss_curves",
    "matrices",
    "over_sizes",
    "promises",
    "titles",
    "unseen",
    "wiring",
]

OKABE_ITO = {
    "black": "#000000",
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "green": "#009E73",
    "yellow": "#F0E442",
    "blue": "#0072B2",
    "vermilion": "#D55E00",
    "purple": "#CC79A7",
}
# (colour, marker, line style): series differ in all three, so a print-out without colours can be read too.
CYCLE = (
    (OKABE_ITO["blue"], "o", "-"),
    (OKABE_ITO["orange"], "s", "--"),
    (OKABE_ITO["black"], "^", ":"),
    (OKABE_ITO["sky"], "D", "-."),
)
HATCHES = ("", "///", "...", "xxx")
STYLE = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlepad": 10,
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same picture on every machine
    "hatch.linewidth": 0.8,
}
DPI = 192  # twice the 96 of a screen


@dataclass(frozen=True, eq=False, repr=False)
class Picture:
    """A figure and what it shows, in one sentence with its key numbers."""

    figure: Figure
    words: str

    def png(self) -> bytes:
        """The figure as PNG bytes at twice the screen's resolution."""
        buffer = io.BytesIO()
        with mpl.rc_context(STYLE):
            self.figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
        return buffer.getvalue()

    def output(self) -> tuple[dict, dict]:
        """What a notebook shows, and at which size."""
        width, height = (round(inches * DPI / 2) for inches in self.figure.get_size_inches())
        picture = {"image/png": base64.b64encode(self.png()).decode(), "text/plain": "[figure]"}
        return picture, {"image/png": {"width": width, "height": height}}

    def __repr__(self) -> str:
        return textwrap.fill(f"In words: {self.words}", 92, break_on_hyphens=False)  # JupyterLab breaks inside words

    def _ipython_display_(self) -> None:
        data, metadata = self.output()
        display(data, raw=True, metadata=metadata)
        print(self)


def _styled(function: Callable[..., Picture]) -> Callable[..., Picture]:
    """Draw in this module's style and leave everyone else's as it was."""

    @functools.wraps(function)
    def styled(*args, **kwargs) -> Picture:
        with mpl.rc_context(STYLE):
            return function(*args, **kwargs)

    return styled


def _axes(width: float = 6.6, height: float = 3.6) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _line(axes: Axes, x: Sequence[float], y: Sequence[float], series: int, label: str, at: int = -1) -> None:
    """A line in the style of its series, named beside its last point, or beside point `at`."""
    colour, marker, style = CYCLE[series]
    axes.plot(x, y, color=colour, marker=marker, linestyle=style, label=label)
    at = min(at, len(x) - 1)
    up = 0 if at == -1 else 7
    axes.annotate(label, (x[at], y[at]), xytext=(8, up), textcoords="offset points", va="center", fontsize=9)


def _percent(axis) -> None:
    axis.set_major_formatter(PercentFormatter(1, decimals=0))


def _thousands(axis) -> None:
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))


@_styled
def lengths(values: np.ndarray, published: tuple[int, int, int] | None = None) -> Picture:
    """How long playlists are. `values` int [U]; `published`: quartiles to compare with. Taught in notebook 01 §4."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    figure, axes = _axes()
    width = max(1, -(-int(np.ptp(values) + 1) // 40))  # whole tracks: other bins would hold now two lengths, now three
    sns.histplot(
        x=values,
        binwidth=width,
        binrange=(values.min() - 0.5, values.max() + width),
        ax=axes,
        color=OKABE_ITO["sky"],
        edgecolor="white",
        linewidth=0.5,
    )
    top = axes.get_ylim()[1]
    axes.set_ylim(0, top * 1.12)
    right = axes.get_xlim()[1]
    marks = [(middle, f"median here: {middle:.0f}", "-", 1.05, -1 if middle > right / 4 else 1)]
    if published:
        marks.append((published[1], f"median of the real set: {published[1]}", "--", 1.05, 1))
    for x, text, style, height, side in marks:
        axes.axvline(x, color=OKABE_ITO["black"], linestyle=style, linewidth=1.4)
        axes.annotate(text, (x, top * height), xytext=(6 * side, 0), textcoords="offset points", va="center",
                      ha="left" if side > 0 else "right", fontsize=9)  # fmt: skip
    axes.set_xlim(0, right)
    axes.grid(axis="x", visible=False)
    axes.set(xlabel="tracks in a playlist", ylabel="playlists")
    axes.set_title(f"Half of the playlists hold between {low:.0f} and {high:.0f} tracks")
    words = f"playlist lengths have quartiles {low:.0f}, {middle:.0f} and {high:.0f} tracks"
    if published:
        words += "; those of the real set are {}, {} and {}".format(*published)
    return Picture(figure, words + ".")


@_styled
def long_tail(plays: np.ndarray) -> Picture:
    """Plays of each track against its rank, both on log scales. `plays` int [N]. Taught in notebook 01 §5."""
    plays = np.sort(plays)[::-1]
    ranks = np.arange(1, len(plays) + 1)
    head = max(1, round(len(plays) / 100))
    share, once = plays[:head].sum() / plays.sum(), (plays == 1).mean()
    shown = np.unique(np.geomspace(1, len(plays), 300).astype(int)) - 1  # 300 points draw the same line as a million
    figure, axes = _axes()
    axes.loglog(ranks[shown], plays[shown], color=OKABE_ITO["blue"])
    axes.axvspan(0.8, head, facecolor=OKABE_ITO["yellow"], alpha=0.5, hatch="//", edgecolor="#B0A010", linewidth=0)
    axes.annotate(f"the top 1 %: {share:.0%}\nof all plays", (0.02, 0.05), xycoords="axes fraction", fontsize=9,
                  bbox={"facecolor": "white", "edgecolor": "none", "pad": 3})  # fmt: skip
    axes.set_xlim(0.8, len(plays) * 1.3)
    axes.set_ylim(0.8, plays[0] * 1.6)
    _thousands(axes.xaxis)
    _thousands(axes.yaxis)
    axes.set(xlabel="rank of the track (log scale)", ylabel="plays (log scale)")
    axes.set_title(f"The top 1 % of tracks get {share:.0%} of all plays")
    return Picture(
        figure,
        f"plays fall from {plays[0]:,} for the most played of {len(plays):,} tracks to {plays[-1]:,} for the least "
        f"played; the top 1 % ({head:,} tracks) hold {share:.1%} of all plays; {once:.1%} of tracks are played once.",
    )


@_styled
def growth(slices: Sequence[int], tracks: Sequence[int], published: Mapping[int, int] | None = None) -> Picture:
    """Different tracks against number of slices read, log scales. Taught in notebook 01 §6."""
    figure, axes = _axes()
    _line(axes, slices, tracks, 0, "these playlists")
    right = slices[-1]
    if published:
        _line(axes, list(published), list(published.values()), 1, "the real set")
        right = max(right, *published)
    axes.set(xscale="log", yscale="log", xlim=(0.8, right * 8))
    ticks = [10**i for i in range(len(str(right)))]
    axes.set_xticks(ticks)
    _thousands(axes.xaxis)
    _thousands(axes.yaxis)
    axes.minorticks_off()
    factor = tracks[-1] / tracks[0]
    axes.set(xlabel="slices read, 1,000 playlists each (log scale)", ylabel="different tracks (log scale)")
    title = f"The first slice holds {tracks[0]:,} different tracks"
    axes.set_title(title + (f", all {slices[-1]} hold {tracks[-1]:,}" if len(slices) > 1 else ""))
    words = (
        f"different tracks go from {tracks[0]:,} after the first slice to {tracks[-1]:,} after {slices[-1]} "
        f"({factor:.1f} times as many)"
    )
    if published:
        first, last = min(published), max(published)
        words += (
            f"; in the real set from {published[first]:,} after {first} to {published[last]:,} after {last:,} "
            f"({published[last] / published[first]:.0f} times as many)"
        )
    return Picture(figure, words + ".")


@_styled
def coverage(counts: Sequence[int], tracks: np.ndarray, rows: np.ndarray) -> Picture:
    """Share of tracks and of rows that survive a minimum count. All [M]. Taught in notebook 01 §7."""
    figure, axes = _axes()
    _line(axes, counts, rows, 0, "rows kept", at=1)
    _line(axes, counts, tracks, 1, "tracks kept", at=1)
    axes.set(xscale="log", xlim=(counts[0] * 0.9, counts[-1] * 1.1), ylim=(0, 1.05))
    axes.set_xticks(counts)
    _thousands(axes.xaxis)
    axes.minorticks_off()
    _percent(axes.yaxis)
    at = int(np.argmin(np.abs(np.asarray(counts) - 5)))
    axes.set(xlabel="minimum number of plays of a track (log scale)", ylabel="share kept")
    axes.set_title(f"At {counts[at]} plays or more, {tracks[at]:.0%} of tracks keep {rows[at]:.0%} of rows")
    return Picture(
        figure,
        f"asking for {counts[at]} plays keeps {tracks[at]:.1%} of tracks and {rows[at]:.1%} of rows; asking for "
        f"{counts[-1]} keeps {tracks[-1]:.1%} and {rows[-1]:.1%}.",
    )


@_styled
def titles(words: Sequence[str], playlists: Sequence[int], total: int) -> Picture:
    """How many playlists carry the commonest title words. Taught in notebook 01 §8."""
    figure, axes = _axes(height=0.9 + 0.26 * len(words))
    axes.barh(range(len(words)), playlists, color=OKABE_ITO["sky"], edgecolor=OKABE_ITO["blue"])
    axes.set_yticks(range(len(words)), words)
    axes.invert_yaxis()
    axes.bar_label(axes.containers[0], [f"{n:,}" for n in playlists], padding=4, fontsize=9)
    axes.grid(axis="y", visible=False)
    axes.set_xlim(0, max(playlists) * 1.12)
    _thousands(axes.xaxis)
    axes.set(xlabel="playlists with this word in their title")
    share = sum(playlists) / total
    axes.set_title(f"“{words[0]}” stands in {playlists[0] / total:.0%} of all titles")
    return Picture(
        figure,
        f"the {len(words)} commonest title words are {', '.join(words)}; the first stands in {playlists[0]:,} of "
        f"{total:,} titles, all {len(words)} together {share:.0%} as often as there are titles.",
    )


@_styled
def lags(steps: Sequence[int], real: np.ndarray, shuffled: np.ndarray, published: float | None = None) -> Picture:
    """P(same artist) k steps back, in order and shuffled; `published`: the real set's at k = 1. Notebook 01 §9."""
    figure, axes = _axes()
    _line(axes, steps, real, 0, "in order")
    _line(axes, steps, shuffled, 1, "shuffled")
    if published is not None:
        axes.plot([1], [published], linestyle="", marker="*", markersize=11, color=OKABE_ITO["vermilion"])
        axes.annotate("the real set", (1, published), xytext=(9, 3), textcoords="offset points",
                      color=OKABE_ITO["vermilion"], fontsize=9)  # fmt: skip
    axes.set(xlim=(min(steps) - 0.4, max(steps) * 1.2), ylim=(0, max(*real, published or 0) * 1.18))
    axes.set_xticks(steps)
    _percent(axes.yaxis)
    axes.set(xlabel="steps back, k", ylabel="share of tracks with the same artist")
    high = [k for k, r, s in zip(steps, real, shuffled, strict=True) if r > 2 * s]
    clear = ", ".join(map(str, high)) or "none"
    axes.set_title(f"More than twice as often as chance at k = {clear}" if high else "No lag stands out from chance")
    by_lag = ", ".join(f"{r:.2f}" for r in real)
    return Picture(
        figure,
        f"the share of tracks with the artist of k steps before is {by_lag} for k = {steps[0]} to {steps[-1]}, and "
        f"{np.mean(shuffled):.2f} on average after shuffling; k with more than twice that: {clear}.",
    )


@_styled
def unseen(playlists: Sequence[int], share: np.ndarray, published: Mapping[int, float] | None = None) -> Picture:
    """Share of test targets that training never saw, against training playlists. Taught in notebook 01 §10."""
    figure, axes = _axes()
    _line(axes, playlists, share, 0, "these playlists", at=1)
    right = playlists[-1]
    top = max(share)
    if published:
        _line(axes, list(published), list(published.values()), 1, "the real set (estimate)", at=1)
        right, top = max(right, *published), max(top, *published.values())
    axes.set(xscale="log", xlim=(playlists[0] * 0.8, right * 1.6), ylim=(-0.01, top * 1.1))
    _thousands(axes.xaxis)
    _percent(axes.yaxis)
    axes.minorticks_off()
    axes.set(xlabel="training playlists (log scale)", ylabel="targets never seen in training")
    axes.set_title(f"With {playlists[-1]:,} training playlists, {share[-1]:.1%} of targets were never seen")
    by_size = ", ".join(f"{s:.1%} after {n:,}" for n, s in zip(playlists, share, strict=True))
    words = f"of the test targets, the share that training never saw is {by_size} playlists"
    if published:
        known = ", ".join(f"{s:.0%} after {n:,}" for n, s in published.items())
        words += f"; in the real set about {known}"
    return Picture(figure, words + ".")


@_styled
def batch(kinds: Mapping[str, np.ndarray]) -> Picture:
    """Where batches hold tracks and where padding. Each value bool [B, L], True = a track. Notebook 02 §7."""
    figure = Figure(figsize=(6.6, 3.4), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(kinds)))
    widest = max(real.shape[1] for real in kinds.values())
    shares = {}
    for axes, (name, real) in zip(panels, kinds.items(), strict=True):
        shares[name] = 1 - real.mean()
        rows, width = real.shape
        axes.add_patch(
            Rectangle((0, 0), width, rows, facecolor="white", edgecolor="#8A8A8A", hatch="////", linewidth=0.8)
        )
        for row, length in enumerate(real.sum(1)):
            axes.add_patch(
                Rectangle((0, row), length, 1, facecolor=OKABE_ITO["blue"], edgecolor="white", linewidth=0.4)
            )
        axes.set(xlim=(0, widest), ylim=(rows, 0), xlabel="position")
        axes.grid(visible=False)
        axes.set_title(f"{name}:\n{shares[name]:.0%} padding", fontsize=10)
    panels[0].set_ylabel("window in the batch")
    best, worst = min(shares, key=shares.get), max(shares, key=shares.get)
    figure.suptitle(
        f"From {shares[worst]:.0%} padding (hatched) down to {shares[best]:.0%}",
        fontsize=11,
        fontweight="bold",
        x=0.01,
        ha="left",
    )
    each = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
    return Picture(figure, f"the share of positions that hold padding in one batch is, by way of batching: {each}.")


@_styled
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
    figure, axes = _axes(height=1.0 + 0.42 * len(names))
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


@_styled
def attention(weights: np.ndarray, tracks: Sequence[str], names: Sequence[str] | None = None) -> Picture:
    """Where each position looks. `weights` [H, L, L], row = query, column = key; `tracks`: L names, oldest first;
    `names`: of the heads.

    The masked upper triangle (the future) is hatched; values are printed when L ≤ 8. Taught in notebook 03 §6.
    """
    heads, length = len(weights), len(tracks)
    names = names or [f"head {head + 1}" for head in range(heads)]
    figure = Figure(figsize=(1.9 + 2.9 * heads, 4.0), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, heads, sharey=True))
    short = [name if len(name) <= 22 else name[:21] + "…" for name in tracks]
    past = np.tril(np.ones((length, length), dtype=bool))
    for head, (axes, values) in enumerate(zip(panels, weights, strict=True)):
        shown = np.where(past, values, np.nan)
        image = axes.imshow(shown, cmap="cividis", vmin=0, vmax=1)
        for row, column in zip(*np.nonzero(~past), strict=True):
            axes.add_patch(
                Rectangle(
                    (column - 0.5, row - 0.5), 1, 1, facecolor="white", edgecolor="#B5B5B5", hatch="////", linewidth=0
                )
            )
        if length <= 8:
            for row, column in zip(*np.nonzero(past), strict=True):
                ink = "black" if values[row, column] > 0.55 else "white"
                axes.text(column, row, f"{values[row, column]:.2f}"[1:] if values[row, column] < 0.995 else "1",
                          ha="center", va="center", fontsize=8, color=ink)  # fmt: skip
        axes.grid(visible=False)
        axes.set_xticks(
            range(length), [f"{i - length + 1}" if i < length - 1 else "now" for i in range(length)], fontsize=8
        )
        axes.set_yticks(range(length), short, fontsize=8)
        axes.set(xlabel="key: the track looked at")
        axes.set_title(names[head], fontsize=10)
        axes.spines[["left", "bottom"]].set_visible(False)
    panels[0].set_ylabel("query: the track that looks")
    figure.colorbar(image, ax=panels, shrink=0.75, label="weight", pad=0.02)
    newest = weights[:, -1]
    most = newest.argmax(1)
    where = [f"{length - 1 - m} back" if m < length - 1 else "itself" for m in most]
    figure.suptitle(
        "The newest track looks most at: " + "; ".join(f"{names[h]}, {w}" for h, w in enumerate(where)),
        fontsize=11, fontweight="bold", x=0.01, ha="left",
    )  # fmt: skip
    each = "; ".join(f"{names[h]} gives {newest[h, m]:.2f} to “{tracks[m]}” ({where[h]})" for h, m in enumerate(most))
    lack = "What a row lacks to 1 goes to no track. " if (weights.sum(-1) < 0.995).any() else ""
    return Picture(
        figure,
        f"from the newest track, {each}. {lack}Nothing to its right is looked at.",
    )


# --- notebook 03 ------------------------------------------------------------------------------------------------------


def _number(value: float) -> str:
    """As short as it can be read: two digits after the point, none for whole numbers."""
    return "0" if abs(value) < 0.005 else f"{value:.2f}".rstrip("0").rstrip(".").replace("-", "−")


@_styled
def matrices(parts: Mapping[str, np.ndarray], rows: Sequence[str], finding: str, signs: Sequence[str] = ()) -> Picture:
    """Small matrices side by side with every value printed; `signs` stand between them ("+", "=", "→").

    `parts`: name → [R, columns], R the number of `rows`. False in a matrix of True and False is hatched. Taught in
    notebook 03, where a toy playlist is carried through the model.
    """
    arrays = {name: np.asarray(part) for name, part in parts.items()}
    widths = [part.shape[1] for part in arrays.values()]
    size = (min(1.6 + 0.62 * sum(widths) + 0.5 * len(widths), 8.6), 1.25 + 0.36 * len(rows))
    figure = Figure(figsize=size, layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(parts), width_ratios=widths))
    top = 1.6 * max(1e-9, *(np.abs(part).max() for part in arrays.values()))
    for index, (axes, (name, part)) in enumerate(zip(panels, arrays.items(), strict=True)):
        hidden = ~part if part.dtype == bool else np.zeros(part.shape, dtype=bool)
        axes.imshow(part.astype(float), cmap="PuOr", vmin=-top, vmax=top, aspect="auto")  # purple above 0
        for row, column in np.ndindex(part.shape):
            if hidden[row, column]:
                axes.add_patch(
                    Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor="white", edgecolor="#B5B5B5", hatch="////",
                              linewidth=0)
                )  # fmt: skip
            else:
                text = "True" if part.dtype == bool else _number(float(part[row, column]))
                axes.text(column, row, text, ha="center", va="center", fontsize=9)
        axes.set_xticks([])
        axes.set_yticks(range(len(rows)), rows if index == 0 else [], fontsize=9)
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.set_xlabel(name)
        if 0 < index <= len(signs):
            axes.annotate(signs[index - 1], (0, 0.5), xycoords="axes fraction", xytext=(-9, 0), fontsize=13,
                          textcoords="offset points", ha="center", va="center")  # fmt: skip
    figure.suptitle(finding, fontsize=11, fontweight="bold", x=0.01, ha="left")
    each = []
    for name, part in arrays.items():
        if part.dtype == bool:
            each.append(f"“{name}” has {part.sum()} True, and {(~part.any(1)).sum()} rows without any")
        else:
            each.append(f"“{name}” {', '.join(_number(float(value)) for value in part[-1])}")
    last = "" if any(part.dtype == bool for part in arrays.values()) else f"the last row, {rows[-1]}: "
    return Picture(figure, f"{last}{'; '.join(each)}.")


@_styled
def over_sizes(
    x: Sequence[float], series: Mapping[str, Sequence[float]], axis: tuple[str, str], finding: str, log: bool = False
) -> Picture:
    """Up to four series over x; `axis`: names of x and y; `log`: whether x is logarithmic, base 2. Notebook 03 §5."""
    figure, axes = _axes()
    for index, (name, y) in enumerate(series.items()):
        _line(axes, x, y, index, name)
    if log:
        axes.set_xscale("log", base=2)
    axes.set_xticks(x, [f"{value:,}" for value in x])
    axes.minorticks_off()
    low, high = axes.get_xlim()
    axes.set_xlim(low, high * (high / low) ** 0.3 if log else high + 0.2 * (high - low))
    axes.set(xlabel=axis[0], ylabel=axis[1])
    axes.set_title(finding)
    each = "; ".join(f"{name} {', '.join(_number(float(value)) for value in y)}" for name, y in series.items())
    return Picture(figure, f"{axis[1]} for {axis[0]} {', '.join(f'{value:,}' for value in x)}: {each}.")


@_styled
def cost(measured: Mapping[str, tuple[Sequence[int], Sequence[float], Sequence[float]]]) -> Picture:
    """What a step costs against each size: name → (sizes, seconds, seconds by the formula). Taught in notebook 03 §14."""
    figure = Figure(figsize=(8.6, 3.3), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(measured), sharey=True))
    each = []
    for axes, (name, (sizes, seconds, formula)) in zip(panels, measured.items(), strict=True):
        milliseconds = 1e3 * np.asarray(seconds)
        axes.plot(sizes, 1e3 * np.asarray(formula), color=OKABE_ITO["orange"], linestyle="--", label="formula")
        axes.plot(sizes, milliseconds, color=OKABE_ITO["blue"], linestyle="", marker="o", label="measured")
        axes.set(xscale="log", yscale="log", xlabel=name)
        axes.set_xticks(sizes, [f"{s:,}" if s < 10_000 else f"{s / 1000:g}k" for s in sizes], fontsize=9)
        _thousands(axes.yaxis)
        axes.minorticks_off()
        each.append(
            f"{name} from {sizes[0]:,} to {sizes[-1]:,} takes {milliseconds[0]:.1f} to {milliseconds[-1]:.1f} ms "
            f"(formula {1e3 * formula[0]:.1f} to {1e3 * formula[-1]:.1f})"
        )
    panels[0].set_ylabel("ms a batch (log scale)")
    panels[0].legend(loc="upper left", fontsize=9)
    figure.suptitle(
        "The count of multiplications foretells the time", fontsize=11, fontweight="bold", x=0.01, ha="left"
    )
    return Picture(figure, "; ".join(each) + ".")


@_styled
def by_distance(weights: np.ndarray, names: Sequence[str], finding: str) -> Picture:
    """Mean weight of each head by distance back. `weights` [heads, K + 2]: 0 … K-1 back, farther, nothing. Notebook 03 §16."""
    heads, columns = weights.shape
    figure, axes = _axes(height=1.3 + 0.33 * heads)
    image = axes.imshow(weights, cmap="cividis", vmin=0, vmax=0.5, aspect="auto")
    for row, column in np.ndindex(weights.shape):
        ink = "black" if weights[row, column] > 0.28 else "white"
        axes.text(column, row, f"{weights[row, column]:.2f}"[1:] if weights[row, column] < 0.995 else "1",
                  ha="center", va="center", fontsize=8, color=ink)  # fmt: skip
    axes.axvline(columns - 2.5, color="white", linewidth=3)
    axes.set_xticks(range(columns), ["itself", *map(str, range(1, columns - 2)), "more", "nothing"], fontsize=9)
    axes.set_yticks(range(heads), names, fontsize=9)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="how many tracks back the newest one looks")
    axes.set_title(finding)
    figure.colorbar(image, ax=axes, label="mean weight", pad=0.02, extend="max")
    kinds = ["itself", *(f"{k} back" for k in range(1, columns - 2)), "farther back"]
    best = weights[:, :-1].argmax(1)
    each = "; ".join(
        f"{n}: {kinds[m]} {row[m]:.2f}, nothing {row[-1]:.2f}" for n, m, row in zip(names, best, weights, strict=True)
    )
    return Picture(figure, f"where the heads look on average, their largest share among tracks and nothing: {each}.")


@_styled
def wiring() -> Picture:
    """Where LayerNorm and the residual stand: three ways to wire one sub-layer. Taught in notebook 03 §10."""
    figure = Figure(figsize=(8.2, 3.5), layout="constrained")
    panels = figure.subplots(1, 3)
    ways = (
        ("Here, and the paper's text", "x + f(LN(x))", False, True, False),
        ("The original code", "LN(x) + f(LN(x))", True, False, False),
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
        axes.plot([side, side], [3.9, join], color="black", linewidth=1.3) if join < 3.9 else None
        axes.annotate("", (main + 0.4, join), (side, join), arrowprops=arrow)
        axes.text(main, join, "+", ha="center", va="center", fontsize=12,
                  bbox={"boxstyle": "circle,pad=0.15", "facecolor": "white", "edgecolor": "black"})  # fmt: skip
        axes.annotate("", (main, 0.5), (main, join - 0.45), arrowprops=arrow)
        if after:
            box(main, 2.2, "LayerNorm", OKABE_ITO["orange"])
    figure.suptitle(
        "Only the first wiring lets x pass untouched", fontsize=11, fontweight="bold", x=0.01, ha="left"
    )  # fmt: skip
    return Picture(
        figure,
        "three ways to wire a sub-layer f: x + f(LN(x)), where the straight way from input to output holds nothing but an "
        "addition; LN(x) + f(LN(x)), where the LayerNorm stands on the straight way before the fork; LN(x + f(x)), where "
        "it stands on the straight way after the addition.",
    )


@_styled
def promises(names: Sequence[str], promised: Sequence[float], kept: Sequence[tuple[float, float, float]]) -> Picture:
    """What models say that their ten tracks are worth, and what they are. `kept`: mean, low, high. Notebook 06 §2."""
    figure, axes = _axes(height=1.3 + 0.62 * len(names))
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


@_styled
def falls(lags: Sequence[int], series: Mapping[str, np.ndarray]) -> Picture:
    """How far log p(the real next track) falls when the track `lag` back is removed, by model. Notebook 06 §5."""
    figure, axes = _axes()
    for index, (name, values) in enumerate(series.items()):
        colour, marker, style = CYCLE[index]
        axes.plot(lags, values, color=colour, marker=marker, linestyle=style, label=name)
    axes.legend()
    axes.set_xticks(lags)
    axes.set(xlabel="the track removed, counted back from the end", ylabel="fall of log p (nats)")
    top = max(float(np.max(values)) for values in series.values())
    axes.set_ylim(min(0, min(float(np.min(values)) for values in series.values())) - 0.05 * top, top * 1.12)
    name, values = next(iter(series.items()))
    matter = [lag for lag, value in zip(lags, values, strict=True) if value > 0.1 * np.max(values)]
    axes.set_title(f"For the {name}, only the newest {max(matter)} tracks matter by themselves")
    each = "; ".join(f"{name} {', '.join(f'{v:.2f}' for v in values)}" for name, values in series.items())
    return Picture(
        figure,
        f"mean fall of log p of the real next track, in nats, for removals {lags[0]} to {lags[-1]} back: {each}.",
    )


# --- notebook 05 ------------------------------------------------------------------------------------------------------


@_styled
def by_group(
    groups: Sequence[str],
    series: Mapping[str, Sequence[tuple[float, float, float]]],
    unit: str,
    finding: str,
) -> Picture:
    """One row per group, one marker per series (at most four), each (mean, low, high). Taught in notebook 05 §4."""
    figure, axes = _axes(width=7.2, height=1.3 + 0.17 * len(groups) * (len(series) + 1))
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


@_styled
def curves(
    x: Sequence[float],
    lines: Mapping[str, Sequence[float]],
    xlabel: str,
    unit: str,
    finding: str,
    marks: Mapping[float, str] | None = None,
    level: tuple[float, str] | None = None,
    log: bool = False,
) -> Picture:
    """At most four lines over one axis. `marks`: vertical lines with their text; `level`: a horizontal one."""
    figure, axes = _axes(width=7.2)
    right = max(x)
    for index, (name, y) in enumerate(lines.items()):
        _line(axes, x, y, index, name)
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
        axes.set_xticks([v for v in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if min(x) <= v <= right])
        _thousands(axes.xaxis)
        axes.minorticks_off()
    else:
        axes.set_xlim(min(x) - 0.04 * right, right * 1.32)
    axes.set_ylim(0, top * 1.12)
    axes.set(xlabel=xlabel, ylabel=unit)
    axes.set_title(finding)
    each = [
        f"{name} " + ", ".join(f"{value:.3f}" for value in y) + f" at {', '.join(f'{v:g}' for v in x)}"
        for name, y in lines.items()
    ]
    words = f"{unit}, by {xlabel}: {'; '.join(each)}"
    if level is not None:
        words += f"; the dashed line is at {level[0]:g}, {level[1]}"
    return Picture(figure, words + ".")


@_styled
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

    Taught in notebook 05 §11.
    """
    figure, axes = _axes(width=7.2, height=1.4 + 0.34 * len(names))
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


@_styled
def continuation(seeds: Sequence[int], metrics: Mapping[str, Mapping[str, Sequence[float]]], finding: str) -> Picture:
    """A panel per metric, a line per model over the number of seed tracks. Taught in notebook 05 §8."""
    figure = Figure(figsize=(8.6, 3.5), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(metrics)))
    for axes, (metric, models) in zip(panels, metrics.items(), strict=True):
        for (name, values), (colour, marker, style) in zip(models.items(), CYCLE, strict=False):
            axes.plot(range(len(seeds)), values, color=colour, marker=marker, linestyle=style, label=name)
        axes.set_xticks(range(len(seeds)), seeds)
        axes.set_ylim(0, max(max(values) for values in models.values()) * 1.1)
        axes.set(xlabel="seed tracks")
        axes.set_title(metric, fontsize=10)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=9)
    figure.suptitle(finding, fontsize=11, fontweight="bold", x=0.01, ha="left")
    each = [
        f"{metric}: " + ", ".join(f"{name} {' '.join(f'{v:.3f}' for v in values)}" for name, values in models.items())
        for metric, models in metrics.items()
    ]
    return Picture(figure, f"with {', '.join(map(str, seeds))} seeds, {'; '.join(each)}.")


# --- notebook 04 ------------------------------------------------------------------------------------------------------


class Live:
    """A picture that is drawn anew while something goes on: `with Live(draw) as show: fit(…, after_epoch=show)`.

    `draw` makes a `Picture` of what `show` is called with. The cell has one output, replaced each time, so what stays in
    the notebook is the last picture, and under it its words. Nothing is left of the ones before, and no widget.
    """

    def __init__(self, draw: Callable[..., Picture]):
        self.draw, self.picture, self.handle = draw, None, None

    def __enter__(self) -> Live:
        return self

    def __call__(self, *args) -> None:
        self.picture = self.draw(*args)
        data, metadata = self.picture.output()
        if self.handle is None:
            self.handle = display(data, raw=True, metadata=metadata, display_id=True)
        else:
            self.handle.update(data, raw=True, metadata=metadata)

    def __exit__(self, *_) -> None:
        if self.picture is not None:
            print(self.picture)


@_styled
def loss_curves(runs: Mapping[str, Mapping], finding: str) -> Picture:
    """Losses and NDCG@10 by epoch, a row for each run: {"history", "floor", "popularity", "best"}.

    "history" as `fit` returns it; "floor" is the oracle's loss, "popularity" that of popularity, "best" the oracle's
    NDCG@10; each of them may be None. Taught in notebook 04 §4.
    """
    figure = Figure(figsize=(7.4, 0.5 + 2.9 * len(runs)), layout="constrained")
    rows = figure.subplots(len(runs), 2, squeeze=False)
    words = []
    for (left, right), (name, run) in zip(rows, runs.items(), strict=True):
        history = run["history"]
        epochs = history["epoch"].to_numpy()
        step = max(1, len(epochs) // 8)
        ends = []
        for series, (column, label) in enumerate((("train_loss", "training"), ("valid_loss", "validation"))):
            colour, marker, style = CYCLE[series]
            left.plot(epochs, history[column], color=colour, marker=marker, linestyle=style, markevery=step)
            ends.append((history[column].iloc[-1], label, colour))
        lines = [(run.get("popularity"), "popularity"), (run.get("floor"), "floor: the oracle")]
        for value, label in lines:
            if value is not None:
                left.axhline(value, color=OKABE_ITO["black"], linestyle=":", linewidth=1.4)
                ends.append((value, label, OKABE_ITO["black"]))
        low, high = left.get_ylim()
        left.set_ylim(low - 0.03 * (high - low), high)
        _labels(left, ends)
        colour, marker, style = CYCLE[1]
        right.plot(epochs, history["valid_ndcg@10"], color=colour, marker=marker, linestyle=style, markevery=step)
        best = int(history["valid_ndcg@10"].to_numpy().argmax())
        top = history["valid_ndcg@10"].iloc[best]
        right.plot(epochs[best], top, color=OKABE_ITO["vermilion"], marker="*", markersize=12, linestyle="")
        right.annotate(
            f"best: epoch {epochs[best]}", (epochs[best], top), xytext=(0, -15), textcoords="offset points",
            ha="right" if best > len(epochs) / 2 else "left", va="center", fontsize=9,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )  # fmt: skip
        if run.get("best") is not None:
            right.axhline(run["best"], color=OKABE_ITO["black"], linestyle=":", linewidth=1.4)
            right.annotate("the oracle", (0.02, run["best"]), xycoords=("axes fraction", "data"), xytext=(0, 8),
                           textcoords="offset points", va="center", fontsize=9)  # fmt: skip
        right.set_ylim(0, 1.2 * max(top, run.get("best") or 0))
        pad = 0.04 * max(1, epochs[-1] - epochs[0])
        right.set_xlim(epochs[0] - pad, epochs[-1] + pad)
        left.set_xlim(epochs[0] - pad, epochs[-1] + 12 * pad)
        for axes in (left, right):
            ticks = sorted({1, *range(0, int(epochs[-1]) + 1, max(1, -(-int(epochs[-1]) // 5)))} - {0})
            axes.set_xticks(ticks)
            axes.set_xlabel("epoch")
        left.set_ylabel("loss (nats)")
        right.set_ylabel("validation NDCG@10")
        if len(runs) > 1:
            left.set_title(name, fontsize=10)
        told = f"{name}: after {epochs[-1]} epochs the training loss is {history['train_loss'].iloc[-1]:.2f} nats, "
        told += f"the validation loss {history['valid_loss'].iloc[-1]:.2f} (lowest {history['valid_loss'].min():.2f})"
        told += "".join(f", {label} {value:.2f}" for value, label in lines if value is not None)
        told += f"; the best validation NDCG@10 is {top:.3f}, in epoch {epochs[best]}"
        told += f" (the oracle's {run['best']:.3f})" if run.get("best") is not None else ""
        words.append(told)
    figure.suptitle(finding, fontsize=11, fontweight="bold", x=0.01, ha="left")
    return Picture(figure, "; ".join(words) + ".")


def _labels(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Names at the right edge, each at its height, moved apart where they would overlap."""
    low, high = axes.get_ylim()
    gap, last = 0.075 * (high - low), -np.inf
    for value, label, colour in sorted(ends):
        last = max(value, last + gap)
        axes.annotate(label, (0.985, last), xycoords=("axes fraction", "data"), ha="right", va="center", fontsize=9,
                      color=colour, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})  # fmt: skip


@_styled
def learning_rates(
    rates: np.ndarray, losses: np.ndarray, chosen: float, starts: Mapping[str, np.ndarray], finding: str
) -> Picture:
    """A range test (loss against a rising learning rate, [S] each) and the first steps of some runs. Notebook 04 §5."""
    figure = Figure(figsize=(7.4, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    smooth = _smooth(losses)
    left.plot(rates, losses, color="#B5B5B5", linewidth=0.8)
    left.plot(rates, smooth, color=OKABE_ITO["blue"])
    left.axvline(chosen, color=OKABE_ITO["black"], linestyle="--", linewidth=1.4)
    left.set_xscale("log")
    top = losses[0] + 0.8 * (losses[0] - smooth.min())
    left.set_ylim(smooth.min() - 0.15 * (top - smooth.min()), top)
    left.annotate(f"chosen: {chosen:g}", (chosen, top), xytext=(-5, -8), textcoords="offset points", ha="right",
                  fontsize=9)  # fmt: skip
    left.set(xlabel="learning rate (log scale)", ylabel="training loss (nats)")
    left.set_title("range test", fontsize=10)
    lowest = rates[int(smooth.argmin())]
    for series, (label, values) in enumerate(starts.items()):
        colour, marker, style = CYCLE[series]
        right.plot(np.arange(1, len(values) + 1), _smooth(values), color=colour, marker=marker, linestyle=style,
                   markevery=max(1, len(values) // 6), label=label)  # fmt: skip
    right.legend(fontsize=9)
    right.set(xlabel="step", ylabel="training loss (nats)")
    right.set_title("the first steps", fontsize=10)
    figure.suptitle(finding, fontsize=11, fontweight="bold", x=0.01, ha="left")
    each = ", ".join(f"{label} {_smooth(values)[-1]:.2f}" for label, values in starts.items())
    return Picture(
        figure,
        f"the loss falls as the rate rises from {rates[0]:.0e}, is lowest near {lowest:.0e} and climbs beyond; chosen: "
        f"{chosen:g}. Training loss after {len(next(iter(starts.values())))} steps: {each} nats.",
    )


def _smooth(values: np.ndarray, span: int = 9) -> np.ndarray:
    """Running mean over up to `span` neighbours."""
    ones = np.ones(min(span, len(values)))
    return np.convolve(values, ones, "same") / np.convolve(np.ones(len(values)), ones, "same")


@_styled
def dots(
    names: Sequence[str], values: np.ndarray, unit: str, finding: str, line: tuple[float, str] | None = None
) -> Picture:
    """One row a name, one dot a seed, and their mean. `values` [names, seeds]; `line`: a value to compare with."""
    values = np.asarray(values)
    figure, axes = _axes(height=1.1 + 0.45 * len(names))
    for row, points in enumerate(values):
        axes.plot(points, np.full(len(points), row), linestyle="", marker="o", markersize=7, markerfacecolor="none",
                  markeredgecolor=OKABE_ITO["blue"], markeredgewidth=1.6)  # fmt: skip
        mean = points.mean()
        axes.plot([mean, mean], [row - 0.28, row + 0.28], color=OKABE_ITO["black"], linewidth=2)
        axes.annotate(f"{mean:.3f}", (points.max(), row), xytext=(10, 0), textcoords="offset points", va="center",
                      fontsize=9)  # fmt: skip
    low, high = values.min(), values.max()
    if line is not None:
        axes.axvline(line[0], color=OKABE_ITO["black"], linestyle=":", linewidth=1.4)
        axes.annotate(line[1], (line[0], -0.45), xytext=(-5, 0), textcoords="offset points", ha="right", va="center",
                      fontsize=9)  # fmt: skip
        high = max(high, line[0])
    axes.set_xlim(low - 0.1 * (high - low), high + 0.12 * (high - low))
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.7)
    axes.grid(axis="y", visible=False)
    axes.set(xlabel=f"{unit}\n(ring: one seed, bar: their mean)")
    figure.suptitle(finding, fontsize=11, fontweight="bold", x=0.01, ha="left")
    each = "; ".join(
        f"{name} {p.mean():.3f} ({p.min():.3f} to {p.max():.3f})" for name, p in zip(names, values, strict=True)
    )
    told = f"{unit}, mean and range over {values.shape[1]} seeds: {each}"
    return Picture(figure, told + (f"; {line[1]} {line[0]:.3f}." if line else "."))


@_styled
def gaps(names: Sequence[str], columns: Sequence[str], values: np.ndarray, totals: np.ndarray, finding: str) -> Picture:
    """What each model lacks to the oracle, by what made the step: nats [models, columns], all steps [models].

    Taught in notebook 04 §8.
    """
    values, totals = np.asarray(values), np.asarray(totals)
    figure = Figure(figsize=(7.6, 1.5 + 0.36 * len(names)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[len(columns), 1.1])
    left.imshow(values, cmap="cividis", vmin=0, vmax=values.max(), aspect="auto")
    right.imshow(totals[:, None], cmap="cividis", vmin=0, vmax=2 * totals.max(), aspect="auto")
    for axes, table, limit in ((left, values, values.max()), (right, totals[:, None], 2 * totals.max())):
        for row, column in np.ndindex(table.shape):
            value = round(table[row, column], 2) + 0.0  # no minus before a zero
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=9,
                      color="black" if value > 0.55 * limit else "white")  # fmt: skip
        axes.grid(visible=False)
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.tick_params(length=0)
        axes.xaxis.tick_top()
    left.set_yticks(range(len(names)), names, fontsize=9)
    right.set_yticks([])
    left.set_xticks(range(len(columns)), [c.replace(" ", "\n", 1) for c in columns], fontsize=9)
    right.set_xticks([0], ["all\nsteps"], fontsize=9, fontweight="bold")
    left.set_xlabel("nats short of the oracle, at steps made by this mechanism")
    figure.suptitle(finding, fontsize=11, fontweight="bold", x=0.01, ha="left")
    each = "; ".join(
        f"{name} {total:.2f} (" + ", ".join(f"{c} {v:.2f}" for c, v in zip(columns, row, strict=True)) + ")"
        for name, total, row in zip(names, totals, values, strict=True)
    )
    return Picture(figure, f"nats short of the oracle over all steps, and by mechanism: {each}.")

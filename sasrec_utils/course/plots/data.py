"""Figures of the data: lengths, popularity, what follows what, and how batches are filled (notebooks 01 and 02)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from sasrec_utils.course.plots.style import OKABE_ITO, Picture, line, new_axes, percent, styled, thousands


@styled
def lengths(values: np.ndarray, published: tuple[int, int, int] | None = None) -> Picture:
    """How long playlists are. `values` int [U]; `published`: quartiles to compare with. Taught in notebook 01 §4."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    figure, axes = new_axes()
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


@styled
def long_tail(plays: np.ndarray) -> Picture:
    """Plays of each track against its rank, both on log scales. `plays` int [N]. Taught in notebook 01 §5."""
    plays = np.sort(plays)[::-1]
    ranks = np.arange(1, len(plays) + 1)
    head = max(1, round(len(plays) / 100))
    share, once = plays[:head].sum() / plays.sum(), (plays == 1).mean()
    shown = np.unique(np.geomspace(1, len(plays), 300).astype(int)) - 1  # 300 points draw the same line as a million
    figure, axes = new_axes()
    axes.loglog(ranks[shown], plays[shown], color=OKABE_ITO["blue"])
    axes.axvspan(0.8, head, facecolor=OKABE_ITO["yellow"], alpha=0.5, hatch="//", edgecolor="#B0A010", linewidth=0)
    axes.annotate(f"the top 1 %: {share:.0%}\nof all plays", (0.02, 0.05), xycoords="axes fraction", fontsize=9,
                  bbox={"facecolor": "white", "edgecolor": "none", "pad": 3})  # fmt: skip
    axes.set_xlim(0.8, len(plays) * 1.3)
    axes.set_ylim(0.8, plays[0] * 1.6)
    thousands(axes.xaxis)
    thousands(axes.yaxis)
    axes.set(xlabel="rank of the track (log scale)", ylabel="plays (log scale)")
    axes.set_title(f"The top 1 % of tracks get {share:.0%} of all plays")
    return Picture(
        figure,
        f"plays fall from {plays[0]:,} for the most played of {len(plays):,} tracks to {plays[-1]:,} for the least "
        f"played; the top 1 % ({head:,} tracks) hold {share:.1%} of all plays; {once:.1%} of tracks are played once.",
    )


@styled
def growth(slices: Sequence[int], tracks: Sequence[int], published: Mapping[int, int] | None = None) -> Picture:
    """Different tracks against number of slices read, log scales. Taught in notebook 01 §6."""
    figure, axes = new_axes()
    line(axes, slices, tracks, 0, "these playlists")
    right = slices[-1]
    if published:
        line(axes, list(published), list(published.values()), 1, "the real set")
        right = max(right, *published)
    axes.set(xscale="log", yscale="log", xlim=(0.8, right * 8))
    ticks = [10**i for i in range(len(str(right)))]
    axes.set_xticks(ticks)
    thousands(axes.xaxis)
    thousands(axes.yaxis)
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


@styled
def coverage(counts: Sequence[int], tracks: np.ndarray, rows: np.ndarray) -> Picture:
    """Share of tracks and of rows that survive a minimum count. All [M]. Taught in notebook 01 §7."""
    figure, axes = new_axes()
    line(axes, counts, rows, 0, "rows kept", at=1)
    line(axes, counts, tracks, 1, "tracks kept", at=1)
    axes.set(xscale="log", xlim=(counts[0] * 0.9, counts[-1] * 1.1), ylim=(0, 1.05))
    axes.set_xticks(counts)
    thousands(axes.xaxis)
    axes.minorticks_off()
    percent(axes.yaxis)
    at = int(np.argmin(np.abs(np.asarray(counts) - 5)))
    axes.set(xlabel="minimum number of plays of a track (log scale)", ylabel="share kept")
    axes.set_title(f"At {counts[at]} plays or more, {tracks[at]:.0%} of tracks keep {rows[at]:.0%} of rows")
    return Picture(
        figure,
        f"asking for {counts[at]} plays keeps {tracks[at]:.1%} of tracks and {rows[at]:.1%} of rows; asking for "
        f"{counts[-1]} keeps {tracks[-1]:.1%} and {rows[-1]:.1%}.",
    )


@styled
def titles(words: Sequence[str], playlists: Sequence[int], total: int) -> Picture:
    """How many playlists carry the commonest title words. Taught in notebook 01 §8."""
    figure, axes = new_axes(height=0.9 + 0.26 * len(words))
    axes.barh(range(len(words)), playlists, color=OKABE_ITO["sky"], edgecolor=OKABE_ITO["blue"])
    axes.set_yticks(range(len(words)), words)
    axes.invert_yaxis()
    axes.bar_label(axes.containers[0], [f"{n:,}" for n in playlists], padding=4, fontsize=9)
    axes.grid(axis="y", visible=False)
    axes.set_xlim(0, max(playlists) * 1.12)
    thousands(axes.xaxis)
    axes.set(xlabel="playlists with this word in their title")
    share = sum(playlists) / total
    axes.set_title(f"“{words[0]}” stands in {playlists[0] / total:.0%} of all titles")
    return Picture(
        figure,
        f"the {len(words)} commonest title words are {', '.join(words)}; the first stands in {playlists[0]:,} of "
        f"{total:,} titles, all {len(words)} together {share:.0%} as often as there are titles.",
    )


@styled
def lags(steps: Sequence[int], real: np.ndarray, shuffled: np.ndarray, published: float | None = None) -> Picture:
    """P(same artist) k steps back, in order and shuffled; `published`: the real set's at k = 1. Notebook 01 §9."""
    figure, axes = new_axes()
    line(axes, steps, real, 0, "in order")
    line(axes, steps, shuffled, 1, "shuffled")
    if published is not None:
        axes.plot([1], [published], linestyle="", marker="*", markersize=11, color=OKABE_ITO["vermilion"])
        axes.annotate("the real set", (1, published), xytext=(9, 3), textcoords="offset points",
                      color=OKABE_ITO["vermilion"], fontsize=9)  # fmt: skip
    axes.set(xlim=(min(steps) - 0.4, max(steps) * 1.2), ylim=(0, max(*real, published or 0) * 1.18))
    axes.set_xticks(steps)
    percent(axes.yaxis)
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


@styled
def unseen(playlists: Sequence[int], share: np.ndarray, published: Mapping[int, float] | None = None) -> Picture:
    """Share of test targets that training never saw, against training playlists. Taught in notebook 01 §10."""
    figure, axes = new_axes()
    line(axes, playlists, share, 0, "these playlists", at=1)
    right = playlists[-1]
    top = max(share)
    if published:
        line(axes, list(published), list(published.values()), 1, "the real set (estimate)", at=1)
        right, top = max(right, *published), max(top, *published.values())
    axes.set(xscale="log", xlim=(playlists[0] * 0.8, right * 1.6), ylim=(-0.01, top * 1.1))
    thousands(axes.xaxis)
    percent(axes.yaxis)
    axes.minorticks_off()
    axes.set(xlabel="training playlists (log scale)", ylabel="targets never seen in training")
    axes.set_title(f"With {playlists[-1]:,} training playlists, {share[-1]:.1%} of targets were never seen")
    by_size = ", ".join(f"{s:.1%} after {n:,}" for n, s in zip(playlists, share, strict=True))
    words = f"of the test targets, the share that training never saw is {by_size} playlists"
    if published:
        known = ", ".join(f"{s:.0%} after {n:,}" for n, s in published.items())
        words += f"; in the real set about {known}"
    return Picture(figure, words + ".")


@styled
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

"""Figures of the data: how plays are spread, what follows what, what is new, how batches fill (notebooks 00 to 02)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from sasrec_utils.course.plots.style import CYCLE, OKABE_ITO, Picture, line, new_axes, percent, styled, thousands


@styled
def looks(weights: np.ndarray, artists: Sequence[str], names: Sequence[str]) -> Picture:
    """Where the newest track looks: `weights` [heads, n] over the newest n tracks, oldest first. Notebook 00 §3."""
    heads, n = weights.shape
    figure = Figure(figsize=(3.1 + 2.1 * heads, 0.9 + 0.3 * n), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, heads, sharey=True, sharex=True))
    back = [n - int(peak) for peak in weights.argmax(axis=1)]
    for head, (axes, row) in enumerate(zip(panels, weights, strict=True)):
        colour, hatch = (OKABE_ITO["sky"], "") if head % 2 == 0 else (OKABE_ITO["orange"], "///")
        axes.barh(range(n), row, color=colour, edgecolor="black", linewidth=0.8, hatch=hatch, height=0.66)
        for place, value in enumerate(row):
            if value >= 0.005:
                axes.annotate(f"{value:.0%}", (value, place), xytext=(4, 0), textcoords="offset points", va="center",
                              fontsize=9)  # fmt: skip
        axes.set_title(names[head], fontsize=10)
        axes.grid(axis="y", visible=False)
        axes.set(xlabel="share of its attention", ylim=(n - 0.5, -0.5))
        percent(axes.xaxis)
    panels[0].set_xlim(0, min(1.15, 1.25 * weights.max()))
    short = [name if len(name) <= 26 else name[:25] + "…" for name in artists]
    panels[0].set_yticks(range(n), [f"{name}  {n - place} back" for place, name in enumerate(short)])
    found = [f"{name} looks {k} {'track' if k == 1 else 'tracks'} back" for name, k in zip(names, back, strict=True)]
    title = ", ".join(found)
    figure.suptitle(title[0].upper() + title[1:], fontsize=11, fontweight="bold", x=0.01, ha="left")
    each = "; ".join(
        f"{names[h]} gives {weights[h, n - back[h]]:.0%} to {artists[n - back[h]]}, {back[h]} before the next track"
        for h in range(heads)
    )
    return Picture(figure, f"of its attention {each}.")


@styled
def lags(steps: Sequence[int], real: np.ndarray, shuffled: np.ndarray) -> Picture:
    """How often the artist k steps back is the same: in order, and after shuffling. All [K]. Notebook 01 §1."""
    figure, axes = new_axes()
    line(axes, steps, real, 0, "in order")
    line(axes, steps, shuffled, 1, "shuffled")
    axes.set(xlim=(min(steps) - 0.4, max(steps) * 1.2), ylim=(0, max(real) * 1.18))
    axes.set_xticks(steps)
    percent(axes.yaxis)
    axes.set(xlabel="steps back, k", ylabel="same artist")
    high = [k for k, r, s in zip(steps, real, shuffled, strict=True) if r > 2 * s]
    clear = ", ".join(map(str, high)) or "none"
    axes.set_title(f"Twice as often as chance, or more, at k = {clear}" if high else "No k stands out from chance")
    by_lag = ", ".join(f"{r:.2f}" for r in real)
    return Picture(
        figure,
        f"the share of tracks with the artist of k steps before is {by_lag} for k = {steps[0]} to {steps[-1]}, and "
        f"{np.mean(shuffled):.2f} on average after shuffling; k with more than twice that: {clear}.",
    )


@styled
def spread(plays: Mapping[str, np.ndarray], published: Mapping[float, float] | None = None, least: int = 5) -> Picture:
    """Share of all plays that the most played tracks hold: one curve for each world (plays int [N]), at most two.

    `published`: share of tracks → share of plays of a real slice. A ring marks where `least` plays end. Notebook 01 §2.
    """
    figure, axes = new_axes(height=3.9)
    told, tenth = [], {}
    for series, (name, counts) in enumerate(plays.items()):
        ranked = np.sort(counts)[::-1]
        tracks, held = np.arange(1, len(ranked) + 1) / len(ranked), np.cumsum(ranked) / ranked.sum()
        colour, _, style = CYCLE[series]
        axes.plot(np.append(0, tracks), np.append(0, held), color=colour, linestyle=style)
        at = int(len(ranked) * (0.3 if series == 0 else 0.22))
        axes.annotate(name, (tracks[at], held[at]), xytext=(8, -9) if series == 0 else (-6, 9), fontsize=9,
                      textcoords="offset points", ha="left" if series == 0 else "right", va="center")  # fmt: skip
        often = int((ranked >= least).sum())
        tenth[name] = held[round(len(ranked) / 10) - 1]
        told.append(
            f"{name}: the top 1 % of tracks hold {held[max(0, round(len(ranked) / 100) - 1)]:.1%} of plays, the top "
            f"10 % {tenth[name]:.1%}; {(ranked == 1).mean():.1%} of tracks are played once; {least} plays or more have "
            f"{often / len(ranked):.1%} of tracks, with {held[often - 1] if often else 0:.1%} of plays"
        )
        if 0 < often < len(ranked):
            axes.plot(tracks[often - 1], held[often - 1], "o", markersize=9, markerfacecolor="none",
                      markeredgecolor="black")  # fmt: skip
            axes.annotate(
                f"tracks with {least} plays or more:\n"
                f"{often / len(ranked):.0%} of tracks, {held[often - 1]:.0%} of plays",
                (tracks[often - 1], held[often - 1]), xytext=(0.42, 0.2), textcoords="axes fraction", fontsize=9,
                va="center", arrowprops={"arrowstyle": "-", "lw": 0.8},
            )  # fmt: skip
    if published:
        axes.plot(list(published), list(published.values()), "*", markersize=12, color=OKABE_ITO["vermilion"])
        axes.annotate("a real slice", min(published.items()), xytext=(26, -7), textcoords="offset points", fontsize=9,
                      color=OKABE_ITO["vermilion"])  # fmt: skip
        told.append("a real slice: " + ", ".join(f"the top {x:.0%} hold {y:.0%}" for x, y in published.items()))
    axes.plot([0, 1], [0, 1], color="#8A8A8A", linewidth=0.9)
    axes.annotate("all tracks alike", (0.78, 0.78), xytext=(4, -8), textcoords="offset points", fontsize=9,
                  color="#5A5A5A", va="top")  # fmt: skip
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="share of the tracks, most played first", ylabel="share of all plays")
    percent(axes.xaxis)
    percent(axes.yaxis)
    axes.set_title("Plays of the top tenth of tracks: " + ", ".join(f"{t:.0%} in {n}" for n, t in tenth.items()))
    return Picture(figure, ". ".join(told) + ".")


@styled
def unseen(playlists: Sequence[int], share: np.ndarray, published: Mapping[int, float] | None = None) -> Picture:
    """Share of next tracks that no training playlist holds, against training playlists. Notebook 01 §3.

    `published`: playlists → the same share of the real set.
    """
    figure, axes = new_axes()
    line(axes, playlists, share, 0, "these playlists", at=1)
    right, top = playlists[-1], max(share)
    if published:
        axes.plot(list(published), list(published.values()), "s", color=OKABE_ITO["orange"], markersize=7)
        for at, value in published.items():
            axes.annotate(f"the real set: {value:.1%}", (at, value),
                          xytext=(0, 9), textcoords="offset points", fontsize=9,
                          ha="left" if at < max(published) else "right")  # fmt: skip
        right, top = max(right, *published), max(top, *published.values())
    axes.set(xscale="log", xlim=(playlists[0] * 0.8, right * 1.8), ylim=(-0.01, top * 1.1))
    thousands(axes.xaxis)
    percent(axes.yaxis)
    axes.minorticks_off()
    axes.set(xlabel="training playlists (log scale)", ylabel="next tracks that are new")
    left = "none" if share[-1] < 0.0005 else f"{share[-1]:.1%}"
    if published:
        title = f"A real slice leaves {published[min(published)]:.0%} of next tracks new, these leave {left}"
    else:
        title = f"After {playlists[-1]:,} playlists, new next tracks: {left}"
    axes.set_title(title)
    by_size = ", ".join(f"{s:.1%} after {n:,}" for n, s in zip(playlists, share, strict=True))
    words = f"of the next tracks, the share that training never saw is {by_size} playlists"
    if published:
        words += "; in the real set " + ", ".join(f"{s:.1%} after {n:,}" for n, s in published.items())
    return Picture(figure, words + ".")


@styled
def batch(kinds: Mapping[str, np.ndarray]) -> Picture:
    """Where batches hold tracks and where padding. Each value bool [B, L], True = a track. Notebook 02 §5."""
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

"""Figures of learning: loss curves, learning rates, and variants side by side (notebook 05)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sasrec_utils.course.plots.style import CYCLE, OKABE_ITO, Picture, new_axes, styled


class Live:
    """A picture that is drawn anew while something goes on: `with Live(draw) as show: fit(…, after_epoch=show)`.

    `draw` makes a `Picture` of what `show` is called with. The cell has one output, replaced each time, so what stays
    in the notebook is the last picture, and under it its words. Nothing is left of the ones before, and no widget.
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
            display(self.picture.twin(), raw=True)


@styled
def loss_curves(runs: Mapping[str, Mapping], finding: str) -> Picture:
    """Losses and NDCG@10 by epoch, a row for each run: {"history", "floor", "popularity", "best"}.

    "history" as `fit` returns it; "floor" is the oracle's loss, "popularity" that of popularity, "best" the oracle's
    NDCG@10; each of them may be None. Taught in notebook 05 §4.
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


@styled
def learning_rates(
    rates: np.ndarray,
    losses: np.ndarray,
    chosen: float,
    starts: Mapping[str, np.ndarray],
    finding: str,
    also: tuple[str, np.ndarray] | None = None,
) -> Picture:
    """A range test (loss against a rising learning rate, [S] each) and the first steps of some runs. Notebook 05 §5.

    `also`: a second range test with its name, drawn dashed.
    """
    figure = Figure(figsize=(7.4, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    smooth = _smooth(losses)
    left.plot(rates, losses, color="#B5B5B5", linewidth=0.8)
    left.plot(rates, smooth, color=OKABE_ITO["blue"])
    left.axvline(chosen, color=OKABE_ITO["black"], linestyle=":", linewidth=1.4)
    left.set_xscale("log")
    top = losses[0] + 0.8 * (losses[0] - smooth.min())
    left.set_ylim(smooth.min() - 0.15 * (top - smooth.min()), top)
    left.annotate(f"chosen: {chosen:g}", (chosen, top), xytext=(-5, -8), textcoords="offset points", ha="right",
                  fontsize=9)  # fmt: skip
    if also is not None:
        left.plot(rates, _smooth(also[1]), color=OKABE_ITO["orange"], linestyle="--", label=also[0])
        left.plot([], [], color=OKABE_ITO["blue"], label="all weights")
        left.legend(loc="lower left", fontsize=9)
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
    if also is not None:
        at = [_smooth(also[1])[np.searchsorted(rates, rate)] for rate in (0.01, 0.1)]
        each += f"; {also[0]}: {at[0]:.2f} at 0.01, {at[1]:.2f} at 0.1"
    return Picture(
        figure,
        f"the loss falls as the rate rises from {rates[0]:.0e}, is lowest near {lowest:.0e} and climbs beyond; chosen: "
        f"{chosen:g}. Training loss (nats) after {len(next(iter(starts.values())))} steps: {each}.",
    )


def _smooth(values: np.ndarray, span: int = 9) -> np.ndarray:
    """Running mean over up to `span` neighbours."""
    ones = np.ones(min(span, len(values)))
    return np.convolve(values, ones, "same") / np.convolve(np.ones(len(values)), ones, "same")


@styled
def dots(
    names: Sequence[str], values: np.ndarray, unit: str, finding: str, line: tuple[float, str] | None = None
) -> Picture:
    """One row a name, one dot a seed, and their mean. `values` [names, seeds]; `line`: a value to compare with."""
    values = np.asarray(values)
    figure, axes = new_axes(height=1.1 + 0.45 * len(names))
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


@styled
def gaps(names: Sequence[str], columns: Sequence[str], values: np.ndarray, totals: np.ndarray, finding: str) -> Picture:
    """What each model lacks to the oracle, by what made the step: nats [models, columns], all steps [models].

    White is 0, orange behind the oracle, purple ahead of it (by luck, in single columns). Taught in notebook 05 §8.
    """
    values, totals = np.asarray(values), np.asarray(totals)
    figure = Figure(figsize=(7.6, 1.5 + 0.36 * len(names)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[len(columns), 1.1])
    limit = 1.2 * max(np.abs(values).max(), 1e-9)  # one scale for both panels: the ends are too dark for black text
    for axes, table in ((left, values), (right, totals[:, None])):
        axes.imshow(table, cmap="PuOr_r", vmin=-limit, vmax=limit, aspect="auto")
        for row, column in np.ndindex(table.shape):
            value = round(table[row, column], 2) + 0.0  # no minus before a zero
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=9,
                      color="black" if abs(value) < 0.6 * limit else "white")  # fmt: skip
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

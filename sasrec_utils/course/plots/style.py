"""What all figures share: colours, line styles, `Picture`, and axes that look alike."""

from __future__ import annotations

import base64
import functools
import io
import logging
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib as mpl
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

# The first import on a new machine says that it builds a list of fonts: nothing a reader, or a test, has to know.
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)

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


def styled(function: Callable[..., Picture]) -> Callable[..., Picture]:
    """Draw in this module's style and leave everyone else's as it was."""

    @functools.wraps(function)
    def styled(*args, **kwargs) -> Picture:
        with mpl.rc_context(STYLE):
            return function(*args, **kwargs)

    return styled


def new_axes(width: float = 6.6, height: float = 3.6) -> tuple[Figure, Axes]:
    """A figure of this size in inches with one pair of axes, laid out so that nothing is cut off."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def line(axes: Axes, x: Sequence[float], y: Sequence[float], series: int, label: str, at: int = -1) -> None:
    """A line in the style of its series, named beside its last point, or beside point `at`."""
    colour, marker, style = CYCLE[series]
    axes.plot(x, y, color=colour, marker=marker, linestyle=style, label=label)
    at = min(at, len(x) - 1)
    up = 0 if at == -1 else 7
    axes.annotate(label, (x[at], y[at]), xytext=(8, up), textcoords="offset points", va="center", fontsize=9)


def percent(axis) -> None:
    """Write the shares 0…1 of an axis as 0 % to 100 %."""
    axis.set_major_formatter(PercentFormatter(1, decimals=0))


def thousands(axis) -> None:
    """Write the counts of an axis with commas, so that 1000000 can be read."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))


def number(value: float) -> str:
    """As short as it can be read: two digits after the point, none for whole numbers."""
    return "0" if abs(value) < 0.005 else f"{value:.2f}".rstrip("0").rstrip(".").replace("-", "−")

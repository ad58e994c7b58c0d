"""The figures of the notebooks: one style, a title that states the finding, and the finding again in words.

Every function takes numbers and returns a `Picture`. Shown in a notebook it is a PNG at twice the screen's resolution
and, folded under it, its twin "In words", for people who do not see the picture and for tests, which do not look at it
either. Colours are Okabe and Ito's (distinct for colour-blind people), always doubled by a marker, a
line style or a hatch; magnitudes go from white to dark in one hue. Nothing here keeps pyplot figures open.
"""

from sasrec_utils.course.plots.beyond import maps, nearest
from sasrec_utils.course.plots.data import batch, lags, looks, spread, unseen
from sasrec_utils.course.plots.diagrams import journey, shift
from sasrec_utils.course.plots.model import (
    attention,
    by_distance,
    cost,
    effects,
    falls,
    matrices,
    one_query,
    over_sizes,
    split_heads,
    wiring,
)
from sasrec_utils.course.plots.scale import growth, power_law
from sasrec_utils.course.plots.scores import against_claim, bars, by_group, continuation, curves, promises
from sasrec_utils.course.plots.stages import funnel
from sasrec_utils.course.plots.style import CYCLE, OKABE_ITO, Picture
from sasrec_utils.course.plots.training import Live, dots, gaps, learning_rates, loss_curves

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
    "curves",
    "dots",
    "effects",
    "falls",
    "funnel",
    "gaps",
    "growth",
    "journey",
    "lags",
    "learning_rates",
    "looks",
    "loss_curves",
    "maps",
    "matrices",
    "nearest",
    "one_query",
    "over_sizes",
    "power_law",
    "promises",
    "shift",
    "split_heads",
    "spread",
    "unseen",
    "wiring",
]

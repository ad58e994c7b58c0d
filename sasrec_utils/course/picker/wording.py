"""What the picker's sentences are made of: numbers with their nouns, shares, and finding a text by its words."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Sequence

from sasrec_utils.baselines import ItemKNN, Markov, Popularity
from sasrec_utils.model import SASRec
from sasrec_utils.recommender import Recommender
from sasrec_utils.track_names import fold
from sasrec_utils.world import Oracle


def count(n: int, thing: str) -> str:
    """A number with its noun: 1 track, 2,000 tracks."""
    return f"{n:,} {thing}" + ("" if n == 1 else "s")


def share(value: float) -> str:
    """A probability in per cent, with as many digits as say something."""
    return "<0.01%" if 0 < value < 5e-5 else f"{100 * value:.2f}%" if value < 0.01 else f"{100 * value:.1f}%"


def unit(recommender: Recommender) -> str:
    """What the numbers of a model mean: "probability", "plays", "similarity" or, of unknown scale, "score"."""
    scorer = recommender.scorer
    if isinstance(scorer, SASRec | Markov | Oracle):
        return "probability"
    if isinstance(scorer, Popularity):
        return "plays"
    return "similarity" if isinstance(scorer, ItemKNN) else "score"


class Finder:
    """Which of many texts contain all words of a query, in any case and without accents; exact ones first.

    All texts stand in one string, so that thousands of them are searched in a millisecond.
    """

    def __init__(self, texts: Sequence[str]):
        folded = [fold(text) for text in texts]
        self.blob = "\n".join(folded) + "\n"
        self.starts = [0, *itertools.accumulate(len(text) + 1 for text in folded)]

    def __call__(self, query: str) -> list[int]:
        """Numbers of the texts that match, those that equal the query first; all of them for an empty query."""
        words = sorted(fold(query).split(), key=self.blob.count)  # the rarest first: few texts are looked at
        if not words:
            return list(range(len(self.starts) - 1))
        exact, found, at = [], [], self.blob.find(words[0])
        whole = fold(query)
        while at >= 0:
            row = bisect_right(self.starts, at) - 1
            start, end = self.starts[row], self.starts[row + 1]
            text = self.blob[start : end - 1]
            if all(word in text for word in words[1:]):
                (exact if text == whole else found).append(row)
            at = self.blob.find(words[0], end)
        return exact + found

"""Scorers and playlists that the tests of evaluation share."""

from __future__ import annotations

import numpy as np

from sasrec_utils.sequences import Sequences


class Fixed:
    """Gives each playlist the row of scores that its first track, a mere tag, points to."""

    def __init__(self, scores, name="fixed"):
        self.scores, self.name = np.asarray(scores), name
        self.n_items = self.scores.shape[1] - 1
        self.batches = []

    def score(self, histories):
        self.batches.append(len(histories))
        return self.scores[histories.items[histories.offsets[:-1]] - self.n_items - 1]


def tagged(rows, n_items) -> Sequences:
    """Playlists whose first entry is an unknown id, N + 1 + u: which row of `Fixed` to give."""
    return Sequences.from_lists([[n_items + 1 + u, *row] for u, row in enumerate(rows)])


def random_case(seed, users=40, n_items=30, levels=5):
    """Histories, targets (some lost) and scores with many ties."""
    rng = np.random.default_rng(seed)
    rows = [rng.integers(1, n_items + 4, rng.integers(0, 12)).tolist() for _ in range(users)]
    targets = rng.integers(0, n_items + 3, users)
    scores = rng.integers(0, levels, (users, n_items + 1)).astype(np.float32)
    scores[:, 0] = np.nan  # padding: never read
    scores[rng.random(scores.shape) < 0.1] = -np.inf
    return rows, targets, scores


class RandomScorer:
    name = "random"

    def __init__(self, n_items, seed=0):
        self.n_items, self.rng = n_items, np.random.default_rng(seed)

    def score(self, histories):
        return self.rng.random((len(histories), self.n_items + 1), dtype=np.float32)

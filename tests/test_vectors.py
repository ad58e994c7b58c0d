"""Vectors of tracks from counting."""

from __future__ import annotations

import numpy as np
import pytest

from sasrec_utils.sequences import Sequences
from sasrec_utils.vectors import count_vectors

GROUPS, SIZE = 4, 10
N = GROUPS * SIZE


def playlists(n=300, seed=0) -> Sequences:
    """Each of one of four groups of ten tracks, in any order."""
    rng = np.random.default_rng(seed)
    return Sequences.from_lists([rng.integers(GROUPS) * SIZE + 1 + rng.permutation(SIZE)[:6] for _ in range(n)])


def test_tracks_that_keep_company_have_large_products():
    vectors = count_vectors(playlists(), N, 8)
    assert vectors.shape == (N + 1, 8) and vectors.dtype == np.float32 and not vectors[0].any()
    assert (vectors[1:] ** 2).sum(1).mean() == pytest.approx(1, abs=1e-5)
    group = (np.arange(1, N + 1) - 1) // SIZE
    products = (vectors @ vectors.T)[1:, 1:]
    together = group[:, None] == group[None, :]
    assert products[together].mean() > 10 * abs(products[~together]).mean()


def test_with_every_direction_they_are_the_association_itself():
    """M is M = U S Uᵀ up to the signs of S, so its square is V S Vᵀ for our V = U √S: checked by a plain double loop."""
    seqs = Sequences.from_lists([[1, 2, 3], [3, 1], [2, 4, 1], [4, 4, 2]])
    met = np.zeros((5, 5))
    for row in seqs:
        for i, a in enumerate(row):
            for j, b in enumerate(row):
                if 0 < abs(i - j) <= 2:
                    met[a, b] += 0.5 ** (abs(i - j) - 1)
    chance = met.sum(0) ** 0.75 / (met.sum(0) ** 0.75).sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        association = np.nan_to_num(np.maximum(np.log(met / (met.sum(1)[:, None] * chance)), 0))
    left, sizes, _ = np.linalg.svd(association)
    expected = left @ np.diag(sizes) @ left.T  # the association with all its eigenvalues made positive
    vectors = count_vectors(seqs, 4, 5, window=2, decay=0.5).astype(float)
    found = vectors @ vectors.T
    assert np.allclose(found / np.trace(found), expected / np.trace(expected), atol=1e-4)


def test_unknown_and_lonely_tracks_have_none_and_runs_agree():
    seqs = playlists(40)
    alone = Sequences.from_lists([*seqs, [N + 1], [N + 9, 3, N + 9]])
    vectors = count_vectors(alone, N + 1, 6)
    assert not vectors[N + 1].any() and vectors[1:].any(1).sum() == N
    assert np.array_equal(vectors, count_vectors(alone, N + 1, 6))
    assert not count_vectors(Sequences.from_lists([[1], [2]]), 2, 6).any()
    wide = count_vectors(seqs, N, 100)  # more room than tracks: the rest is 0
    assert wide.shape == (N + 1, 100) and np.isfinite(wide).all()

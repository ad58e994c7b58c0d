"""Vectors of tracks from counting alone: where a model's tables can start from.

A table that starts from noise has to learn from a handful of plays which tracks belong together, and learns the
handful by heart. Counting knows it at once: how much more often than by chance two tracks stand near each other in the
training playlists, written as products of short vectors. That is what word2vec comes down to, too (Levy and Goldberg,
NeurIPS 2014).
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from sasrec_utils.sequences import Sequences

__all__ = ["count_vectors"]


def count_vectors(train: Sequences, n_items: int, dim: int, window: int = 20, decay: float = 0.9) -> np.ndarray:
    """Vectors of tracks, float32 [N+1, dim], whose products are large where tracks keep company; row 0 is 0.

    `train`: training playlists in model ids. Two tracks at most `window` apart count as decay^(distance - 1) of a
    meeting. M_ij = max(0, log of meetings over what chance gives), chance with popularity^0.75 as word2vec has it; the
    vectors are U √S of its best approximation of rank `dim` (Halko et al. 2011, by random projections with a fixed
    seed), scaled so that their mean square length is 1. Tracks without company get 0.
    """
    counts = _meetings(train, n_items, window, decay)
    plays = counts.sum(axis=0)
    chance = plays**0.75
    chance /= max(chance.sum(), 1e-30)
    rows = np.repeat(np.arange(n_items + 1), np.diff(counts.indptr))
    counts.data = np.maximum(np.log(counts.data / (plays[rows] * chance[counts.indices])), 0).astype(np.float32)
    vectors, sizes = _best_rank(counts, min(dim, n_items))
    found = np.zeros((n_items + 1, dim), np.float32)
    found[:, : vectors.shape[1]] = vectors * np.sqrt(sizes)
    found[plays == 0] = 0
    return found / max(np.sqrt((found[1:] ** 2).sum(1).mean()), 1e-30)


def _meetings(train: Sequences, n_items: int, window: int, decay: float) -> sparse.csr_array:
    """How often each two known tracks stand near each other, in either order; symmetric, [N+1, N+1]."""
    known = train.keep(train.items <= n_items)
    items, owner = known.items, known.owner
    total = sparse.csr_array((n_items + 1, n_items + 1), dtype=np.float64)
    for distance in range(1, window + 1):
        near = owner[distance:] == owner[:-distance]
        pairs = items[:-distance][near], items[distance:][near]
        total = total + sparse.csr_array((np.full(near.sum(), decay ** (distance - 1)), pairs), shape=total.shape)
    return (total + total.T).tocsr()


def _best_rank(matrix: sparse.csr_array, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Left singular vectors [N+1, rank] and singular values [rank] of a sparse matrix, the largest ones."""
    rng = np.random.default_rng(0)
    basis = rng.standard_normal((matrix.shape[1], rank + 16), dtype=np.float32)
    for _ in range(4):
        basis, _ = np.linalg.qr(matrix @ (matrix.T @ basis))
    left, sizes, _ = np.linalg.svd((matrix.T @ basis).T, full_matrices=False)
    return (basis @ left)[:, :rank], sizes[:rank]

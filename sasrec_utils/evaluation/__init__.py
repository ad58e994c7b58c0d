"""Ranks, metrics, intervals and protocols: how good a scorer is, and how sure we can be of it.

A *scorer* is any object with a `name`, a number of tracks `n_items` (N) and a method `score(histories: Sequences) ->
array [B, N + 1]`: one score per history and track, higher is better, column 0 is padding and is never read. Popularity,
Markov, nearest neighbours, SASRec, their blend and the oracle of the made-up world all are scorers, and nothing here
knows which one it is judging. A scorer that makes something large of its weights for every call may have a method
`unchanged()` too: a context in which it is called many times with the same weights (see `ranking`).

Three protocols, always named in the report:

- `full`: the next track is ranked among all N tracks that the playlist does not hold yet. The headline.
- `sampled`: it is ranked among 100 random tracks only, as in the SASRec paper. The numbers are many times higher and
  can order models differently (Krichene and Rendle, KDD 2020): never compare the two.
- `continuation`: the RecSys Challenge 2018 task, 500 tracks for a playlist given its first few.

`ranking` turns scores into ranks and lists, `metrics` those into numbers with intervals, `reports` holds the protocols.
"""

from sasrec_utils.evaluation.kept import keep_reports, kept_reports
from sasrec_utils.evaluation.metrics import Interval, log_likelihood, ndcg_at, recall_at, reciprocal_rank
from sasrec_utils.evaluation.ranking import MAX_SCORES, ranks, sampled_ranks, top_k
from sasrec_utils.evaluation.reports import Report, compare, continuation, evaluate, table

__all__ = [
    "MAX_SCORES",
    "Interval",
    "Report",
    "compare",
    "continuation",
    "evaluate",
    "keep_reports",
    "kept_reports",
    "log_likelihood",
    "ndcg_at",
    "ranks",
    "recall_at",
    "reciprocal_rank",
    "sampled_ranks",
    "table",
    "top_k",
]

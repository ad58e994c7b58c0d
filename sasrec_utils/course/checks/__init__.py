"""Checks for the exercises: each tries a learner's answer and says what holds, or which property is violated and where.

A check takes what the learner wrote and returns a `Result`, which shows itself as one or two lines:

    · not attempted yet        the stub is untouched (so that a notebook runs from top to bottom)
    ✘ property: smallest counter-example that was found
    ✔ property that holds

Every check is tested against the stub, the solution and the broken variants that people really write. The exercises are
in notebooks 00 to 10, their solutions in `notebooks/solutions`.
"""

from sasrec_utils.course.checks.attention import (
    allowed_mask,
    attention_row,
    masked_attention,
    padded_attention,
    score_newest,
)
from sasrec_utils.course.checks.evaluation import (
    difference_interval,
    honest_rank,
    impossible,
    sampled_hit,
    three_metrics,
)
from sasrec_utils.course.checks.explore import (
    bucket,
    collision,
    same_artist,
    shared_playlists,
    slice_order,
    unseen_share,
)
from sasrec_utils.course.checks.features import letter_runs, lift_for, own_feature, standardise
from sasrec_utils.course.checks.heads import cut_head, distance_bias, head_loss
from sasrec_utils.course.checks.recommend import at_most, next_share, pick, weights_say, without
from sasrec_utils.course.checks.reranking import artist_habit, candidates, held_out, leaky_plans
from sasrec_utils.course.checks.scale import best_in_blocks, extrapolate, received, step_bytes, under_way
from sasrec_utils.course.checks.sequences import after_shuffling, hidden_leak, honest_split, keep_newest, leaks, shift
from sasrec_utils.course.checks.start import next_tracks, rank_of, share_of_best
from sasrec_utils.course.checks.training import (
    diagnoses,
    early_stop,
    loss_in_nats,
    masked_loss,
    negatives,
    training_step,
)
from sasrec_utils.course.checks.trying import Result

__all__ = [
    "Result",
    "after_shuffling",
    "allowed_mask",
    "artist_habit",
    "at_most",
    "attention_row",
    "best_in_blocks",
    "bucket",
    "candidates",
    "collision",
    "cut_head",
    "diagnoses",
    "difference_interval",
    "distance_bias",
    "head_loss",
    "early_stop",
    "extrapolate",
    "held_out",
    "hidden_leak",
    "honest_rank",
    "honest_split",
    "impossible",
    "keep_newest",
    "leaky_plans",
    "leaks",
    "letter_runs",
    "lift_for",
    "loss_in_nats",
    "masked_attention",
    "masked_loss",
    "negatives",
    "next_share",
    "next_tracks",
    "own_feature",
    "padded_attention",
    "pick",
    "rank_of",
    "received",
    "same_artist",
    "sampled_hit",
    "score_newest",
    "share_of_best",
    "shared_playlists",
    "shift",
    "slice_order",
    "standardise",
    "step_bytes",
    "three_metrics",
    "training_step",
    "under_way",
    "unseen_share",
    "weights_say",
    "without",
]

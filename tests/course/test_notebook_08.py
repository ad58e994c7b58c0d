"""What notebook 08 works with: people who return, a model that is trained once, and the record it reads."""

from __future__ import annotations

import numpy as np
import pytest

from sasrec_utils.course import beyond
from sasrec_utils.model import SASRecConfig
from sasrec_utils.sequences import Sequences
from sasrec_utils.world import TEACHING, World


def test_people_come_back_with_one_mood_of_their_own():
    world = World(TEACHING)
    playlists, who = beyond.returning(world, people=48, playlists=300)
    mood = world.draw_slice(0, 1_000).mood[:300]
    assert len(playlists) == len(who) == 300 and playlists.items.min() >= 1
    assert all(len(set(mood[who == person])) == 1 for person in np.unique(who))
    assert np.bincount(who).max() > 3, "the same people make several playlists"


def test_a_model_is_trained_once_and_again_if_another_is_wanted(tmp_path, monkeypatch):
    monkeypatch.setenv("SASREC_DATA", str(tmp_path))
    seqs = Sequences.from_lists([[1, 2, 3, 4]] * 20)
    shape = SASRecConfig(4, dim=8, heads=2, max_len=4)
    first = beyond.trained("small", shape, seqs, seqs, epochs=1)
    calls = []
    monkeypatch.setattr(beyond, "fit", lambda *args, **kwargs: calls.append(args))
    again = beyond.trained("small", shape, seqs, seqs, epochs=1)
    assert not calls and np.array_equal(again.score(seqs), first.eval().score(seqs))
    beyond.trained("small", shape, seqs, seqs, epochs=2)
    assert len(calls) == 1


@pytest.mark.parametrize("world", ["release", "mpd-like"])
def test_the_record_says_who_gains(world):
    record = beyond.recorded(world)
    everything, ids = record.loc[("all of them", "never in training")], record.loc[("ids", "never in training")]
    assert ids["mean"] == 0 < everything["low"], "never seen targets are found by what is known of them alone"
    assert record.loc[("all of them", "all"), "gap_low"] > 0
    assert beyond.recorded(world, "ndcg@10").loc[("all of them", "all"), "more_low"] > -0.002
    assert record["targets"].min() > 50 and (record["low"] <= record["mean"]).all()
    models = record.drop(["oracle", "oracle + title", "popularity"], level="model")
    assert models["seeds"].str.split().str.len().eq(3).all()

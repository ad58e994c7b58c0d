"""The second stage: candidates, what is known of them, trees that order them, and files."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from sasrec_utils.baselines import Blend, ItemKNN, Markov, Popularity, fit_baselines
from sasrec_utils.evaluation import compare, evaluate, top_k
from sasrec_utils.model import SASRec, SASRecConfig
from sasrec_utils.reranking import FEATURES, FirstStage, RerankConfig, Reranker, cut, held_out, train_reranker
from sasrec_utils.sequences import Dataset, Sequences, leave_last_out
from sasrec_utils.training import CheckpointError

N, ARTISTS = 120, 30
ARTIST_OF = np.concatenate(([0], 1 + np.arange(N) % ARTISTS)).astype(np.int32)
ALBUM_OF = np.concatenate(([0], 1 + np.arange(N) % (2 * ARTISTS))).astype(np.int32)
SMALL = RerankConfig(trees=60, patience=20, leaves=7, least_in_leaf=20)


def playlists(n: int, seed: int) -> Sequences:
    """Two artists take turns with many others between: the next track is by the artist of two steps before."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(n):
        row = list(rng.choice(N, 2, replace=False) + 1)
        for _ in range(rng.integers(3, 14)):
            own = np.flatnonzero(ARTIST_OF == ARTIST_OF[row[-2]])
            left = np.setdiff1d(own, row)
            row.append(int(rng.choice(left)) if len(left) and rng.random() < 0.8 else int(rng.integers(1, N + 1)))
        made.append(row)
    return Sequences.from_lists(made)


def stage(train: Sequences, **more) -> FirstStage:
    model = SASRec(SASRecConfig(N, dim=8, heads=2, max_len=20)).eval()
    scorers = (model, ItemKNN.fit(train, N), Markov.fit(train, N, n_last=5))
    return FirstStage(Blend(scorers, (0.2, 0.5, 0.3), (True, False, False)), ARTIST_OF, ALBUM_OF, **more)


@pytest.fixture(scope="module")
def first() -> FirstStage:
    return stage(playlists(400, 1), take=(40, 30, 30, 40))


@pytest.fixture(scope="module")
def reranker(first) -> Reranker:
    histories, targets, owner = cut(playlists(250, 2), 3)
    return Reranker.fit(first, histories, targets, owner, SMALL)


HISTORIES = Sequences.from_lists([[1, 2, 31, 32, 3], [], [7], [N + 5, 4, 4, N + 9], list(range(1, 60)), [N + 1]])


# Questions


def test_cut_asks_for_the_last_track_and_for_distinct_earlier_ones():
    whole = playlists(50, 3)
    histories, targets, owner = cut(whole, 4, seed=5)
    asked = set()
    for history, target, u in zip(histories, targets, owner, strict=True):
        assert whole[u][: len(history)].tolist() == history.tolist() and len(history)
        assert whole[u][len(history)] == target
        asked.add((int(u), len(history)))
    assert len(asked) == len(targets)  # no question twice
    assert {(u, len(whole[u]) - 1) for u in range(50)} <= asked
    assert (np.bincount(owner, minlength=50) == np.minimum(4, whole.lengths - 1)).all()


def test_cut_once_is_leave_last_out_and_asks_nothing_of_a_single_track():
    histories, targets, owner = cut(Sequences.from_lists([[5, 6, 7], [8], [], [9, 1]]))
    assert owner.tolist() == [0, 3] and targets.tolist() == [7, 1]
    assert [history.tolist() for history in histories] == [[5, 6], [9]]


# Candidates and features


def test_candidates_are_the_best_of_every_list_without_the_history(first):
    found = first.find(HISTORIES)
    assert (np.diff(found.rows) >= 0).all()
    assert len(np.unique(found.rows * (N + 1) + found.tracks)) == len(found.rows)
    for u, history in enumerate(HISTORIES):
        mine = set(found.tracks[found.rows == u].tolist())
        best = [top_k(part, size, HISTORIES)[u] for part, size in zip(found.scores, first.take, strict=True)]
        assert mine == set(np.concatenate(best).tolist()) - {0}
        assert not mine & set(history.tolist())


def naive(first: FirstStage, history: list[int], track: int, others: list[int]) -> dict[str, float]:
    """Features of one candidate in plain words; `others`: all candidates of that history."""
    _, knn, markov = first.blend.scorers
    history = [t for t in history if t <= N]
    backwards = history[::-1]
    artists = [int(ARTIST_OF[t]) for t in backwards]
    mine, album = ARTIST_OF[track], ALBUM_OF[track]
    at = [age for age, artist in enumerate(artists) if artist == mine]
    plays = np.log1p(knn.plays)
    by_artist = np.bincount(ARTIST_OF, knn.plays)
    held = sum(knn.plays[t] for t in set(history) if ARTIST_OF[t] == mine)
    habit = []
    for k in range(1, 9):
        pairs = [(artists[i], artists[i + k]) for i in range(len(artists) - k)]
        habit.append((sum(a == b for a, b in pairs) + 0.2) / (len(pairs) + 2))
    n = len(history)
    known = {
        "artist_count": len(at), "artist_share": len(at) / max(n, 1), "artist_recent": sum(0.8**age for age in at),
        "artist_age": at[0] if at else 100, "artist_in_5": sum(age < 5 for age in at),
        "artist_last": 0 in at, "artist_second": 1 in at, "artist_third": 2 in at, "artist_fourth": 3 in at,
        "artist_habit": max([habit[age] for age in at if age < 8], default=0),
        "album_count": sum(ALBUM_OF[t] == album for t in history),
        "album_last": bool(history) and ALBUM_OF[history[-1]] == album,
        "artist_plays": np.log1p(by_artist[mine]), "track_plays": plays[track],
        "track_of_artist": knn.plays[track] / max(by_artist[mine] - held, 1), "length": n,
        "artists": len(set(artists)) / max(n, 1),
        "habit_1": habit[0], "habit_2": habit[1], "habit_4": habit[3],
        "mean_plays": np.mean(plays[history]) if history else 0,
    }  # fmt: skip
    known["plays_apart"] = plays[track] - known["mean_plays"]
    one = Sequences.from_lists([history])
    for name, scorer in (("knn", knn), ("blend", first.blend)):
        scores = scorer.score(one)[0]
        known[name] = scores[track]
        # Between equals, and nearly equals, the order is open: the place counts the tracks before and those beside it.
        before, beside = (sum(scores[t] > scores[track] + d for t in others) for d in (1e-5, -1e-5))
        known[f"{name}_rank"] = (before, beside - 1)
    known["markov"] = np.log(markov.score(one)[0, track])
    after = markov.counts[[history[-1]]].toarray()[0] if history else np.zeros(N + 1)
    known["follows_last"] = after[track] / (after.sum() + 1)
    known["returns"] = known["artist_habit"] * known["track_of_artist"]
    for age, name in enumerate(("near_last", "near_second", "near_third")):
        known[name] = knn.similarity[[backwards[age]]].toarray()[0, track] if age < n else 0
    allowed = [t for t in range(1, N + 1) if t not in history]
    logits = first.blend.scorers[0].score(one)[0].astype(np.float64)
    top = logits[allowed].max()
    known["model"] = logits[track] - top - np.log(np.exp(logits[allowed] - top).sum())
    follows = np.zeros(ARTISTS + 1)
    if history:
        for a, b, count in zip(*markov.counts.nonzero(), markov.counts.data, strict=True):
            follows[ARTIST_OF[b]] += count if ARTIST_OF[a] == artists[0] else 0
    known["artist_follows"] = np.log((follows[mine] + by_artist[mine] / by_artist.sum()) / (follows.sum() + 1))
    return known


def test_features_are_what_their_descriptions_say(first):
    found = first.find(HISTORIES)
    x = first.features(HISTORIES, found)
    assert x.shape == (len(found.rows), len(FEATURES)) and x.dtype == np.float32 and np.isfinite(x).all()
    rng = np.random.default_rng(0)
    for i in rng.choice(len(found.rows), 60, replace=False):
        u = found.rows[i]
        others = found.tracks[found.rows == u].tolist()
        expected = naive(first, HISTORIES[u].tolist(), int(found.tracks[i]), others)
        assert set(FEATURES) - set(expected) <= {"model_rank", "markov_rank"}
        for name, value in expected.items():
            got = x[i, list(FEATURES).index(name)]
            if name.endswith("_rank"):
                assert value[0] <= got <= value[1], f"{name} of {found.tracks[i]} after {u}"
                continue
            assert got == pytest.approx(float(value), rel=1e-3, abs=1e-3), f"{name} of {found.tracks[i]} after {u}"


def test_each_feature_has_one_line():
    assert all(name and len(text.split()) >= 2 and "\n" not in text for name, text in FEATURES.items())


def test_a_first_stage_of_other_parts_or_other_tracks_is_refused(first):
    model, knn, markov = first.blend.scorers
    with pytest.raises(ValueError, match="an ItemKNN and a Markov"):
        FirstStage(Blend((model, markov, knn), (1, 1, 1)), ARTIST_OF, ALBUM_OF)
    with pytest.raises(ValueError, match="artist_of covers 5"):
        FirstStage(first.blend, ARTIST_OF[:6], ALBUM_OF)


# Order


def test_trees_find_a_habit_that_the_first_stage_cannot_see(first, reranker):
    histories, targets = leave_last_out(playlists(300, 4))
    two, one = (evaluate(scorer, histories, targets) for scorer in (reranker, first.blend))
    assert compare(two, one, "recall@10").low > 0.02 and compare(two, one, "ndcg@10").low > 0.05
    assert next(iter(reranker.gains())).startswith("artist_")
    assert sum(reranker.gains().values()) == pytest.approx(1)


def test_candidates_stand_above_all_others_which_keep_their_order(first, reranker):
    scores, found = reranker.score(HISTORIES), first.find(HISTORIES)
    assert scores.shape == (len(HISTORIES), N + 1) and scores.dtype == np.float32 and np.isfinite(scores).all()
    for u in np.flatnonzero(np.isin(np.arange(len(HISTORIES)), HISTORIES.owner[HISTORIES.items <= N])):
        mine = found.tracks[found.rows == u]
        others = np.setdiff1d(np.arange(1, N + 1), mine)
        assert scores[u, mine].min() >= 0 > scores[u, others].max()
        in_order = others[np.argsort(-found.scores[3][u, others], kind="stable")]
        assert (np.diff(scores[u, in_order]) <= 0).all()


def test_after_nothing_known_the_first_stage_decides(reranker):
    scores = reranker.score(Sequences.from_lists([[], [N + 3]]))
    assert (scores == scores[0]).all()
    expected = reranker.first.blend.score(Sequences.from_lists([[]]))[0]
    assert (np.argsort(-scores[0, 1:], kind="stable") == np.argsort(-expected[1:], kind="stable")).all()


def test_candidates_that_are_equal_to_the_trees_keep_the_order_of_the_blend(first):
    class Undecided:
        def predict(self, x, num_threads):
            return np.where(np.arange(len(x)) % 7 == 0, -5.0, 3.0)

    tied = Reranker(first, Undecided(), RerankConfig())
    many = playlists(300, 11)  # as a whole, so that no step depends on how many are asked about together
    for scores, blend, history in zip(tied.score(many), first.blend.score(many), many, strict=True):
        best = [t for t in np.argsort(-scores, kind="stable") if t and t not in history][:10]
        assert (np.diff(scores[best]) < 0).all() and (np.diff(blend[best]) <= 0).all()


def test_a_batch_is_scored_as_one_by_one(reranker):
    whole = reranker.score(HISTORIES)
    for u in range(len(HISTORIES)):
        assert whole[u] == pytest.approx(reranker.score(HISTORIES.take([u]))[0], abs=1e-4)
    assert reranker.score(HISTORIES.take([])).shape == (0, N + 1)


def test_tracks_that_nobody_knows_change_nothing(reranker):
    plain, more = Sequences.from_lists([[1, 2, 3]]), Sequences.from_lists([[N + 7, 1, N + 1, 2, 3, N + 2]])
    assert (reranker.score(plain) == reranker.score(more)).all()


def test_the_same_seed_grows_the_same_trees(first, reranker):
    histories, targets, owner = cut(playlists(250, 2), 3)
    again = Reranker.fit(first, histories, targets, owner, SMALL)
    assert again.trees.model_to_string() == reranker.trees.model_to_string()


def test_only_the_named_features_are_used(first):
    histories, targets, owner = cut(playlists(120, 2), 2)
    few = replace(SMALL, only=("blend", "artist_habit"), trees=5)
    reranker = Reranker.fit(first, histories, targets, owner, few)
    assert set(reranker.gains()) == {"blend", "artist_habit"}
    assert reranker.score(HISTORIES).shape == (len(HISTORIES), N + 1)
    with pytest.raises(ValueError, match="loudness"):
        RerankConfig(only=("blend", "loudness"))


def test_whole_playlists_are_held_out_to_count_trees():
    owner = np.repeat(np.arange(40), np.arange(40) % 5 + 1)
    mask = held_out(owner, SMALL)
    sides = [np.unique(mask[owner == u]) for u in range(40)]
    assert all(len(side) == 1 for side in sides) and sum(side[0] for side in sides) == 8


def test_too_little_to_learn_from_is_said(first):
    histories, targets, owner = cut(playlists(5, 2))
    with pytest.raises(ValueError, match="too few for a second stage"):
        Reranker.fit(first, histories, targets, owner, SMALL)
    with pytest.raises(ValueError, match="too few for a second stage"):
        Reranker.fit(first, HISTORIES, np.full(len(HISTORIES), N + 3), None, SMALL)  # no target is known
    with pytest.raises(ValueError, match="as many targets"):
        Reranker.fit(first, HISTORIES, np.array([1]), None, SMALL)


def test_owners_must_fit_the_questions(first):
    with pytest.raises(ValueError, match="as many owners"):
        Reranker.fit(first, HISTORIES, np.ones(len(HISTORIES), int), np.array([1]), SMALL)


# Files


def test_train_reranker_leaves_beside_the_model_what_load_needs(first, tmp_path):
    train, valid = playlists(400, 1), playlists(200, 2)
    model = first.blend.scorers[0]
    data = Dataset(None, None, None, train, valid, valid, ARTIST_OF, ALBUM_OF)
    few = replace(SMALL, questions=2)
    baselines = fit_baselines(train, N, *leave_last_out(valid))
    trained = train_reranker(tmp_path, model, data, baselines, few)
    assert trained.first.blend.scorers[0] is model
    assert (Reranker.load(tmp_path, model).score(HISTORIES) == trained.score(HISTORIES)).all()

    before = (tmp_path / "reranker.json").stat().st_mtime_ns
    kept = train_reranker(tmp_path, model, data, baselines, few)  # it is there: nothing is trained
    assert (kept.score(HISTORIES) == trained.score(HISTORIES)).all()
    assert (tmp_path / "reranker.json").stat().st_mtime_ns == before
    assert train_reranker(tmp_path, model, data, baselines, replace(few, trees=3)).trees.num_trees() <= 3


def test_saved_and_loaded_it_scores_the_same_bit_for_bit(reranker, tmp_path):
    reranker.save(tmp_path)
    loaded = Reranker.load(tmp_path, reranker.first.blend.scorers[0])
    assert (loaded.score(HISTORIES) == reranker.score(HISTORIES)).all()
    assert loaded.config == reranker.config and loaded.name == reranker.name
    assert {path.suffix for path in tmp_path.iterdir()} == {".txt", ".json", ".safetensors"}


@pytest.mark.parametrize("name", ["reranker.txt", "reranker.safetensors", "reranker.json"])
@pytest.mark.parametrize("damage", ["missing", "cut short", "a bit", "foreign"])
def test_a_damaged_or_missing_file_gets_one_sentence(reranker, tmp_path, name, damage):
    reranker.save(tmp_path)
    path = tmp_path / name
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "cut short":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "a bit":
        place = content.index(b"config") + 2 if name.endswith("json") else len(content) // 2
        content[place] ^= 1
        path.write_bytes(content)
    else:
        path.write_bytes(b'{"kind": "sasrec"}')
    with pytest.raises(CheckpointError) as caught:
        Reranker.load(tmp_path, reranker.first.blend.scorers[0])
    assert "reranker" in str(caught.value) and "\n" not in str(caught.value)


def test_another_model_is_refused(reranker, tmp_path):
    reranker.save(tmp_path)
    other = SASRec(SASRecConfig(N, dim=8, heads=2, max_len=20), seed=1).eval()
    for model in (other, Popularity(np.ones(N + 1)), Popularity(np.ones(9))):
        with pytest.raises(CheckpointError, match="another model"):
            Reranker.load(tmp_path, model)


@pytest.mark.parametrize("key", ["blend", "knn", "take", "config", "sums", "model"])
@pytest.mark.parametrize("value", [None, {}, [1]])
def test_settings_that_were_changed_get_one_sentence(reranker, tmp_path, key, value):
    reranker.save(tmp_path)
    path = tmp_path / "reranker.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(CheckpointError, match="changed by hand"):
        Reranker.load(tmp_path, reranker.first.blend.scorers[0])

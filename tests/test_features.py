"""What is known beside ids: tables of features and titles are read as they stand, and what cannot be is said."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from sasrec_utils.checkpoints import load
from sasrec_utils.evaluation import evaluate
from sasrec_utils.features import WORDS, TrackFeatures, load_features, read_titles, title_parts
from sasrec_utils.model import SASRec, SASRecConfig
from sasrec_utils.recommender import Recommender
from sasrec_utils.sequences import Sequences, TitledBatch, Vocabulary, batches, leave_last_out
from sasrec_utils.training import Objective, TrainConfig, fit, lift_newcomers

URIS = [f"spotify:track:{i:022d}" for i in range(1, 7)]
TABLE = pd.DataFrame({
    "track_uri": URIS,
    "genre": ["jazz", "soul", "jazz", "", "soul", "polka"],
    "energy": ["0.1", "0.3", "", "0.7", "0.9", "1"],
    "bpm": ["100", "120", "80", "", "100", "300"],
})  # fmt: skip


def written(tmp_path, table=TABLE, name="features.csv"):
    path = tmp_path / name
    if name.endswith("csv"):
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path)
    return path


def changed(row: int, column: str, value: str) -> pd.DataFrame:
    table = TABLE.copy()
    table.loc[row, column] = value
    return table


def test_a_table_becomes_ids_and_standard_numbers(tmp_path):
    found = load_features(written(tmp_path), URIS)
    assert found.labels == {"genre": ["jazz", "polka", "soul"]} and found.columns == ["energy", "bpm"]
    assert found.categories["genre"].tolist() == [0, 1, 3, 1, 0, 3, 2]
    assert not found.numbers[0].any() and found.numbers.shape == (7, 4)
    assert found.numbers[:, 2].tolist() == [0, 0, 0, 1, 0, 0, 0] and found.numbers[3, 0] == 0
    there = found.numbers[1:, 0][found.numbers[1:, 2] == 0]
    assert there.mean() == pytest.approx(0, abs=1e-6) and there.std() == pytest.approx(1, abs=1e-6)
    assert found.mean[0] == pytest.approx(np.mean([0.1, 0.3, 0.7, 0.9, 1]))


def test_only_known_tracks_say_what_is_usual(tmp_path):
    known = load_features(written(tmp_path), URIS, n_known=2)
    assert known.mean == pytest.approx([0.2, 110])
    other = changed(5, "bpm", "17")
    assert load_features(written(tmp_path, other), URIS, n_known=2).mean == pytest.approx(known.mean)


def test_parquet_links_and_another_order_say_the_same(tmp_path):
    first = load_features(written(tmp_path), URIS)
    table = TABLE.assign(track_uri=[f"https://open.spotify.com/track/{uri[-22:]}?si=x" for uri in URIS])
    table = table.assign(energy=pd.to_numeric(TABLE["energy"]), genre=TABLE["genre"].replace("", None)).iloc[::-1]
    second = load_features(written(tmp_path, table, "features.parquet"), URIS)
    assert np.array_equal(first.numbers, second.numbers)
    assert np.array_equal(first.categories["genre"], second.categories["genre"])


def test_what_is_left_out_is_said(tmp_path):
    table = pd.concat([TABLE, TABLE.iloc[:1], TABLE.iloc[1:2].assign(track_uri="spotify:track:" + "z" * 22)])
    table = table.assign(label="", id=[f"x{i}" for i in range(len(table))])
    notes = " ".join(load_features(written(tmp_path, table.drop(columns="id")), [*URIS, URIS[0][:-1] + "9"]).notes)
    for words in (
        "1 row is of a track that",
        "1 row stands there twice",
        "label has no value",
        "1 of 7 tracks have no",
    ):
        assert words in notes
    many = pd.DataFrame({"track_uri": [f"{i:022d}" for i in range(30)], "id": [f"x{i}" for i in range(30)], "e": "1"})
    assert "says too little" in " ".join(load_features(written(tmp_path, many), many["track_uri"]).notes)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (changed(2, "bpm", "fast"), r"line 4: 'fast' in bpm is no number"),
        (changed(2, "energy", "loud"), r"line 4: 'loud' in energy is no number"),
        (changed(4, "energy", "85"), r"line 6: energy is 85, but it is a share and goes from 0 to 1"),
        (pd.concat([TABLE, TABLE.iloc[:1].assign(bpm="90")]), r"lines 2 and 8: say different things of spotify:track"),
        (TABLE.assign(track_uri=[f"{i:022d}" for i in range(100, 106)]), r"none of its 6 rows is of a track"),
        (TABLE.assign(genre="", energy="", bpm="NaN"), r"no column says anything"),
        (TABLE.drop(columns="track_uri"), r"has no column track_uri"),
        (TABLE.rename(columns={"bpm": "Energy "}), r"two columns are called energy"),
        (TABLE.rename(columns={"bpm": "artist"}), r"cannot be called 'artist'"),
        (TABLE.iloc[:0], r"has no rows"),
    ],
)
def test_bad_tables_get_one_sentence(tmp_path, table, words):
    with pytest.raises(ValueError, match=words) as error:
        load_features(written(tmp_path, table), URIS)
    assert "features.csv" in str(error.value) and "\n" not in str(error.value)


def test_files_that_are_no_table_get_one_sentence(tmp_path):
    for name, content in (("a.parquet", b"PAR1 nonsense"), ("b.csv", b'x,y\n"1,2\n'), ("c.csv", b"\xff\xfe\x00")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=re.escape(name)):
            load_features(tmp_path / name, URIS)
    with pytest.raises(ValueError, match="there is no such file"):
        load_features(tmp_path / "none.csv", URIS)


def test_some_columns_only(tmp_path):
    found = load_features(written(tmp_path), URIS)
    one = found.only(["bpm"])
    assert one.sizes == {} and np.array_equal(one.numbers, found.numbers[:, [1, 3]]) and one.columns == ["bpm"]
    with pytest.raises(ValueError, match="there is no tempo"):
        found.only(["tempo"])
    assert TrackFeatures({}, np.zeros((3, 0), np.float32)).sizes == {}


def test_titles_forget_case_accents_and_signs_but_keep_emoji():
    assert set(title_parts("Rainy  DAYS!! ☔")) == set(title_parts("rainy_days ☔"))
    assert title_parts("Café")[0] == "cafe" and "☔" in title_parts("☔") and title_parts(" !? ") == []
    assert {"<ra", "rain", "ny>"} <= set(title_parts("rainy"))
    shared = set(title_parts("workouts")) & set(title_parts("workout"))
    assert len(shared) > 5, "a word that was never seen shares parts with its relatives"


def test_titles_have_the_same_ids_in_every_process():
    code = "from sasrec_utils.features import read_titles; print(read_titles(['Rainy days ☔', None]).items.tolist())"
    outs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True
        ).stdout
        for seed in ("1", "2")
    }
    here = read_titles(["Rainy days ☔", None])
    assert outs == {f"{here.items.tolist()}\n"} and here.lengths.tolist()[1] == 0
    assert 1 <= here.items.min() and here.items.max() <= WORDS


def test_a_user_is_one_more_part():
    plain, known = read_titles(["rain", ""]), read_titles(["rain", ""], users=["ann", "ann"])
    assert known.lengths.tolist() == [plain.lengths[0] + 1, 1] and known[0][0] == known[1][0]
    with pytest.raises(ValueError, match="2 titles need as many users"):
        read_titles(["a", "b"], users=["x"])


def test_titles_stay_with_their_playlists():
    titles = Sequences.from_lists([[7], [8, 9], []])
    seqs = replace(Sequences.from_lists([[1, 2, 3], [4], [5, 6]]), titles=titles)
    for same in (seqs.last(1), seqs.first(2), seqs.keep(seqs.items != 2), leave_last_out(seqs)[0]):
        assert [row.tolist() for row in same.titles] == [[7], [8, 9], []]
    assert [row.tolist() for row in seqs.take([2, 0]).titles] == [[], [7]]
    assert [row.tolist() for row in seqs.take(np.array([False, True, False])).titles] == [[8, 9]]
    with pytest.raises(ValueError, match="3 playlists need as many titles"):
        replace(seqs, titles=Sequences.from_lists([[1]]))


def test_a_title_takes_the_place_in_front():
    seqs = replace(Sequences.from_lists([[1, 2, 3, 4], [], [5, 6]]), titles=Sequences.from_lists([[7], [], [8, 9]]))
    [batch] = batches(seqs, max_len=4, batch_size=8)
    assert isinstance(batch, TitledBatch)
    rows = {tuple(ids): (tuple(y), tuple(t)) for ids, y, t in zip(*(part.tolist() for part in batch), strict=True)}
    assert rows == {(0, 5, 0, 0): ((5, 6, 0, 0), (8, 9)), (0, 1, 2, 3): ((1, 2, 3, 4), (7, 0))}
    assert all(batch.ids.shape[1] <= 3 for batch in batches(seqs, max_len=3, batch_size=1))


def test_newcomers_come_behind_the_known_tracks():
    train = Sequences.from_lists([[3, 3, 1], [3, 1, 2]])
    known, all_of_them = (Vocabulary.fit(train, 5, min_count=2, newcomers=new) for new in (False, True))
    assert np.array_equal(known.to_catalogue, all_of_them.to_catalogue)
    assert (known.n_items, known.n_new, known.n_known) == (2, 0, 2)
    assert (all_of_them.n_items, all_of_them.n_new, all_of_them.n_known) == (5, 3, 2)
    assert "3 of them new" in repr(all_of_them)


# What the model makes of it

N, NEW, KINDS = 24, 4, 3  # tracks 21 to 24 are newcomers
SHAPE = {"dim": 16, "heads": 2, "max_len": 8, "dropout": 0.0, "positions": "relative"}


def known_of_tracks() -> TrackFeatures:
    """A category that follows from the id, and one number."""
    ids = np.arange(N + 1)
    numbers = np.stack([np.where(ids % 5 == 0, 0, ids / N), ids % 5 == 0], 1).astype(np.float32)
    numbers[0] = 0
    return TrackFeatures({"kind": np.where(ids > 0, ids % KINDS + 1, 0)}, numbers)


def side_model(**changes) -> SASRec:
    shape = SHAPE | {"categories": {"kind": KINDS}, "n_numbers": 1, "n_new": NEW} | changes
    groups = [np.arange(N + 1) % 5, np.arange(N + 1) % 7]
    own = {"artist_of": groups[0] if shape.get("n_artists") else None, "album_of": None}
    return SASRec(SASRecConfig(N, **shape), **own, features=known_of_tracks(), seed=3)


def by_kind(playlists: int, last: int, seed: int) -> Sequences:
    """Playlists of one kind each: who knows the kind of a track, knows what comes next. Tracks 1 to `last`."""
    rng = np.random.default_rng(seed)
    ids = np.arange(1, last + 1)
    return Sequences.from_lists([rng.permutation(ids[ids % KINDS == u % KINDS])[:6] for u in range(playlists)])


def test_nothing_changes_for_a_model_without_side_information():
    plain = SASRec(SASRecConfig(N, **SHAPE), seed=3)
    named = SASRec(SASRecConfig(N, **SHAPE, categories={}, n_new=0), seed=3, features=known_of_tracks())
    assert plain.state_dict().keys() == named.state_dict().keys()
    assert all(torch.equal(value, named.state_dict()[name]) for name, value in plain.state_dict().items())


@pytest.mark.parametrize("tied", [True, False])
def test_newcomers_share_one_vector_and_differ_by_what_is_known(tied):
    model = side_model(tied=tied).eval()
    table = model.table()
    assert table.shape == (N + 1, SHAPE["dim"]) and not table[0].any()
    assert torch.equal(table[1:], model.score_embed(torch.arange(1, N + 1)))
    assert not torch.equal(table[21], table[22]), "of another kind"
    model.number_emb.weight.data.zero_()
    if not tied:
        model.output_numbers.weight.data.zero_()
    assert torch.equal(model.table()[21], model.table()[24]), "of the same kind, and nothing else is known of them"
    assert not torch.equal(model.table()[18], model.table()[15]), "known tracks have vectors of their own"


def test_training_compares_known_tracks_only():
    model = side_model(id_dropout=0.0).train()
    assert len(model.table()) == N - NEW + 1
    with model.unchanged():
        assert len(model.table()) == N + 1 and model.training, "scores are of all tracks whatever the mode"
    history = Sequences.from_lists([[1, 2, 22]])
    assert np.array_equal(model.train().score(history), model.eval().score(history))


def test_some_known_tracks_hide_behind_the_newcomers_vector_while_training():
    model = side_model(id_dropout=0.5, categories={}, n_numbers=0)
    shared = model.item_emb.weight[-1]
    rows = model.train().embed(torch.arange(1, N - NEW + 1).repeat(50))
    assert 0.4 < (rows == shared).all(1).float().mean() < 0.6
    assert not (model.eval().embed(torch.arange(1, N - NEW + 1)) == shared).all(1).any()
    assert not model.train().embed(torch.zeros(100, dtype=torch.long)).any(), "padding stays zero"


def test_a_value_that_only_newcomers_have_counts_as_unknown():
    kinds = np.where(np.arange(N + 1) > 22, KINDS + 1, 1)
    kinds[0] = 0
    config = SASRecConfig(N, **SHAPE, n_new=NEW, categories={"kind": KINDS + 1})
    model = SASRec(config, features=TrackFeatures({"kind": kinds}, np.zeros((N + 1, 0), np.float32)))
    assert model.is_kind_of.tolist() == [0] + [1] * 22 + [0, 0]


@pytest.mark.parametrize("pointer", [False, True])
def test_tracks_that_were_never_played_are_found_by_what_is_known_of_them(pointer):
    model = side_model(id_dropout=0.2, **({"n_artists": 4, "pointer": True} if pointer else {}))
    valid = by_kind(90, N, seed=1)  # after the release
    config = TrainConfig(epochs=8, batch_size=16, unseen_only=True)
    fit(model, by_kind(150, N - NEW, seed=0), valid, config, progress=False)
    histories, targets = leave_last_out(by_kind(120, N, seed=2))
    new = targets > N - NEW
    report = evaluate(model, histories, targets, k=6)
    assert report.targets_kept == 1 and 0.1 < new.mean() < 0.3
    assert report.values["recall@6"][new].mean() > 0.5, "6 of 19 would be 0.3"
    scores = model.score(histories)
    scores[:, 0] = -np.inf
    scores[histories.owner, histories.items] = -np.inf
    share = (torch.from_numpy(scores).softmax(1)[:, N - NEW + 1 :].sum(1)).mean().item()
    assert share == pytest.approx((leave_last_out(valid)[1] > N - NEW).mean(), abs=0.06), "as often as in validation"


def test_newcomers_are_not_lifted_where_there_are_none():
    model = SASRec(SASRecConfig(N, **SHAPE))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    lift_newcomers(model, *leave_last_out(by_kind(30, N, seed=1)))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def titled(playlists: int, seed: int, titles: bool = True) -> Sequences:
    seqs, words = by_kind(playlists, N, seed), ("calm", "loud", "fast")
    return replace(seqs, titles=read_titles([words[u % KINDS] if titles else "" for u in range(playlists)]))


@pytest.mark.parametrize("positions", ["absolute", "rotary", "relative"])
def test_a_title_alone_finds_its_tracks(positions):
    model = SASRec(SASRecConfig(N, **SHAPE | {"positions": positions}, n_words=WORDS))
    config = TrainConfig(epochs=6, batch_size=16, unseen_only=True)
    fit(model, titled(150, 0), titled(60, 1), config, progress=False)
    test = titled(30, 2)
    best = model.score(test.first(0)).argsort(1)[:, -6:]
    kind = np.array([row[0] % KINDS for row in test])
    assert (best % KINDS == kind[:, None]).mean() > 0.9
    without = model.score(replace(test.first(0), titles=None))
    assert np.array_equal(without[0], without[1]) and np.isfinite(without).all()
    one_by_one = np.concatenate([model.score(test.take([u])) for u in range(5)])
    assert np.allclose(model.score(test.take(np.arange(5))), one_by_one, atol=1e-4)


def test_the_future_and_padding_change_nothing_under_a_title():
    model = SASRec(SASRecConfig(N, **SHAPE, n_words=WORDS)).eval()
    words = torch.tensor([[5, 9, 0]])
    ids = torch.tensor([[0, 1, 2, 3, 0, 0]])
    hidden = model(ids, titles=words)
    later, shorter = ids.clone(), ids[:, :4]
    later[0, 3] = 7
    assert torch.equal(model(later, titles=words)[:, :3], hidden[:, :3])
    assert torch.allclose(model(shorter, titles=words[:, :2]), hidden[:, :4], atol=1e-6)
    assert not torch.allclose(model(ids, titles=torch.tensor([[4, 0, 0]]))[:, 0], hidden[:, 0])
    with pytest.raises(ValueError, match="needs a 0 in front"):
        model(ids[:, 1:])


def test_padding_has_no_gradient_with_everything_on():
    model = side_model(n_words=50, n_artists=4, pointer=True, tied=False)
    objective = Objective(model, TrainConfig(unseen_only=True)).train()
    seqs = replace(by_kind(6, N - NEW, seed=0), titles=Sequences.from_lists([[1, 2], [], [3], [4], [5], [6]]))
    [batch] = batches(seqs, 8, 8)
    objective(*map(torch.from_numpy, batch)).backward()
    for table in (model.item_emb, model.output, model.features["is_kind"], model.word_emb):
        assert torch.isfinite(table.weight.grad).all() and not table.weight.grad[0].any()


def test_a_saved_model_needs_no_table_again(tmp_path):
    model = side_model(n_words=WORDS, n_artists=4, pointer=True)
    fit(model, titled(60, 0), titled(30, 1), TrainConfig(epochs=1, unseen_only=True), tmp_path / "m", progress=False)
    loaded, about = load(tmp_path / "m")
    assert about["model"]["categories"] == {"kind": KINDS} and loaded.config == model.config
    test = titled(9, 2)
    assert np.array_equal(loaded.score(test), model.score(test))


def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path):
    train, valid = titled(60, 0), titled(30, 1)
    config = TrainConfig(epochs=3, unseen_only=True)
    whole, half = side_model(n_words=WORDS), side_model(n_words=WORDS)
    fit(whole, train, valid, config, tmp_path / "whole", progress=False)

    def stop(history):
        if len(history) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(half, train, valid, config, tmp_path / "half", progress=False, after_epoch=stop)
    again = side_model(n_words=WORDS)
    fit(again, train, valid, config, tmp_path / "half", resume=True, progress=False)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in whole.state_dict().items())


def test_a_recommender_takes_a_title(tmp_path):
    columns = ("track_uri", "track_name", "artist_name", "album_name")
    tracks = pd.DataFrame({name: [f"{name} {i}" for i in range(1, N + 1)] for name in columns})
    reader = Recommender(SASRec(SASRecConfig(N, **SHAPE, n_words=WORDS)).eval(), tracks)
    alone = reader.recommend([], 5, title="rainy sunday")
    assert "title alone" in alone.note and len(alone.table) == 5
    assert not np.array_equal(alone.scores, reader.recommend([], 5, title="metal").scores)
    assert np.array_equal(alone.scores, reader.recommend([], 5, title="RAINY sunday!").scores)
    assert reader.probabilities(alone).sum() == pytest.approx(1, abs=1e-5)
    assert reader.attention([[1, 2, 3]]).shape == (1, 2, 2, 3)
    deaf = Recommender(SASRec(SASRecConfig(N, **SHAPE)).eval(), tracks)
    assert "does not read titles" in deaf.recommend(["track_name 1"], title="rain").note


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_new": N}, "leave none to learn from"),
        ({"categories": {"kind": 0}}, "categories must say"),
        ({"categories": ["kind"]}, "categories must say"),
        ({"id_dropout": 1.0}, "id_dropout"),
        ({"n_words": 10, "max_len": 1}, "a title takes one place"),
        ({"categories": {"other": 3}}, "needs is_other_of"),
        ({"n_numbers": 2}, "2 numbers of tracks needs"),
    ],
)
def test_shapes_that_cannot_be(changes, words):
    with pytest.raises(ValueError, match=words):
        side_model(**changes)


@pytest.mark.parametrize("loss", ["sampled_softmax", "bce", "gbce"])
@pytest.mark.parametrize("tables", ["dense", "sparse"])
def test_losses_that_draw_negatives_learn_it_too(loss, tables):
    model = side_model(n_words=WORDS, tied=False)
    config = TrainConfig(loss=loss, tables=tables, epochs=8, batch_size=16, unseen_only=True)
    fit(model, replace(by_kind(150, N - NEW, seed=0), titles=None), titled(60, 1), config, progress=False)
    assert torch.isfinite(model.table()).all() and not model.table()[0].any()
    histories, targets = leave_last_out(titled(120, 2))
    assert evaluate(model, histories, targets, k=6).values["recall@6"].mean() > 0.5

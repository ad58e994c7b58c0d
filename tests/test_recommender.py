"""Names in, names out: what a person types is understood, and what comes back is usable, safe and explained."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sasrec_utils.evaluation import ranks, top_k
from sasrec_utils.model import SASRec, SASRecConfig
from sasrec_utils.mpd import Catalogue
from sasrec_utils.recommender import Recommendation, Recommender, save_tracks
from sasrec_utils.sequences import Sequences, Vocabulary
from sasrec_utils.training import CheckpointError, save

# Catalogue ids are row + 1. Two songs have one name, one name holds " - ", one artist and one name are unknown, one
# is hostile.
NAMES = [
    ("Silence", "Ann Arbor"),
    ("Silence", "The Bolts"),
    ("Rain - Live", "Ann Arbor"),
    ("Straße  nach\tNorden", "Ça Va"),
    ("<script>alert('x')</script>", "A & B <b>"),
    (None, "Nameless"),
    ("Orphan", None),
    ("Only In The Catalogue", "Ann Arbor"),
    ("Último", "The Bolts"),
    ("Unknown Song", "Nobody"),
]


def catalogue() -> Catalogue:
    rows = range(1, len(NAMES) + 1)
    table = {
        "track_id": np.array(rows, np.int32),
        "track_uri": [f"spotify:track:{i:022d}" for i in rows],
        "track_name": [name for name, _ in NAMES],
        "artist_id": np.array([i % 3 for i in rows], np.int32),
        "artist_name": [artist for _, artist in NAMES],
        "album_id": np.array([i % 4 for i in rows], np.int32),
        "album_name": [f"Album {i % 4}" if i % 4 else None for i in rows],
    }
    return Catalogue(pd.DataFrame(table))


# Training knows every track but the last; the plays reverse the order of the catalogue.
VOCABULARY = Vocabulary.fit(Sequences.from_lists([[i] * i for i in range(1, len(NAMES))]), len(NAMES))
N = VOCABULARY.n_items


def uri(catalogue_id: int) -> str:
    return f"spotify:track:{catalogue_id:022d}"


def number(catalogue_id: int) -> int:
    return int(VOCABULARY.to_model[catalogue_id])


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save(folder, SASRec(SASRecConfig(N, dim=8, heads=1, blocks=1, max_len=5), seed=3))
    save_tracks(folder, catalogue(), VOCABULARY)
    return folder


@pytest.fixture(scope="module")
def recommender(directory):
    return Recommender.load(directory)


# Names in


@pytest.mark.parametrize(("given_name", "catalogue_id"), [
    (uri(1), 1), (uri(9), 9),
    ("Último", 9), ("ÚLTIMO", 9), ("  último ", 9),
    ("strasse nach norden", 4), ("STRASSE NACH NORDEN", 4), ("ça va - Straße nach Norden", 4),
    ("ann arbor - silence", 1), ("The Bolts - Silence", 2), ("Silence", 2),  # of two, the more played one
    ("Rain - Live", 3), ("Ann Arbor - Rain - Live", 3), ("Silence — Ann Arbor", 1),
    ("<script>alert('x')</script>", 5), ("Orphan", 7),
])  # fmt: skip
def test_uris_and_names_are_understood(recommender, given_name, catalogue_id):
    answer = recommender.recommend([given_name])
    assert answer.history == [number(catalogue_id)]
    assert answer.unknown == [] and answer.note == ""


@pytest.mark.parametrize("given_name", [
    "", " ", " - ", "-", "Silenc", "Silence - Nobody", "Unknown Song", "Nobody - Unknown Song", "Nameless", "nan",
    "None", "None - None", "Nameless - None", "None - Orphan", "\0", "🎵",
])  # fmt: skip
def test_what_is_not_known_is_said_and_not_guessed(recommender, given_name):
    answer = recommender.recommend([uri(2), given_name])
    assert answer.history == [number(2)]
    assert answer.unknown == [given_name] and repr(given_name) in answer.note
    assert len(answer.table) == N - 1


@pytest.mark.parametrize(
    "link", ["spotify:track:nope", uri(10), "https://open.spotify.com/track/x", "spotify:artist:1"]
)
def test_a_link_that_is_not_known_is_counted_not_told(recommender, link):
    """An address says nothing to a reader."""
    answer = recommender.recommend([uri(2), link, "Silenc", link])
    assert answer.history == [number(2)] and answer.unknown == [link, "Silenc", link]
    assert answer.note == "Not known to the model and left out: 'Silenc' and 2 links."


def test_a_long_list_of_unknown_tracks_is_cut_short(recommender):
    answer = recommender.recommend([f"what {i}" for i in range(50)])
    assert len(answer.unknown) == 50
    assert "'what 2' and 47 more" in answer.note and len(answer.note) < 200
    assert "most played" in answer.note


def test_tracks_stay_in_the_order_they_were_given(recommender):
    given_names = [uri(3), "Último", "nope", uri(1), "the bolts - silence", uri(3)]
    answer = recommender.recommend(given_names)
    assert answer.history == [number(i) for i in (3, 9, 1, 2, 3)]  # a repeat stays a repeat
    assert recommender.recommend(iter(given_names)).table.equals(answer.table)  # any iterable will do
    assert recommender.recommend(pd.Series(given_names)).table.equals(answer.table)
    assert recommender.recommend(np.array(given_names)).table.equals(answer.table)


def test_one_string_is_not_a_list_of_letters(recommender):
    with pytest.raises(TypeError, match="not one string"):
        recommender.recommend("Silence")


@pytest.mark.parametrize("wrong", [None, 7, float("nan"), ["Silence"]])
def test_what_is_no_text_is_refused(recommender, wrong):
    """A missing value of a table, or an id: one clear sentence, not an error from within."""
    with pytest.raises(TypeError, match="URI or a name"):
        recommender.recommend([uri(1), wrong])


# Names out


def test_the_answer_is_the_best_scores_with_their_names(recommender):
    answer = recommender.recommend([uri(1), uri(2)], k=4)
    table = answer.table
    assert list(table.columns) == ["rank", "track_id", "track_uri", "track_name", "artist_name", "album_name", "score"]
    assert table["rank"].tolist() == [1, 2, 3, 4]
    assert (table["score"].diff().dropna() <= 0).all()
    history = Sequences.from_lists([[number(1), number(2)]])
    scores = recommender.scorer.score(history)
    assert table["track_id"].tolist() == top_k(scores, 4, history)[0].tolist()
    assert np.allclose(table["score"], scores[0, table["track_id"]])
    rows = VOCABULARY.to_catalogue[table["track_id"]]
    assert table["track_uri"].tolist() == [uri(i) for i in rows]
    names = [NAMES[i - 1] for i in rows]
    shown = (
        table[["track_name", "artist_name"]].astype(object).where(table[["track_name", "artist_name"]].notna(), None)
    )
    assert list(shown.itertuples(index=False, name=None)) == names
    assert recommender.table([number(4), number(1)])["track_uri"].tolist() == [uri(4), uri(1)]


def test_tracks_of_the_history_are_not_recommended(recommender):
    for known in ([1], [1, 2, 3], list(range(1, N)), list(range(1, N + 1))):
        answer = recommender.recommend([uri(i) for i in known], k=N)
        assert len(answer.table) == N - len(known)
        assert not set(answer.table["track_uri"]) & {uri(i) for i in known}
    # A history longer than what the model reads counts whole.
    long = [uri(1), uri(2)] + [uri(3)] * 40
    assert not {uri(1), uri(2), uri(3)} & set(recommender.recommend(long, k=N).table["track_uri"])


def test_an_empty_history_gets_the_most_played_tracks(recommender):
    for tracks in ([], ["never heard of"]):
        answer = recommender.recommend(tracks, k=3)
        assert answer.table["track_uri"].tolist() == [uri(9), uri(8), uri(7)]
        assert answer.history == [] and "most played" in answer.note


def test_k_may_be_larger_than_the_catalogue(recommender):
    for k in (N, N + 1, 10**15):
        assert len(recommender.recommend([], k).table) == N == len(recommender)
    for k in (0, -1):
        with pytest.raises(ValueError, match="k must be at least 1"):
            recommender.recommend([uri(1)], k)


def test_a_batch_is_its_playlists_one_by_one(recommender):
    rng = np.random.default_rng(0)
    playlists = [[uri(i) for i in rng.integers(1, len(NAMES) + 1, n)] for n in (0, 1, 3, 9, 2)] + [["Silence"], ["?"]]
    for one, batched in zip(playlists, recommender.recommend_batch(playlists, 5), strict=True):
        alone = recommender.recommend(one, 5)
        assert alone.history == batched.history and alone.unknown == batched.unknown and alone.note == batched.note
        pd.testing.assert_frame_equal(alone.table, batched.table, rtol=1e-4)
    assert recommender.recommend_batch([]) == []


@dataclass(frozen=True)
class Countdown:
    """Any scorer will do: this one likes track N best, whatever came before."""

    name = "countdown"
    n_items: int

    def score(self, histories):
        return np.tile(np.arange(self.n_items + 1, dtype=np.float32), (len(histories), 1))


def test_any_scorer_can_recommend():
    tracks = catalogue().tracks
    answer = Recommender(Countdown(len(tracks)), tracks).recommend([uri(10)], k=2)
    assert answer.table["track_uri"].tolist() == [uri(9), uri(8)]
    with pytest.raises(ValueError, match="countdown scores 3 tracks, the table names 10"):
        Recommender(Countdown(3), tracks)


# What people see


def test_text_says_everything(recommender):
    answer = recommender.recommend([uri(1), "what?"], k=N)
    text = str(answer)
    assert "The Bolts" in text and "Straße" in text and text.endswith("'what?'.")
    assert text.count("\n") >= N - 1


def test_names_cannot_command_a_terminal_and_missing_ones_are_left_out():
    tracks = catalogue().tracks.assign(album_name=None, track_name="\x1b[2Jgone\nnew line\u202e")
    answer = Recommender(Countdown(len(tracks)), tracks).recommend([uri(1)])
    for text in (str(answer), answer._repr_html_()):
        assert "[2Jgone new line" in text and not {"\x1b", "\u202e"} & set(text)
        assert "None" not in text and "nan" not in text.lower()
    assert len(str(answer).splitlines()) == len(tracks)


def test_names_cannot_run_in_a_notebook(recommender):
    answer = recommender.recommend([uri(1), "<img src=x onerror=alert(1)>"], k=N)
    html = answer._repr_html_()
    assert "&lt;script&gt;" in html and "A &amp; B &lt;b&gt;" in html and "&lt;img" in html
    assert "<script" not in html and "<img" not in html and "<b>" not in html


# On disk


def test_a_model_whose_training_was_stopped_says_so(directory, tmp_path):
    """Epoch 2 of 5, and not because nothing improved any more: every answer of it carries the sentence."""
    folder = tmp_path / "model"
    shutil.copytree(directory, folder)
    plan = {"epochs": 5, "patience": 2}
    for rows, extra, stopped in (
        (2, {"best_epoch": 2}, True), (2, {"best_epoch": 2, "train_seconds": 9.0}, False),
        (5, {"best_epoch": 4}, False),
        (3, {"best_epoch": 1}, False), (2, {}, False),
    ):  # fmt: skip
        save(folder, SASRec(SASRecConfig(N, dim=8, heads=1, blocks=1, max_len=5), seed=3), {"training": plan, **extra})
        pd.DataFrame({"epoch": range(1, rows + 1)}).to_csv(folder / "history.csv", index=False)
        note = Recommender.load(folder).recommend([uri(1)]).note
        assert note == ("Its training was stopped after epoch 2 of 5: the same command finishes it." if stopped else "")


def test_a_playlist_of_ones_own_goes_in(recommender):
    read = recommender.read_playlist("Silence — Ann Arbor\nhttps://open.spotify.com/track/" + uri(9)[14:] + "\nUltimmo")
    assert read.ids == [number(1), number(9)] and read.missing[0].suggestions == [number(9)]
    assert recommender.recommend(recommender.table(read.ids)["track_uri"]).history == read.ids


def test_what_is_saved_answers_the_same(recommender, directory, tmp_path):
    shutil.copytree(directory, tmp_path / "copy")
    again = Recommender.load(tmp_path / "copy")
    assert str(again.recommend([uri(1), "Último", "x"])) == str(recommender.recommend([uri(1), "Último", "x"]))
    assert not list(directory.glob("*.part"))


def test_saved_tracks_are_the_known_ones_in_model_order(directory):
    tracks = pd.read_parquet(directory / "tracks.parquet")
    assert tracks["track_uri"].tolist() == [uri(i) for i in range(9, 0, -1)]


def test_names_of_another_model_are_found_out(directory, tmp_path):
    shutil.copytree(directory, tmp_path, dirs_exist_ok=True)
    fewer = Vocabulary.fit(Sequences.from_lists([[1, 2, 3]]), len(NAMES))
    save_tracks(tmp_path, catalogue(), fewer)
    with pytest.raises(
        CheckpointError, match=r"tracks.parquet: does not name the model's tracks .*train the model again"
    ):
        Recommender.load(tmp_path)
    catalogue().tracks.iloc[:N].drop(columns="artist_name").to_parquet(tmp_path / "tracks.parquet")
    with pytest.raises(CheckpointError, match="artist_name"):
        Recommender.load(tmp_path)
    (tmp_path / "tracks.parquet").unlink()
    with pytest.raises(CheckpointError, match=r"tracks.parquet: there is no such file; train a model there first"):
        Recommender.load(tmp_path)
    with pytest.raises(CheckpointError, match="there is no such file; train a model"):
        Recommender.load(tmp_path / "nowhere")


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_table_of_tracks_gives_one_sentence(directory, tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged")
    for name in os.listdir(directory):
        shutil.copy(directory / name, folder)
    content = (folder / "tracks.parquet").read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    kind = data.draw(st.sampled_from(["cut", "flip", "random"]))
    flipped = content[:place] + bytes([content[place] ^ data.draw(st.integers(1, 255))]) + content[place + 1 :]
    damaged = {"cut": content[:place], "flip": flipped, "random": data.draw(st.binary(max_size=99))}[kind]
    (folder / "tracks.parquet").write_bytes(damaged)
    try:
        Recommender.load(folder)
    except CheckpointError as error:
        assert str(error).startswith(str(folder / "tracks.parquet")) and "\n" not in str(error)
    finally:
        shutil.rmtree(folder)


# What the picker needs


def test_excluded_tracks_are_not_recommended_and_not_seen(recommender):
    whole = recommender.recommend([uri(9), uri(8), uri(7)], 3)
    less = recommender.recommend([uri(9), uri(8), uri(7)], 3, exclude=[whole.table["track_uri"][0], "nobody knows"])
    assert less.history == whole.history and less.unknown == []
    assert less.table["track_uri"].tolist()[:2] == whole.table["track_uri"].tolist()[1:]


def test_the_rank_of_a_track_is_that_of_evaluation(recommender):
    history = [uri(9), uri(2)]
    answer = recommender.recommend(history, 3)
    for target in range(1, N + 1):
        expected = ranks(recommender.scorer, Sequences.from_lists([answer.history]), np.array([target]))[0]
        assert answer.rank(target) == expected
    assert answer.rank(answer.history[0]) == answer.rank(0) == answer.rank(N + 1) == 0


def test_a_track_below_the_list_has_all_its_equals_before_it():
    scores = np.array([9, 4, 3, 1, 1, 1, 0, 7], dtype=np.float32)  # padding, then tracks 1 to 7; 7 is no candidate
    answer = Recommendation(np.array([1, 2]), [7], [], "", scores, {7}, names=None)
    assert [answer.rank(track) for track in range(8)] == [0, 1, 2, 5, 5, 5, 6, 0]


def test_shares_are_the_softmax_of_sasrec_and_the_probabilities_of_others(recommender):
    answer = recommender.recommend([uri(9)])
    shares = recommender.probabilities(answer)
    assert shares[0] == 0 and shares.sum() == pytest.approx(1)
    assert np.log(shares[2] / shares[1]) == pytest.approx(answer.scores[2] - answer.scores[1], abs=1e-5)
    assert recommender.probabilities(recommender.recommend([])) is None  # an order by popularity is no probability


def test_attention_is_that_of_the_newest_track(recommender):
    histories = [[1, 2, 3], [3, 2, 1]]
    weights = recommender.attention(histories)
    _, attention = recommender.scorer(torch.tensor(histories), return_attention=True)
    assert weights.shape == (2, 1, 1, 3)
    np.testing.assert_allclose(weights[:, 0], attention[0][:, :, -1].detach().numpy(), rtol=1e-5)


# Devices


def test_a_model_can_be_loaded_to_a_device_and_one_that_is_not_there_is_named(recommender, directory):
    there = Recommender.load(directory, device="cpu")
    assert there.recommend([uri(9)]).table.equals(recommender.recommend([uri(9)]).table)
    for device in ("nonsense", "cuda:99"):
        with pytest.raises(ValueError, match=f"cannot be moved to the device '{device}'") as caught:
            Recommender.load(directory, device=device)
        assert "\n" not in str(caught.value)

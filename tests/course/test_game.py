"""The game of notebook 00 on a small world: nothing is given away before the guess, and every number is comparable."""

from __future__ import annotations

import html

import numpy as np
import pytest

from sasrec_utils.course.game import ARTIST, SHOWN, TRACK, ArtistBack, Game
from sasrec_utils.evaluation import evaluate
from sasrec_utils.model import SASRec, SASRecConfig
from sasrec_utils.mpd import prepare
from sasrec_utils.recommender import Recommender
from sasrec_utils.sequences import Sequences, load_dataset
from sasrec_utils.world import World, WorldConfig, write_slices


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("game")
    world = World(WorldConfig("small", playlists=120, tracks=500, artists=60))
    write_slices(world, folder / "raw", 120)
    dataset = load_dataset(prepare(folder / "raw", folder / "prepared"), min_count=1)
    N = dataset.vocabulary.n_items
    tracks = dataset.catalogue.tracks.iloc[dataset.vocabulary.to_catalogue[1 : N + 1] - 1]
    model = SASRec(SASRecConfig(n_items=N, dim=16, blocks=1, heads=2, max_len=20))
    return dataset, Recommender(model, tracks), world


@pytest.fixture
def game(made):
    dataset, model, world = made
    return Game(dataset, model, "A model.", world)


def right(game):
    """The right artist, and the place of the right track among the ten."""
    target = int(game.targets[game.u])
    return game.tracks["artist_name"].iloc[target - 1], game._choices.index(target) + 1


def test_before_a_guess_nothing_gives_the_answer_away(game):
    target = game._label(int(game.targets[game.u]))
    assert len(game.playlist()) == SHOWN
    assert list(game.playlist().columns) == ["track", "artist", "genre"]
    assert target.split(" · ")[0] not in set(game.playlist()["track"])
    assert len(game.choices()) == 10
    for shown in (repr(game.picker), game.picker.twin()):
        assert "really next" not in shown
        assert "Why" not in shown
    assert "SASRec:" not in repr(game.picker)  # what the model would say
    assert html.escape(game.choices()["track"].iloc[0]) in game.picker.twin()


def test_an_untouched_stub_runs_from_top_to_bottom(game):
    assert game.guess_artist(None) == ARTIST
    assert game.pick(None) == TRACK
    assert "not guessed yet" in game.truth()
    assert "not picked yet" in game.truth()
    assert game.tens()["you"].iloc[0] == "(not guessed yet)"
    assert "you: not guessed yet 0.000" in game.chart().words
    assert "you" not in game.recalls()


def test_a_right_guess_and_a_wrong_one(game):
    artist, number = right(game)
    assert artist in game.guess_artist(f"  {artist.upper()} ")
    game.pick(number)
    assert game.truth().count("Right!") == 2
    game.pick(number % 10 + 1)
    other = next(name for name in game.tracks["artist_name"] if name != artist)
    game.guess_artist(other)
    assert game.truth().count("Not this time.") == 2


@pytest.mark.parametrize("bad", [0, 11, -1, "3", 2.5])
def test_a_pick_that_is_none_of_the_ten_is_told_so(game, bad):
    assert game.pick(bad).startswith("Pick a number from 1 to 10")
    assert "not picked yet" in game.truth()


def test_an_artist_whom_nobody_knows_is_told_so_and_counts_as_no_guess(game):
    assert "No track here is by 'Nobody'" in game.guess_artist("Nobody")
    assert "not guessed yet" in game.truth()


def test_your_ten_are_the_artists_most_played_tracks_that_the_playlist_does_not_have(game):
    artist = game.playlist()["artist"].iloc[-1]
    game.guess_artist(artist)
    history, n = set(game.histories[game.u].tolist()), game.dataset.vocabulary.n_items
    names = game.tracks["artist_name"].tolist()
    wanted = [i for i in range(1, n + 1) if names[i - 1] == artist and i not in history][:10]
    shown = [label.removeprefix("★ ") for label in game.tens("you")["you"].iloc[: len(wanted)]]
    assert shown == [game._label(i) for i in wanted]


def test_the_oracles_rank_is_the_one_that_evaluation_gives(game):
    report = evaluate(game.players["oracle"].scorer, game.histories, game.targets)
    assert game.tens("oracle")["oracle"].iloc[-1] == f"{report.ranks[game.u]:,}"


def test_a_guess_becomes_the_artist_so_many_tracks_back_in_every_playlist():
    artist_of = np.array([0, 1, 2, 1, 2, 3])
    histories = Sequences.from_lists([[1, 2], [4, 5], [3]])
    best = ArtistBack(artist_of, 5, back=2).score(histories)
    assert best[0, 3] > best[0, 2]  # the artist of track 1 is artist 1: track 3 beats any other artist's
    assert best[1, 2] > best[1, 1]  # the artist of track 4 is artist 2
    assert (np.argsort(-best[2])[:3] == [1, 2, 3]).all()  # too short for two back: by plays
    always = ArtistBack(artist_of, 5, back=None, always=3).score(histories)
    assert (always.argmax(1) == 5).all()
    assert (always[:, 0] < always[:, 1:].min()).all()


def test_a_guess_counts_from_the_next_track(game):
    artist = game.playlist()["artist"].iloc[-1]
    assert "last heard 1 track back" in game.guess_artist(artist)
    assert "you: the artist 1 track back" in game.chart().words


def test_the_bars_are_on_one_scale_and_the_oracle_is_the_best(game):
    found = game.recalls()
    assert list(found) == ["popularity", "SASRec", "oracle"]
    assert found["oracle"].mean > found["SASRec"].mean


def test_the_attention_belongs_to_the_newest_tracks_with_the_whole_history_read(game):
    known = [int(i) for i in game.histories[game.u] if i <= len(game.players["SASRec"])][-20:]
    weights = game.players["SASRec"].attention([known])[0, 0]
    words = game.looks().words
    peak = weights[0, -SHOWN:].max()
    assert f"head 1 gives {peak:.0%}" in words


def test_real_playlists_have_no_oracle(made):
    dataset, model, _ = made
    game = Game(dataset, model, "A model.", None)
    assert list(game.recalls()) == ["popularity", "SASRec"]
    assert list(game.tens("you", "oracle").columns) == ["you"]
    assert "the best possible" not in game.chart().words
    assert "Really next" in game.truth()


def test_rounds_are_other_playlists_and_one_that_is_not_there_is_told_so(made):
    dataset, model, world = made
    first, second = (Game(dataset, model, "", world, n) for n in (1, 2))
    assert first.u != second.u
    with pytest.raises(ValueError, match="there are rounds 1 to"):
        Game(dataset, model, "", world, 10_000)


def test_playing_on_shows_the_next_playlist_with_a_round_open(game):
    picker = game.play_on()
    assert picker.desk.round is not None
    assert not picker.desk.round.over
    assert picker.desk.chosen != game.u

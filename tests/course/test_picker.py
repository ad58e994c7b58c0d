"""The picker without a browser: what it shows is what the recommenders say, whatever the reader does and whatever the
names hold. Its looks and its keys are tested in test_browser.py."""

from __future__ import annotations

import html.parser
import itertools
import re
import threading

import numpy as np
import pandas as pd
import pytest

from sasrec_utils.baselines import ItemKNN, Markov, Popularity
from sasrec_utils.course.picker import PlaylistPicker
from sasrec_utils.course.picker.desk import Desk
from sasrec_utils.course.picker.widget import ACTIONS, HERE
from sasrec_utils.evaluation import ranks
from sasrec_utils.model import SASRec, SASRecConfig
from sasrec_utils.mpd import prepare
from sasrec_utils.playlist_text import PlaylistTextError
from sasrec_utils.recommender import Recommender, extend
from sasrec_utils.sequences import Sequences, load_dataset
from sasrec_utils.world import Oracle, World, WorldConfig, write_slices

N, UNKNOWN = 30, 2  # tracks that models know, and more that they do not
HOSTILE = [
    "<script>window.hacked = 1</script>",
    '"><img src=x onerror="window.hacked = 1">',
    "</style><b>bold</b>",
    "a & b &lt; c",
    "🎧🎵🇫🇷👩‍👩‍👧",
    "שיר ערש",
    "أغنية",
    "\u202eevil\u202c \u2069",
    "line\nbreak\ttab",
    "x" * 400,
    "",
    None,
    "`${1}`",
    "{0} {name}",
]


def tracks(names=None) -> pd.DataFrame:
    names = names or [f"Song {i}" for i in range(1, N + UNKNOWN + 1)]
    rows = range(1, len(names) + 1)
    return pd.DataFrame(
        {
            "track_uri": [f"spotify:track:{i:022d}" for i in rows],
            "track_name": names,
            "artist_name": [f"Artist {i % 5}" for i in rows],
            "album_name": [f"Album {i % 7}" for i in rows],
        }
    )


PLAYLISTS = Sequences.from_lists(
    [
        [1, 2, 3, 4, 5, 6, 7, 8],
        [9, 10, 11],
        [12],
        [],
        [13, N + 1, 14, 15],
        [1, 2, N + 2],
        [5, 6, 5],
        list(range(1, 31)) * 9,
    ]
)
NAMES = ["Chill ✨", "chill out", "Café del Mar", "", None, "rainy DAYS", "Straße", "long one"]


def recommenders(table=None) -> dict[str, Recommender]:
    known = (tracks() if table is None else table).iloc[:N]
    train = Sequences.from_lists(np.random.default_rng(0).integers(1, N + 1, (200, 12)).tolist())
    model = SASRec(SASRecConfig(N, dim=16, heads=2, max_len=20, positions="relative"), seed=1).eval()
    scorers = {
        "popularity": Popularity.fit(train, N),
        "Markov": Markov.fit(train, N),
        "item-kNN": ItemKNN.fit(train, N),
        "SASRec": model,
    }
    return {name: Recommender(scorer, known) for name, scorer in scorers.items()}


RECOMMENDERS = recommenders()


@pytest.fixture
def picker() -> PlaylistPicker:
    return PlaylistPicker(RECOMMENDERS, PLAYLISTS, NAMES, tracks())


def agrees(picker: PlaylistPicker) -> None:
    """What is shown is what each recommender says about the tracks that the models see."""
    desk, view = picker.desk, picker.view
    older, seen = picker.uris[: len(picker.uris) - desk.seen], picker.uris[len(picker.uris) - desk.seen :]
    assert [one["id"] for one in view["playlist"]] == picker.ids and len(desk.added) == len(picker.ids)
    assert len(picker.reasons["rows"]) == len(picker.ids)
    assert [answer["model"] for answer in view["answers"]] == list(picker.answers)
    for answer in view["answers"]:
        own = RECOMMENDERS[answer["model"]].recommend(seen, desk.settings.shown, exclude=older).table
        # The picker computes on one thread: scores may differ in their last digits, the tracks and their order do not.
        shown = answer["rows"][: len(own)]
        assert [(one["rank"], one["track"]) for one in shown] == list(zip(own["rank"], own["track_name"], strict=True))
        assert len(answer["rows"]) <= len(own) + 1  # the real next track may stand below


# Picking


def test_it_begins_with_the_first_playlist_and_hides_its_last_track(picker):
    assert picker.ids == [1, 2, 3, 4, 5, 6, 7] and picker.next_id == 8
    assert list(picker.answers) == ["SASRec", "item-kNN"]  # the last one is asked, the one before it stands beside
    assert not picker.view["changed"] and not picker.view["can"]["undo"] and not picker.view["can"]["restart"]
    agrees(picker)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", 8),
        ("chill", 2),
        ("CHILL OUT", 1),
        ("out chill", 1),
        ("cafe", 1),
        ("CAFÉ", 1),
        ("strasse", 1),
        ("  rainy   days ", 1),
        ("nothing like this", 0),
        ("no name", 2),
        ("\n", 8),
    ],
)
def test_search_finds_parts_of_names_in_any_case_and_without_accents(picker, query, found):
    rows, total = picker.desk.search(query)
    assert len(rows) == total == found == len(picker.search(query))


def test_an_exact_name_comes_first():
    names = ["my chill", "chill mix", "chill"]
    picker = PlaylistPicker(RECOMMENDERS, PLAYLISTS.take([0, 1, 2]), names, tracks())
    assert picker.search("Chill") == [2, 0, 1]


def test_thousands_of_playlists_are_searched_at_once():
    many = 20_000
    playlists = Sequences(np.ones(many, np.int32), np.arange(many + 1))
    desk = Desk(RECOMMENDERS, playlists, [f"mix {i}" for i in range(many)], tracks())
    assert desk.search("mix 19999") == ([19999], 1)
    rows, total = desk.search("mix")
    assert rows == list(range(12)) and total == many


@pytest.mark.parametrize("row", range(len(NAMES)))
def test_every_playlist_can_be_opened(picker, row):
    picker.choose(row)
    agrees(picker)
    for draw, _ in picker.view["draws"]:
        picker.turn(draw=draw)
    agrees(picker)


# The real next track


def test_the_next_track_has_the_rank_that_evaluation_gives_it(picker):
    rank = int(ranks(RECOMMENDERS["SASRec"].scorer, Sequences.from_lists([picker.ids]), np.array([8]))[0])
    assert picker.answers["SASRec"].rank(8) == rank
    assert f"rank {rank} for SASRec" in picker.view["truth"]
    for answer in picker.view["answers"]:  # once in each list, in or below it
        assert sum(one["next"] for one in answer["rows"]) == 1
    assert picker.table()["is_next"].sum() == (rank <= 10)


def test_a_next_track_that_cannot_be_named_is_said_to_be_so(picker):
    picker.choose(5)
    assert "No training playlist had it" in picker.view["truth"] and "★" not in picker.view["truth"]
    picker.choose(6)
    assert "has it already" in picker.view["truth"]
    assert not picker.view["can"]["guess"]


def test_nothing_is_hidden_when_it_is_not_wanted():
    picker = PlaylistPicker(RECOMMENDERS, PLAYLISTS, NAMES, tracks(), hide_last=False)
    assert picker.ids == [1, 2, 3, 4, 5, 6, 7, 8]
    assert picker.view["truth"] == "" and not any(one["next"] for a in picker.view["answers"] for one in a["rows"])


# Models and settings


@pytest.mark.parametrize(("left", "right"), list(itertools.permutations(RECOMMENDERS, 2)))
def test_any_two_models_stand_side_by_side(picker, left, right):
    picker.compare(left, right)
    assert list(picker.answers) == [left, right]
    agrees(picker)


def test_one_model_alone(picker):
    picker.compare("SASRec")
    assert list(picker.answers) == ["SASRec"]
    picker.compare("SASRec", "SASRec")
    assert list(picker.answers) == ["SASRec"]
    one = PlaylistPicker({"SASRec": RECOMMENDERS["SASRec"]}, PLAYLISTS, NAMES, tracks())
    assert list(one.answers) == ["SASRec"]
    with pytest.raises(ValueError, match="popularity, Markov"):
        picker.compare("GPT")


@pytest.mark.parametrize("k", [1, 2, 20])
def test_as_many_are_shown_as_are_asked_for(picker, k):
    picker.turn(shown=k)
    assert len(picker.table()) == k
    agrees(picker)


@pytest.mark.parametrize("seen", [1, 3, 7])
def test_the_models_see_as_much_as_they_are_let(picker, seen):
    picker.turn(seen=seen)
    assert picker.answers["SASRec"].history == picker.ids[-seen:]
    shown = set(picker.table()["track_name"])
    assert not shown & {f"Song {i}" for i in picker.ids}  # what it does not see is not recommended again either
    assert [row["note"] for row in picker.reasons["rows"]].count("not seen") == 7 - seen
    agrees(picker)


def test_each_models_numbers_have_their_own_meaning(picker):
    units = {}
    for name in RECOMMENDERS:
        picker.compare(name)
        units[name] = picker.view["answers"][0]["unit"]
        numbers = [one["number"] for one in picker.view["answers"][0]["rows"]]
        assert all(number.endswith("%") for number in numbers) == (units[name] == "probability")
    assert units == {"popularity": "plays", "Markov": "probability", "item-kNN": "similarity", "SASRec": "probability"}
    picker.compare("SASRec", "item-kNN")
    tops = [max(one["bar"] for one in answer["rows"]) for answer in picker.view["answers"]]
    assert tops == [1.0, 1.0]  # two scales: a similarity is never drawn as if it were a probability
    picker.compare("SASRec", "Markov")
    tops = [max(one["bar"] for one in answer["rows"]) for answer in picker.view["answers"]]
    assert max(tops) == 1.0 and min(tops) < 1.0  # one scale for two probabilities


# Changing


def test_edits_do_what_they_say_and_can_be_taken_back(picker):
    picker.remove(2)
    assert picker.ids == [1, 2, 4, 5, 6, 7] and picker.view["status"] == "Removed “Song 3” by Artist 3."
    agrees(picker)
    picker.move(2, 1)
    assert picker.ids == [1, 4, 2, 5, 6, 7]
    picker.move(1, 3)
    assert picker.ids == [1, 2, 5, 4, 6, 7]
    picker.add(picker.find("artist 0 song 25")[0])
    assert picker.ids[-1] == 25 and picker.view["playlist"][-1]["added"] and picker.view["changed"]
    agrees(picker)
    picker.empty()
    assert picker.ids == [] and picker.view["title"] == "Your playlist"
    agrees(picker)
    picker.undo()
    assert picker.ids == [1, 2, 5, 4, 6, 7, 25] and picker.view["status"].startswith("Taken back: An empty playlist")
    for _ in range(10):
        picker.undo()
    assert picker.ids == [1, 2, 3, 4, 5, 6, 7]
    picker.choose(0)
    picker.remove(6)
    picker.restart()
    assert picker.ids == [1, 2, 3, 4, 5, 6, 7] and not picker.view["changed"]
    agrees(picker)


@pytest.mark.parametrize(
    "edit", [("remove", -1), ("remove", 7), ("move", 0, -1), ("move", 6, 7), ("move", 3, 3), ("undo",), ("restart",)]
)
def test_what_cannot_be_done_changes_nothing(picker, edit):
    getattr(picker, edit[0])(*edit[1:])
    assert picker.ids == [1, 2, 3, 4, 5, 6, 7] and not picker.view["can"]["undo"]


def test_an_empty_playlist_has_a_title_a_hint_and_no_claims(picker):
    picker.empty()
    view = picker.view
    assert view["title"] == "Your playlist" and "Add a track" in view["hint"] and view["truth"] == ""
    assert not any(view["can"][what] for what in ("empty", "guess", "save"))
    for answer in view["answers"]:
        assert "most played" in answer["note"] and answer["unit"] == ""
        assert all(one["number"] == "" and one["bar"] == 0 and not one["next"] for one in answer["rows"])
    picker.compare("popularity")
    assert picker.view["answers"][0]["rows"][0]["number"] != ""  # plays are plays, whatever the playlist
    picker.remove(0)
    picker.add(9)
    assert picker.ids == [9] and picker.view["hint"] == ""
    agrees(picker)


def test_a_random_walk_over_all_actions_never_disagrees(picker):
    rng = np.random.default_rng(3)
    for _ in range(150):
        n = len(picker.ids)
        models = rng.choice(list(RECOMMENDERS), 2).tolist()
        draws = [value for value, _ in picker.view["draws"]]
        action = [
            lambda: picker.choose(int(rng.integers(len(NAMES)))),
            lambda n=n: picker.remove(int(rng.integers(n + 1))),
            lambda n=n: picker.move(int(rng.integers(n + 1)), int(rng.integers(n + 1))),
            lambda n=n: picker.turn(seen=int(rng.integers(n + 2)), shown=int(rng.integers(1, 21))),
            lambda models=models: picker.compare(*models),
            lambda draws=draws: picker.turn(draw=str(rng.choice(draws))),
            lambda n=n: picker.ask(int(rng.integers(N + 1)), int(rng.integers(-1, n + 1))),
            lambda: picker.add(int(rng.integers(1, N + 1))),
            lambda: picker.go_on(int(rng.integers(1, 4)), float(rng.integers(2))),
            picker.undo,
            picker.restart,
            picker.empty,
        ][rng.integers(12)]
        action()
        agrees(picker)


def test_two_threads_do_not_break_it(picker):
    def press(act):
        for _ in range(30):
            act()

    acts = (lambda: picker.remove(0), picker.undo, lambda: picker.go_on(1), lambda: picker.move(1, 0))
    threads = [threading.Thread(target=press, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    agrees(picker)


# Why


@pytest.mark.parametrize("model", RECOMMENDERS)
@pytest.mark.parametrize("row", [0, 5, 6])
def test_a_removal_is_a_real_removal(picker, model, row):
    picker.compare(model)
    recommender = RECOMMENDERS[model]
    for playlist in (0, 5):  # the second one repeats a track: taken out once, it is still no candidate
        picker.choose(playlist)
        if row >= len(picker.ids):
            continue
        asked = int(picker.answers[model].table["track_id"][0])
        strengths, later = picker.desk.without([row], asked)
        fewer = recommender.recommend(picker.uris[:row] + picker.uris[row + 1 :], 10)
        assert later[0] == fewer.rank(asked)
        shares = recommender.probabilities(fewer)
        if model in ("SASRec", "Markov"):
            assert strengths[0] == pytest.approx(shares[asked], rel=1e-3)


def test_why_is_one_sentence_that_names_the_track_it_rests_on(picker):
    picker.compare("Markov")
    asked = int(picker.answers["Markov"].table["track_id"][0])
    fewer = RECOMMENDERS["Markov"].recommend(picker.uris[:-1])
    assert picker.why.startswith(f"“Song {asked}”") and "because you had “Song 7”" in picker.why
    assert f"falls from rank 1 to {fewer.rank(asked)} (" in picker.why
    bars = [row["bar"] for row in picker.reasons["rows"]]
    assert np.argmax(np.abs(bars)) == 6 and bars[:6] == [0] * 6  # a chain knows the last track only
    assert picker.ask(asked, 2).startswith("Without “Song 3” by Artist 3, ") and "stays at rank 1" in picker.why
    assert picker.ask(asked, 6).startswith("Without “Song 7” by Artist 2, ") and "falls from rank 1" in picker.why


def test_where_no_removal_matters_it_says_so(picker):
    picker.compare("popularity")
    assert picker.why.startswith("No single track decides this: ") and "stays at rank 1" in picker.why
    assert {row["number"] for row in picker.reasons["rows"]} == {""}


def test_asking_about_the_real_next_track_outside_the_list(picker):
    picker.turn(shown=1)
    assert "“Song 8”" in picker.ask(8)
    assert picker.reasons["asked"] == 8
    picker.add(8)  # now it is no candidate any more: back to the first of the list
    assert picker.reasons["asked"] == picker.answers["SASRec"].table["track_id"][0]


def test_attention_is_the_models_own_and_drawn_on_the_rows(picker):
    import torch

    with torch.inference_mode():
        _, attention = RECOMMENDERS["SASRec"].scorer(torch.tensor([picker.ids]), return_attention=True)
    picker.turn(draw="attention 2.1")
    weights = attention[1][0, 0, -1].numpy()
    assert [row["bar"] for row in picker.reasons["rows"]] == pytest.approx(weights.tolist(), abs=1e-5)
    picker.turn(draw="attention")
    mean = torch.stack(attention)[:, 0, :, -1].mean((0, 1)).numpy()
    assert [row["bar"] for row in picker.reasons["rows"]] == pytest.approx(mean.tolist(), abs=1e-5)
    assert "shuffled" in picker.reasons["control"] and len(picker.reasons["heads"]) == 4
    assert picker.why  # the sentence is about removals, whatever is drawn


def test_only_what_the_model_sees_is_drawn(picker):
    picker.choose(7)  # 269 tracks, the model sees 20
    assert [row["note"] for row in picker.reasons["rows"]].count("not seen") == 249
    picker.choose(5)
    picker.compare("Markov")
    assert picker.view["draws"] == [["removals", "what removing each track does"]]  # it does not look
    picker.choose(4)
    assert [row["note"] for row in picker.reasons["rows"]] == ["", "new to the models", ""]


# Guessing


def test_before_the_guess_nothing_gives_the_answer_away(picker):
    labels = picker.guess_next()
    view = picker.view
    assert len(labels) == len(view["round"]["choices"]) == 10 and not view["round"]["over"]
    assert sorted({one["id"] for one in view["round"]["choices"]} & set(picker.ids)) == []
    assert [one["id"] for one in view["round"]["choices"]].count(8) == 1
    assert view["answers"] == [] and view["truth"] == "" and picker.why == "" and "★" not in str(view)
    assert not any(one["next"] or one["picked"] for one in view["round"]["choices"])


def test_a_guess_reveals_everybodys_choice_and_keeps_the_score(picker):
    picker.guess_next()
    picks = picker.guess(8)
    choices = [one["id"] for one in picker.view["round"]["choices"]]
    for name in ("SASRec", "item-kNN"):
        scores = RECOMMENDERS[name].recommend(picker.uris).scores
        assert picks[name] == max(choices, key=lambda i, scores=scores: scores[i])
    assert picks["you"] == 8 and picker.view["status"].startswith("Right: “Song 8”")
    assert "After 1 round: you 1" in picker.view["round"]["score"]
    assert picker.view["answers"] and [one["next"] for one in picker.view["round"]["choices"]].count(True) == 1
    with pytest.raises(ValueError, match="no round"):
        picker.guess(8)
    picker._do("another")
    assert picker.desk.chosen != 0 and not picker.view["round"]["over"]
    with pytest.raises(ValueError, match="not among"):
        picker.guess(0)
    wrong = next(i for i in picker.desk.round.choices if i != picker.next_id)
    picker.guess(wrong)
    assert "After 2 rounds: you 1" in picker.view["round"]["score"]
    picker.stop_guessing()
    assert picker.view["round"] is None
    agrees(picker)


def test_the_other_nine_follow_plays_and_not_the_models():
    desk = Desk(RECOMMENDERS, Sequences.from_lists([[20, 21, 22]] * 300), ["a"] * 300, tracks())
    drawn = np.zeros(N + 1)
    for row in range(300):
        desk.choose(row)
        drawn[desk.guess_next().choices] += 1
    assert drawn[22] == 300 and drawn[[20, 21]].sum() == 0
    assert drawn[1] > 1.5 * drawn[29] > 0  # ids are in order of plays
    again = Desk(RECOMMENDERS, Sequences.from_lists([[20, 21, 22]]), ["a"], tracks())
    first = again.guess_next().choices
    again.choose(0)
    assert again.guess_next().choices == first  # the same playlist asks the same


def test_a_playlist_without_a_next_track_cannot_be_guessed(picker):
    picker.empty()
    with pytest.raises(ValueError, match="pick another"):
        picker.guess_next()


# One's own playlist


def test_a_pasted_playlist_is_taken_and_what_is_missing_is_named(picker):
    picker.paste("Artist 3 - Song 3\nArtist 4 — song 4\nspotify:track:0000000000000000000005\nArtist 1 - Sonng 6\n")
    assert picker.ids == [3, 4, 5] and picker.view["title"] == "Your playlist" and picker.next_id == 0
    read = picker.view["read"]
    assert read["said"] == "3 of 4 tracks recognised" and picker.view["status"] == "3 of 4 tracks recognised."
    assert read["missing"][0]["text"] == "Artist 1 - Sonng 6"
    assert 6 in [one["id"] for one in read["missing"][0]["meant"]]
    agrees(picker)
    picker.remove(0)
    picker.restart()
    assert picker.ids == [3, 4, 5]
    picker.choose(1)
    assert picker.view["read"] is None


def test_a_text_that_is_no_playlist_changes_nothing(picker):
    with pytest.raises(PlaylistTextError):
        picker.paste("   ")
    assert picker.ids == [1, 2, 3, 4, 5, 6, 7]
    agrees(picker)


# Continuing and exporting


def test_greedy_continuation_takes_the_best_again_and_again(picker):
    ids = list(picker.ids)
    for _ in range(4):
        uris = [tracks()["track_uri"][i - 1] for i in ids]
        ids.append(int(RECOMMENDERS["SASRec"].recommend(uris, 1).table["track_id"][0]))
    assert picker.go_on(4, 0) == ids[7:]
    assert picker.ids == ids and picker.desk.added == [False] * 7 + [True] * 4
    assert picker.view["status"] == "SASRec added 4 tracks."
    agrees(picker)


def test_drawn_continuations_differ_and_repeat_nothing(picker):
    picker.turn(temperature=1.0, steps=10)
    picker.go_on()
    assert len(set(picker.ids)) == len(picker.ids) == 17
    first = picker.ids
    picker.undo()
    picker.go_on()
    assert picker.ids == first  # the same playlist goes on the same way
    picker.undo()
    picker.desk.seed = 1
    picker.go_on()
    assert picker.ids != first


def test_continuation_ends_when_every_track_is_used(picker):
    picker.go_on(50)
    assert sorted(picker.ids) == list(range(1, N + 1))
    assert picker.go_on() == [] and len(picker.ids) == N
    assert picker.table().empty
    agrees(picker)


def test_extend_draws_from_the_probabilities():
    scorer = RECOMMENDERS["Markov"].scorer
    start = Sequences.from_lists([[3]] * 4000)
    p = scorer.score(start.take([0]))[0].astype(float)
    p[3] = 0
    for temperature in (1.0, 0.5):
        share = p ** (1 / temperature) / (p ** (1 / temperature)).sum()
        drawn = extend(scorer, start, 1, temperature, np.random.default_rng(0))[:, 0]
        assert np.abs(np.bincount(drawn, minlength=N + 1) / 4000 - share).max() < 0.03
    assert (extend(scorer, start.take([0]), 1)[0] == p.argmax()).all()


def test_exports_hold_the_playlist_and_are_read_back(picker):
    for kind in ("csv", "m3u"):
        text = picker.export(kind)
        other = PlaylistPicker(RECOMMENDERS, PLAYLISTS, NAMES, tracks())
        other.paste(text)
        assert other.ids == picker.ids
    assert "#EXTINF:-1,Artist 1 - Song 1" in picker.export("m3u")
    with pytest.raises(ValueError, match="csv"):
        picker.export("exe")
    picker.choose(2)
    assert picker.view["file"] == "Café del Mar"


# What comes from the page


def hear(picker: PlaylistPicker, **message) -> list[dict]:
    """What the picker answers to a message of the page."""
    sent = []
    picker.send = sent.append
    picker._heard(picker, message, [])
    return sent


def test_every_action_of_the_page_is_one_of_the_desk(picker):
    script = (HERE / "picker.js").read_text()
    sent = set(re.findall(r'send\("(\w+)"', script)) | {"stop_guessing", "guess_next", "search", "find"}
    assert sent - {"search", "find", "save"} == set(ACTIONS)
    for action in ACTIONS:
        assert callable(getattr(picker.desk, action))


def test_the_page_is_answered(picker):
    [found] = hear(picker, do="search", query="chill")
    assert found["total"] == 2 and found["rows"][0] == {"row": 0, "label": "Chill ✨", "by": "8 tracks"}
    assert hear(picker, do="search", query="zzzz")[0]["total"] == 0
    [found] = hear(picker, do="find", query="song 17")
    assert found["rows"] == [{"row": 17, "label": "Song 17", "by": "Artist 2"}]
    hear(picker, do="add", track=17)
    hear(picker, do="turn", settings={"shown": 3})
    assert picker.ids[-1] == 17 and len(picker.table()) == 3
    [saved] = hear(picker, do="save", kind="csv")
    assert saved["save"][0] == "\ufeff" and "Song 17" in saved["save"]
    assert "is" in hear(picker, do="paste", text="")[0]["said"] or picker.ids


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"do": "export"},
        {"do": "__init__"},
        {"do": "add"},
        {"do": "add", "track": 10_000},
        {"do": "add", "track": "x"},
        {"do": "choose", "row": 99},
        {"do": "turn", "settings": {"nonsense": 1}},
        {"do": "turn", "settings": None},
        {"do": "compare", "model": "GPT", "beside": "nothing"},
        {"do": "guess", "track": 1},
        {"do": "remove", "at": "0"},
    ],
)
def test_what_the_page_must_not_ask_for_changes_nothing(picker, message):
    before = list(picker.ids)
    for answer in hear(picker, **message):
        assert answer["said"] and "Traceback" not in answer["said"]
    assert picker.ids == before
    agrees(picker)


# Names that break things


class _Tags(html.parser.HTMLParser):
    """Tags and attributes of a text, and whether every tag is closed."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.names, self.attributes, self.open = set(), set(), []

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in ("img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag


def test_no_name_becomes_markup():
    table = tracks((HOSTILE * 3)[: N + UNKNOWN])
    table["artist_name"] = table["album_name"] = table["track_name"]
    models = list(recommenders(table).values())
    named = {name: model for name, model in zip(HOSTILE, models, strict=False)}
    picker = PlaylistPicker(named, PLAYLISTS, HOSTILE[: len(PLAYLISTS)], table)
    for row in range(len(PLAYLISTS)):
        picker.choose(row)
        parser = _Tags()
        parser.feed(picker.twin())
        parser.close()
        assert not parser.open
        assert not parser.names & {"script", "img", "iframe"}
        assert not any(name.startswith("on") for name in parser.attributes)
        seen = str(picker.view) + str(picker.reasons) + picker.twin()
        assert not set("\u202e\u202c\u2069\x1b") & set(seen)


def test_the_page_writes_names_as_text_and_fetches_nothing():
    script, style = (HERE / "picker.js").read_text(), (HERE / "picker.css").read_text()
    assert "innerHTML" not in script and "insertAdjacentHTML" not in script and "outerHTML" not in script
    for text in (script, style):
        assert not re.search(r"https?:|url\(|@import|import\s", text)


# Without a kernel


def test_the_twin_shows_what_is_shown(picker):
    twin = picker.twin()
    for name in picker.answers:
        for track in picker.table(name)["track_name"]:
            assert f">{track}<" in twin
    assert "★" in twin and "Chill ✨" in twin and "Run All Cells" in twin
    assert "<style" not in twin and " style=" not in twin
    assert "Chill ✨, 7 tracks" in repr(picker)
    picker.choose(1)
    assert "chill out" in picker.twin()


def test_the_widget_and_its_twin_are_two_outputs(picker, monkeypatch):
    shown = []
    monkeypatch.setattr("sasrec_utils.course.picker.widget.display", lambda data, **_: shown.append(set(data)))
    picker._ipython_display_()
    view = "application/vnd.jupyter.widget-view+json"
    assert shown == [{view}, {"text/html", "text/plain"}]


def test_a_picker_without_playlists_is_empty():
    picker = PlaylistPicker(RECOMMENDERS, PLAYLISTS.take([]), [], tracks())
    assert picker.view["hint"] and "Your playlist, 0 tracks" in repr(picker) and "Your playlist" in picker.twin()
    picker.add(3)
    assert picker.ids == [3]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"recommenders": {}}, "at least one"),
        ({"names": ["a"]}, "as many names"),
        ({"tracks": tracks().head(3)}, "outside a table"),
    ],
)
def test_what_does_not_fit_is_refused(change, said):
    given = {"recommenders": RECOMMENDERS, "playlists": PLAYLISTS, "names": NAMES, "tracks": tracks()} | change
    with pytest.raises(ValueError, match=said):
        PlaylistPicker(**given)


# On prepared slices


def test_it_opens_prepared_slices_and_shows_test_playlists_only(tmp_path):
    world = World(WorldConfig("small", playlists=120, tracks=500, artists=60))
    write_slices(world, tmp_path / "raw")
    prepared = prepare(tmp_path / "raw", tmp_path / "prepared", progress=False)
    dataset = load_dataset(prepared)
    n = dataset.vocabulary.n_items
    known = dataset.catalogue.tracks.iloc[dataset.vocabulary.to_catalogue[1 : n + 1] - 1]
    oracle = Oracle.from_uris(world, known["track_uri"].tolist(), n)
    models = {"popularity": Popularity.fit(dataset.train, n), "oracle": oracle}
    models = {name: Recommender(scorer, known) for name, scorer in models.items()}
    picker = PlaylistPicker.from_dataset(models, dataset, prepared)
    assert len(picker.desk.names) == len(dataset.test) == 12
    names = pd.read_parquet(prepared / "playlists.parquet")["name"]
    for row, (place, ids) in enumerate(zip(dataset.split.test, dataset.test, strict=True)):
        picker.choose(row)
        assert picker.view["title"] == " ".join(names[place].split())
        assert picker.uris == dataset.catalogue.table(dataset.vocabulary.decode(ids[:-1]))["track_uri"].tolist()
        own = models["oracle"].recommend(picker.uris)
        assert picker.answers["oracle"].table.equals(own.table)
        exact = oracle.score(Sequences.from_lists([own.history]))[0, own.table["track_id"]]
        assert picker.table("oracle")["strength"].to_numpy() == pytest.approx(exact, abs=1e-6)

"""The picker without a browser: what it shows is what the recommenders say, whatever the reader does and whatever the
names hold. Its looks and its keys are tested in test_browser.py."""

from __future__ import annotations

import csv
import html.parser
import io
import itertools
import re
import threading

import numpy as np
import pandas as pd
import pytest

from sasrec_utils.baselines import ItemKNN, Markov, Popularity
from sasrec_utils.course.picker import PlaylistPicker
from sasrec_utils.evaluation import ranks
from sasrec_utils.model import SASRec, SASRecConfig
from sasrec_utils.mpd import prepare
from sasrec_utils.recommender import Recommender, extend
from sasrec_utils.sequences import Sequences, load_dataset
from sasrec_utils.track_names import plain
from sasrec_utils.world import Oracle, World, WorldConfig, write_slices

N, UNKNOWN = 30, 2  # tracks that models know, and more that they do not
HOSTILE = [
    "<script>window.hacked = 1</script>", '"><img src=x onerror="window.hacked = 1">', "</style><b>bold</b>", "a & b &lt; c",
    "🎧🎵🇫🇷👩‍👩‍👧", "שיר ערש", "أغنية", "\u202eevil\u202c \u2069", "line\nbreak\ttab", "x" * 400, "", None, "`${1}`", "{0} {name}",
]  # fmt: skip


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


PLAYLISTS = Sequences.from_lists([
    [1, 2, 3, 4, 5, 6, 7, 8], [9, 10, 11], [12], [], [13, N + 1, 14, 15], [1, 2, N + 2], [5, 6, 5], list(range(1, 31)) * 9,
])  # fmt: skip
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
    older, seen = picker.uris[: len(picker.uris) - picker.seen], picker.uris[len(picker.uris) - picker.seen :]
    text = picker._predictions.value
    for name, answer in picker.answers.items():
        own = RECOMMENDERS[name].recommend(seen, picker.shown.value, exclude=older)
        # The picker computes on one thread: scores may differ in their last digits, the tracks and their order do not.
        pd.testing.assert_frame_equal(own.table, answer.table, rtol=1e-3, atol=1e-5)
        box = re.search(
            rf'<div class="answer"><table><caption>{re.escape(name)}</caption>.*?</table>', text, re.DOTALL
        )[0]
        assert re.findall(r'class="track">([^<]*)<', box)[: len(own.table)] == own.table["track_name"].tolist()
    assert len(picker.rows.options) == len(picker.ids) == len(picker.added)


# Picking


def test_it_begins_with_the_first_playlist_and_hides_its_last_track(picker):
    assert picker.ids == [1, 2, 3, 4, 5, 6, 7] and picker.next_id == 8
    assert list(picker.answers) == ["SASRec", "item-kNN"]  # the last two that were given
    agrees(picker)


@pytest.mark.parametrize(("query", "found"), [
    ("", 8), ("chill", 2), ("CHILL OUT", 1), ("out chill", 1), ("cafe", 1), ("CAFÉ", 1), ("strasse", 1), ("  rainy   days ", 1),
    ("nothing like this", 0), ("no name", 2), ("<b>", 0), (".*", 0), ("\\", 0), ("\n", 8),
])  # fmt: skip
def test_search_finds_parts_of_names_in_any_case_and_without_accents(picker, query, found):
    picker.search.value = query
    assert len(picker.found.options) == found
    assert f"{found} of 8 playlists" in picker._note.value


def test_an_exact_name_comes_first():
    names = ["my chill", "chill mix", "chill"]
    picker = PlaylistPicker(RECOMMENDERS, PLAYLISTS.take([0, 1, 2]), names, tracks())
    picker.search.value = "Chill"
    assert [row for _, row in picker.found.options] == [2, 0, 1]


def test_choosing_a_match_opens_it_and_searching_again_keeps_it(picker):
    picker.search.value = "chill"
    picker.found.index = 1
    assert picker.chosen == 1 and picker.ids == [9, 10] and picker.next_id == 11
    picker.search.value = "rainy"
    assert picker.chosen == 1 and picker.found.index is None
    picker.search.value = ""
    assert picker.found.index == 1
    picker.choose(4)
    assert picker.found.index == 4
    agrees(picker)


def test_enter_takes_the_first_match(picker):
    picker.search.value = "out"
    picker.search._handle_custom_msg({"event": "submit"}, [])
    assert picker.chosen == 1
    picker.track_search.value = "song 20"
    picker.track_search._handle_custom_msg({"event": "submit"}, [])
    assert picker.ids[-1] == 20
    agrees(picker)


def test_thousands_of_playlists_are_searched_at_once():
    many = 20_000
    playlists = Sequences(np.ones(many, np.int32), np.arange(many + 1))
    picker = PlaylistPicker(RECOMMENDERS, playlists, [f"mix {i}" for i in range(many)], tracks())
    picker.search.value = "mix 19999"
    assert [row for _, row in picker.found.options] == [19999]
    picker.search.value = "mix"
    assert len(picker.found.options) == 50 and "20,000 of 20,000" in picker._note.value


@pytest.mark.parametrize("row", range(len(NAMES)))
def test_every_playlist_can_be_opened(picker, row):
    picker.choose(row)
    agrees(picker)
    for value in ["falls", "", "mean", (0, 0), (1, 1)]:
        picker.draw.value = value
    agrees(picker)


# The real next track


def test_the_next_track_has_the_rank_that_evaluation_gives_it(picker):
    rank = int(ranks(RECOMMENDERS["SASRec"].scorer, Sequences.from_lists([picker.ids]), np.array([8]))[0])
    assert picker.answers["SASRec"].rank(8) == rank
    assert f"SASRec has it at rank {rank}," in picker._predictions.value
    assert picker._predictions.value.count('<tr class="next"') == 2  # once in each list, in or below it
    assert picker.table()["is_next"].sum() == (rank <= 10)


def test_a_next_track_that_cannot_be_named_is_said_to_be_so(picker):
    picker.choose(5)
    assert (
        "No training playlist had it" in picker._predictions.value
        and "SASRec cannot name it" in picker._predictions.value
    )
    picker.choose(6)
    assert "in the playlist already" in picker._predictions.value


def test_nothing_is_hidden_when_it_is_not_wanted():
    picker = PlaylistPicker(RECOMMENDERS, PLAYLISTS, NAMES, tracks(), hide_last=False)
    assert picker.ids == [1, 2, 3, 4, 5, 6, 7, 8]
    assert "★" not in picker._predictions.value


# Controls


@pytest.mark.parametrize(("left", "right"), list(itertools.permutations(RECOMMENDERS, 2)))
def test_any_two_models_stand_side_by_side(picker, left, right):
    picker.model.value, picker.beside.value = left, right
    assert list(picker.answers) == [left, right]
    agrees(picker)


def test_one_model_alone(picker):
    picker.beside.value = "nothing"
    assert list(picker.answers) == ["SASRec"]
    picker.beside.value = "SASRec"
    assert list(picker.answers) == ["SASRec"]
    one = PlaylistPicker({"SASRec": RECOMMENDERS["SASRec"]}, PLAYLISTS, NAMES, tracks())
    assert list(one.answers) == ["SASRec"]


@pytest.mark.parametrize("k", [1, 2, 20])
def test_the_first_slider_says_how_many_are_shown(picker, k):
    picker.shown.value = k
    assert len(picker.table()) == k
    agrees(picker)


@pytest.mark.parametrize("seen", [1, 3, 7])
def test_the_second_slider_says_how_much_the_models_see(picker, seen):
    picker.history.value = seen
    assert picker.answers["SASRec"].history == picker.ids[-seen:]
    shown = set(picker.table()["track_name"])
    assert not shown & {f"Song {i}" for i in picker.ids}  # what it does not see is not recommended again either
    assert picker._marks.value.count("not seen") == 7 - seen
    agrees(picker)


def test_a_whole_history_stays_whole_and_a_part_stays_a_part(picker):
    picker.choose(1)
    assert picker.history.value == 2
    picker.choose(0)
    assert picker.history.value == 7
    picker.history.value = 3
    picker.press("remove")
    assert picker.history.value == 3 and picker.history.max == 6


# What if


def test_edits_do_what_they_say_and_can_be_taken_back(picker):
    picker.rows.index = 2
    picker.press("remove")
    assert picker.ids == [1, 2, 4, 5, 6, 7] and picker.rows.index == 2
    agrees(picker)
    picker.press("up")
    assert picker.ids == [1, 4, 2, 5, 6, 7] and picker.rows.index == 1
    picker.press("down")
    picker.press("down")
    assert picker.ids == [1, 2, 5, 4, 6, 7] and picker.rows.index == 3
    picker.track_search.value = "artist 0 song 25"
    picker.press("add")
    assert picker.ids[-1] == 25 and picker.added[-1] and "+" in picker.rows.options[-1][0]
    agrees(picker)
    picker.press("empty")
    assert picker.ids == []
    agrees(picker)
    picker.press("undo")
    assert picker.ids == [1, 2, 5, 4, 6, 7, 25]
    for _ in range(10):
        picker.press("undo")
    assert picker.ids == [1, 2, 3, 4, 5, 6, 7]
    picker.press("remove")
    picker.press("restart")
    assert picker.ids == [1, 2, 3, 4, 5, 6, 7]
    agrees(picker)


def test_edges_of_the_playlist_stop_a_move(picker):
    picker.rows.index = 0
    picker.press("up")
    picker.rows.index = 6
    picker.press("down")
    assert picker.ids == [1, 2, 3, 4, 5, 6, 7] and not picker._undo


def test_an_empty_playlist_shows_the_popular_tracks_and_claims_no_probability(picker):
    picker.press("empty")
    assert picker.table()["share"].isna().all()
    assert "most played" in picker._predictions.value
    assert '<span class="number"></span>' in picker._predictions.value
    for button in ("remove", "up", "down", "add"):
        picker.press(button)
    assert picker.ids == []
    picker.track_search.value = "song 9"
    picker.press("add")
    assert picker.ids == [9]
    agrees(picker)


def test_a_button_that_does_not_exist_is_refused(picker):
    with pytest.raises(ValueError, match="remove, up, down"):
        picker.press("explode")


def test_a_random_walk_over_all_controls_never_disagrees(picker):
    rng = np.random.default_rng(3)
    for _ in range(150):
        action = rng.integers(8)
        if action == 0:
            picker.choose(int(rng.integers(len(NAMES))))
        elif action == 1 and len(picker.ids):
            picker.rows.index = int(rng.integers(len(picker.ids)))
        elif action == 2:
            picker.history.value = int(rng.integers(1, picker.history.max + 1))
        elif action == 3:
            picker.shown.value = int(rng.integers(1, 21))
        elif action == 4:
            picker.model.value = str(rng.choice(list(RECOMMENDERS)))
        elif action == 5:
            picker.track_search.value = f"song {rng.integers(40)}"
        elif action == 6:
            picker.draw.index = int(rng.integers(len(picker.draw.options)))
        else:
            picker.press(str(rng.choice(list(picker.buttons))))
        agrees(picker)


def test_two_threads_do_not_break_it(picker):
    def press(button):
        for _ in range(30):
            picker.press(button)

    threads = [threading.Thread(target=press, args=(b,)) for b in ("remove", "undo", "continue", "up")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    agrees(picker)


# Why


def test_attention_is_the_models_own_and_drawn_on_the_rows(picker):
    import torch

    with torch.inference_mode():
        _, attention = RECOMMENDERS["SASRec"].scorer(torch.tensor([picker.ids]), return_attention=True)
    picker.draw.value = (1, 0)
    weights = attention[1][0, 0, -1].numpy()
    for place, weight in enumerate(weights):
        rule = re.search(rf'nth-child\({place + 1}\){{--bar:([\d.]+)%}}[^}}]*{{content:"(\d+)%"}}', picker._marks.value)
        assert float(rule[1]) == pytest.approx(100 * weight, abs=0.06)
        assert int(rule[2]) == round(100 * float(weight))


def test_the_control_stands_beside_the_attention(picker):
    assert "Control:" in picker._why.value and "shuffled" in picker._why.value
    assert picker._why.value.count('<th scope="row">') == 4


def test_only_what_the_model_sees_is_drawn(picker):
    picker.choose(7)  # 269 tracks, the model sees 20
    assert picker._marks.value.count("not seen") == 249
    picker.choose(0)
    picker.model.value = "Markov"
    assert not any(value == "mean" for _, value in picker.draw.options)  # it does not look
    assert picker.draw.value == "falls" and "Bars: points" in picker._marks.value
    picker.model.value = "SASRec"
    assert picker.draw.value == "mean"  # as before


@pytest.mark.parametrize("model", RECOMMENDERS)
def test_the_counterfactual_is_a_real_removal(picker, model):
    picker.model.value = model
    picker.rows.index = 6
    asked = picker.about.value
    fewer = RECOMMENDERS[model].recommend(picker.uris[:-1], 10)
    rank = fewer.rank(asked)
    share = RECOMMENDERS[model].probabilities(fewer)[asked]
    words = picker._why.value
    assert "What if row 7 were not there?" in words
    assert f"rank {rank} ({share:.1%})" in words
    for word, there in (("stays", model == "popularity"), ("from", model != "popularity")):
        assert (word in words) == there


def test_a_removed_track_is_a_candidate_again(picker):
    picker.model.value = "popularity"
    picker.rows.index = 0
    before = picker.answers["popularity"].rank(30)
    assert before and picker._without([0], picker.ids[0])[0][1] > 0


def test_asking_about_the_next_track_outside_the_list(picker):
    picker.shown.value = 1
    values = [value for _, value in picker.about.options]
    assert values[-1] == 8 or values == [8]
    picker.about.value = 8
    assert "Song 8" in picker._why.value


# Continuing and exporting


def test_greedy_continuation_takes_the_best_again_and_again(picker):
    picker.steps.value = 4
    ids = list(picker.ids)
    for _ in range(4):
        uris = [tracks()["track_uri"][i - 1] for i in ids]
        ids.append(int(RECOMMENDERS["SASRec"].recommend(uris, 1).table["track_id"][0]))
    picker.press("continue")
    assert picker.ids == ids and picker.added == [False] * 7 + [True] * 4
    agrees(picker)


def test_drawn_continuations_differ_and_repeat_nothing(picker):
    picker.temperature.value, picker.steps.value = 1.0, 10
    picker.press("continue")
    assert len(set(picker.ids)) == len(picker.ids) == 17
    first = picker.ids
    picker.press("undo")
    picker.press("continue")
    assert picker.ids == first  # the same playlist goes on the same way
    picker.press("undo")
    picker.seed = 1
    picker.press("continue")
    assert picker.ids != first


def test_continuation_ends_when_every_track_is_used(picker):
    picker.steps.value = 50
    picker.press("continue")
    assert sorted(picker.ids) == list(range(1, N + 1))
    picker.press("continue")
    assert len(picker.ids) == N
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


def test_exports_hold_the_playlist_as_it_stands():
    table = tracks((HOSTILE * 3)[: N + UNKNOWN])
    picker = PlaylistPicker(recommenders(table), PLAYLISTS, NAMES, table)
    rows = list(csv.reader(io.StringIO(picker.export("csv"))))
    assert rows[0] == ["position", "track_uri", "track_name", "artist_name", "album_name"]
    assert [row[1] for row in rows[1:]] == picker.uris
    assert [row[2] for row in rows[1:]] == [plain(name) for name in table["track_name"][:7]]
    lines = picker.export("m3u").splitlines()
    assert lines[0] == "#EXTM3U" and len(lines) == 15
    assert lines[2::2] == picker.uris and lines[1].startswith("#EXTINF:-1,Artist 1 - ")
    with pytest.raises(ValueError, match="csv"):
        picker.export("exe")


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


def pieces(picker):
    return [picker._head, picker._note, picker._predictions, picker._why, picker._marks, picker._files]


def test_no_name_becomes_markup():
    table = tracks((HOSTILE * 3)[: N + UNKNOWN])
    table["artist_name"] = table["album_name"] = table["track_name"]
    picker = PlaylistPicker(recommenders(table), PLAYLISTS, HOSTILE[: len(PLAYLISTS)], table)
    for row in range(len(PLAYLISTS)):
        picker.choose(row)
        for draw in ("mean", "falls"):
            picker.draw.value = draw
            for text in [*(piece.value for piece in pieces(picker)), picker.twin()]:
                parser = _Tags()
                parser.feed(text)
                parser.close()
                assert not parser.open
                assert not parser.names & {"script", "img", "iframe"}
                assert not any(name.startswith("on") for name in parser.attributes)
                assert not set("\u202e\u202c\u2069") & set(text)
        labels = [label for label, _ in (*picker.rows.options, *picker.found.options, *picker.about.options)]
        assert not any("\n" in label or "\u202e" in label for label in labels)
        assert all(label.count("\u2068") == label.count("\u2069") for label in labels)
        assert max(map(len, labels)) < 200


def test_the_only_script_is_the_pickers_own_and_holds_no_data(picker):
    assert picker._style.value.count("onerror") == 1
    picker.choose(1)
    assert "Song" not in picker._style.value and "Chill" not in picker._style.value


def test_nothing_is_fetched(picker):
    for text in [picker._style.value, *(piece.value for piece in pieces(picker)), picker.twin()]:
        assert not re.search(r"https?:|//[a-z]|url\(|@import", text)


# Labels, and what stands without a kernel


def test_every_control_has_a_label(picker):
    def walk(widget):
        yield widget
        for child in getattr(widget, "children", ()):
            yield from walk(child)

    labels = [w.description for w in walk(picker) if hasattr(w, "description") and type(w).__name__ != "HTML"]
    assert len(labels) >= 18 and all(labels)
    assert len(set(labels)) == len(labels)
    assert all(button.tooltip for button in picker.buttons.values())


def test_the_twin_shows_what_is_shown(picker):
    bundle = picker._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html", "application/vnd.jupyter.widget-view+json"}
    twin = bundle["text/html"]
    for name in picker.answers:
        for track in picker.table(name)["track_name"]:
            assert f">{track}<" in twin
    assert "★" in twin and "Chill ✨" in twin
    assert "<style" not in twin and " class=" not in twin and " style=" not in twin
    assert bundle["text/plain"] == repr(picker) and "Chill ✨, 7 tracks" in repr(picker)
    picker.choose(1)
    assert "chill out" in picker._repr_mimebundle_()["text/html"]


def test_a_picker_without_playlists_says_so():
    picker = PlaylistPicker(RECOMMENDERS, PLAYLISTS.take([]), [], tracks())
    assert "No playlists" in picker.twin() and "no playlists" in repr(picker)


@pytest.mark.parametrize(("change", "said"), [
    ({"recommenders": {}}, "at least one"), ({"names": ["a"]}, "as many names"), ({"tracks": tracks().head(3)}, "outside a table"),
])  # fmt: skip
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
    assert len(picker.names) == len(dataset.test) == 12
    names = pd.read_parquet(prepared / "playlists.parquet")["name"]
    for row, (place, ids) in enumerate(zip(dataset.split.test, dataset.test, strict=True)):
        picker.choose(row)
        assert picker.names[row] == " ".join(names[place].split())
        assert picker.uris == dataset.catalogue.table(dataset.vocabulary.decode(ids[:-1]))["track_uri"].tolist()
        own = models["oracle"].recommend(picker.uris)
        assert picker.answers["oracle"].table.equals(own.table)
        share = oracle.score(Sequences.from_lists([own.history]))[0, own.table["track_id"]]
        assert picker.table("oracle")["share"].to_numpy() == pytest.approx(
            share, abs=1e-6
        )  # exact, not a share of a sum

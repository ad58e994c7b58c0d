"""Names of the made-up world: people can tell them apart, they fit their genre, and they change nothing but names."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tomllib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.font_manager import findfont, get_font

import sasrec_utils.world as package
from sasrec_utils.world import (
    MPD_LIKE,
    TEACHING,
    TITLE_WORDS,
    World,
    WorldConfig,
    sample,
    slice_json,
    title_words,
)
from sasrec_utils.world.audio import SOUND
from sasrec_utils.world.names import entries, genre_base, titles, words

LONGEST = 32  # characters: fits a row of the picker


@pytest.fixture(scope="module")
def world() -> World:
    return World(TEACHING)


def all_names(world: World, kind: str) -> list[str]:
    n = {"artist": len(world.artist_size), "album": world.album[-1] + 1, "track": world.n_tracks}[kind]
    return world.names(kind, np.arange(n))


@pytest.mark.parametrize("seed", [2018, 1, 2, 3])
def test_teaching_names_can_be_told_apart(seed):
    world = World(replace(TEACHING, seed=seed))
    artists, tracks = all_names(world, "artist"), np.array(all_names(world, "track"), dtype=object)
    assert len(set(artists)) == len(artists)
    heard_in = Counter(word for name in artists for word in set(re.findall(r"[^\W\d_]{3,}", name.lower())))
    for name in artists:  # each has a word that no other artist has
        assert any(heard_in[word] == 1 for word in re.findall(r"[^\W\d_]{3,}", name.lower())), name
    songs = world.twin == np.arange(world.n_tracks)  # a second URI of a song has the song's name
    assert np.array_equal(tracks, tracks[world.twin])
    for a in range(len(artists)):
        own = np.arange(world.artist_first[a], world.artist_first[a + 1])
        own = tracks[own[songs[own]]]
        assert len(set(own)) == len(own), artists[a]
    assert len(set(tracks[songs])) > 0.9 * songs.sum()
    assert max(map(len, [*artists, *tracks, *all_names(world, "album")])) <= LONGEST


def test_no_pattern_of_any_genre_makes_a_long_name():
    for genre, about in words()["genre"].items():
        lists = {name: entries(text) for name, text in (words()["everyone"] | about).items()}
        for kind in ("artists", "albums", "tracks"):
            for pattern in entries(about[kind]):
                longest = pattern.replace("{track}", "")  # a track's name is checked with the tracks
                for name in re.findall(r"\{(\w+)\}", longest):
                    longest = longest.replace(f"{{{name}}}", max(lists[name], key=len))
                assert len(longest) <= LONGEST, (genre, longest)


def test_the_word_lists_are_whole():
    heads = [head for about in words()["genre"].values() for head in entries(about["head"])]
    assert len(set(heads)) == len(heads)
    assert len(words()["genre"]) == 24 and list(words()["genre"]) == list(SOUND)
    for genre, about in words()["genre"].items():
        assert set(entries(about["fits"])) <= set(TITLE_WORDS), genre
        lists = {name: entries(text) for name, text in (words()["everyone"] | about).items()}
        used = set(re.findall(r"\{(\w+)\}", " ".join(about[kind] for kind in ("artists", "albums", "tracks"))))
        assert used <= {*lists, "track"} and set(about) - used == {"artists", "albums", "tracks", "fits"}, genre
        for name in set(about) - {"artists", "albums", "tracks"}:
            assert len(set(lists[name])) == len(lists[name]), (genre, name)
    for about in list(words()["genre"].values())[:8]:  # those of the teaching world
        assert all("{head}" in pattern for pattern in entries(about["artists"]))
    for kind in ("artists", "tracks"):
        assert set(words()["oddities"][kind]) <= set(words()["genre"])


def test_an_installed_package_has_the_word_lists():
    root = Path(package.__file__).parents[2]
    data = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    others = {p.name for p in Path(package.__file__).parent.iterdir() if p.is_file() and p.suffix != ".py"}
    assert others == set(data["sasrec_utils.world"])


def test_genres_have_the_names_that_the_lists_begin_with(world):
    assert sorted(world.genre_names) == sorted(list(words()["genre"])[:8])
    many = World(WorldConfig("many genres", genres=30, artists=120))
    assert len(set(many.genre_names)) == 30 and {genre_base(g) for g in many.genre_names} == set(words()["genre"])
    assert len(set(all_names(many, "artist"))) > 100


def test_names_are_those_of_their_genre(world):
    of_metal = {head for head in entries(words()["genre"]["metal"]["head"])}
    artists = np.array(all_names(world, "artist"), dtype=object)
    metal = world.genre_of == world.genre_names.index("metal")
    has = np.array([any(head in name for head in of_metal) for name in artists])
    assert has[metal].sum() >= metal.sum() - 2 and not has[~metal].any()  # two have names from the list of oddities


def test_oddities_are_in_the_world_and_every_character_can_be_drawn(world):
    names = {kind: set(all_names(world, kind)) for kind in ("artist", "track")}
    for kind in ("artist", "track"):
        for genre in world.genre_names:
            assert entries(words()["oddities"][f"{kind}s"][genre])[0] in names[kind]
    together = "".join(sorted({*"".join(names["artist"] | names["track"])}))
    for trap in ("&", "'", "é", "ö", "Н", "☁", "$", "@"):
        assert trap in together
    drawable = get_font(findfont("DejaVu Sans")).get_charmap()  # what matplotlib draws with, if nothing else is chosen
    assert all(ord(ch) in drawable for ch in together)


def test_some_albums_have_a_title_track(world):
    albums, tracks = all_names(world, "album"), all_names(world, "track")
    own = [{tracks[x] for x in np.flatnonzero(world.album == a)} for a in range(len(albums))]
    share = np.mean([name in names for name, names in zip(albums, own, strict=True)])
    assert 0.2 < share < 0.6


def test_tracks_do_not_repeat_their_artists_words(world):
    artists = all_names(world, "artist")
    shared = [
        bool(set(re.findall(r"\w{4,}", track.lower())) & set(re.findall(r"\w{4,}", artists[a].lower())))
        for track, a in zip(all_names(world, "track"), world.artist, strict=True)
    ]
    assert np.mean(shared) < 0.02


def test_large_worlds_invent_only_what_is_asked_for_and_always_the_same():
    world = World(MPD_LIKE)
    ids = np.random.default_rng(1).integers(world.n_tracks, size=20_000)
    names = world.names("track", ids)
    assert names[:50] == [world.track_name(x) for x in ids[:50]] and names == world.names("track", ids)
    artists = world.names("artist", world.artist[ids])
    unique = np.unique(ids, return_index=True)[1]
    pairs = {(names[i], artists[i]) for i in unique}
    assert len(pairs) > 0.95 * len(unique)  # "track by artist" is one track, mostly
    assert len(world.genre_names) == 24


# --- nothing but names ------------------------------------------------------------------------------------------------


def test_everything_but_the_names_is_as_it_was_before_there_were_names(world):
    """Recorded from the world that called its artists Dlenokyon and Jaxroskdle."""
    playlists = json.loads(slice_json(world, world.draw_slice(0, 1000), 0))
    for p in playlists["playlists"]:
        p.pop("name")
        if "description" in p:
            p["description"] = ""
        for t in p["tracks"]:
            for key in ("artist_name", "track_name", "album_name"):
                t.pop(key)
    digest = hashlib.sha256(json.dumps(playlists).encode()).hexdigest()
    assert digest == "6577a985ddc6a2a19ade9b3e9d83d20f4d439e141725da49c1dcf9134af33a68"


def test_the_same_names_in_every_process(world):
    program = (
        "import hashlib, numpy as np; from sasrec_utils.world import *; w = World(TEACHING)\n"
        "text = ''.join(w.names('track', np.arange(w.n_tracks)) + w.names('album', np.arange(w.album[-1] + 1)))\n"
        "print(hashlib.sha256((text + slice_json(w, w.draw_slice(3, 50), 3)).encode()).hexdigest())"
    )
    text = "".join(all_names(world, "track") + all_names(world, "album"))
    here = hashlib.sha256((text + slice_json(world, world.draw_slice(3, 50), 3)).encode()).hexdigest()
    env = dict(os.environ, PYTHONHASHSEED="4242", PYTHONPATH=str(Path(package.__file__).parents[2]))
    there = subprocess.run([sys.executable, "-c", program], check=True, env=env, capture_output=True, text=True)
    assert there.stdout.strip() == here


# --- titles of playlists ----------------------------------------------------------------------------------------------


def test_every_title_says_its_mood_word_and_no_other():
    found = re.compile(rf"\b({'|'.join(TITLE_WORDS)})\b")
    text = words()["playlists"]
    assert set(text["words"]) == set(TITLE_WORDS)
    for word in TITLE_WORDS:
        for pattern in [*entries(text["general"]), *entries(text["words"][word])]:
            for friend in entries(text["friend"]):
                for genre in words()["genre"] if "{genre}" in pattern else [""]:
                    title = pattern.format(word=word, friend=friend, genre=genre, year=2014)
                    for said in (title.lower(), title.upper().lower(), title.title().lower()):
                        assert found.findall(said) == [word], title


def test_a_title_tells_nothing_but_its_word(world):
    """The same words and the same luck give the same titles, whatever the hidden mood is."""
    drawn = world.draw_slice(0, 300)
    other = replace(drawn, mood=(drawn.mood + 1) % TEACHING.moods, style=(drawn.style + 1) % 4)
    made = titles(world, drawn, np.random.default_rng(5))
    assert made == titles(world, other, np.random.default_rng(5))
    assert np.array_equal(title_words(made[0]), drawn.word)


def test_a_sample_can_be_looked_at(world):
    table = sample(world, 20)
    assert list(table) == ["title", "mostly", "artists", "begins with"] and len(table) == 20
    assert set(table["mostly"]) <= set(world.genre_names) and (table["title"].str.len() > 3).all()


def test_the_command_line_shows_a_sample_and_writes_nothing(tmp_path, capsys):
    from sasrec_utils.__main__ import main

    assert main(["make-data", "--show", "4", "--out", str(tmp_path / "raw")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 5 and list(tmp_path.iterdir()) == []


def test_moods_and_genres_of_the_teaching_world_go_together(world):
    """Most of what is played under a title word is of a genre that the word fits; by chance it would be a third."""
    fits = np.array([[w in entries(words()["genre"][g]["fits"]) for g in world.genre_names] for w in TITLE_WORDS])
    heard = world.mood_words.T @ world.mood_genres / TEACHING.moods  # [words, genres], sums to 1
    assert (heard * fits).sum() > 0.55 > 0.4 > fits.mean()

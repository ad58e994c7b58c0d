from __future__ import annotations

import numpy as np
import pytest
from made_slices import quiet, write

from sasrec_utils.mpd import Catalogue, MPDError


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    folder = tmp_path_factory.mktemp("catalogue")
    songs = [
        ("u1", "Love", "Abba", 5),
        ("u2", "My LOVE (Live)", "Beyonc\u00e9", 9),
        ("u3", "Stra\u00dfe", "Die \u00c4rzte", 2),
        ("u4", "One - Radio Edit", "U2", 3),
        ("u5", "a+b (x", "Abba", 1),
        ("u6", None, None, 1),
    ]
    tracks = [
        {"track_uri": uri, "track_name": name, "artist_name": artist, "album_name": f"On {name}"}
        for uri, name, artist, plays in songs
        for _ in range(plays)
    ]
    path = write(folder, {"playlists": [{"pid": 0, "tracks": tracks}]})
    return Catalogue.load(quiet(path, folder / "out"))


def test_catalogue_ids(catalogue):
    ids = catalogue.ids(["u2", "u1", "u9", "u6", None, "u2"])
    assert ids.dtype == np.int32 and ids.tolist() == [1, 2, 0, 6, 0, 1]
    assert len(catalogue) == 6
    assert catalogue.ids(catalogue.tracks["track_uri"]).tolist() == [1, 2, 3, 4, 5, 6]
    assert catalogue.ids([]).tolist() == [] and catalogue.ids([]).dtype == np.int32
    assert catalogue.ids("u1").tolist() == [2]


def test_catalogue_find(catalogue):
    def found(text, k=10):
        return catalogue.find(text, k)["track_uri"].tolist()

    assert found("love") == ["u1", "u2"]  # the whole name before the more played
    assert found("LOVE", k=1) == ["u1"] and found("my love") == ["u2"]
    assert found("strasse") == ["u3"] and found(" STRASSE ") == ["u3"]
    assert found("u2 - one") == found("one - radio edit") == ["u4"] and found("Beyonc\u00c9 - love") == ["u2"]
    assert found("abba - one") == []
    assert found("a+b (") == ["u5"]  # text, not a pattern
    assert found("nothing like it") == []
    columns = ["track_id", "track_uri", "track_name", "artist_name", "album_name"]
    assert list(catalogue.find("love")) == columns == list(catalogue.find("nothing like it"))


def test_catalogue_table(catalogue):
    shown = catalogue.table([2, 99, 1, 0, 2])
    assert shown["track_id"].tolist() == [2, 99, 1, 0, 2] and shown.index.tolist() == [0, 1, 2, 3, 4]
    assert shown["track_name"].fillna("?").tolist() == ["Love", "?", "My LOVE (Live)", "?", "Love"]
    assert len(catalogue.table([])) == 0
    assert catalogue.table(np.array([1], np.int32))["artist_name"].tolist() == ["Beyonc\u00e9"]


def test_catalogue_groups(catalogue):
    assert catalogue.artist_of.dtype == catalogue.album_of.dtype == np.int32
    # Plays: Beyonce 9, Abba 6, U2 3, Die Aerzte 2, unknown; albums by plays, ties by name.
    assert catalogue.artist_of.tolist() == [0, 1, 2, 3, 4, 2, 0]
    assert catalogue.album_of[0] == 0 and sorted(catalogue.album_of[1:]) == [1, 2, 3, 4, 5, 6]


def test_catalogue_that_is_not_there(tmp_path):
    with pytest.raises(MPDError, match=r"tracks\.parquet: the tracks cannot be read .*`prepare`"):
        Catalogue.load(tmp_path)
    (tmp_path / "tracks.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(MPDError, match="cannot be read"):
        Catalogue.load(tmp_path)

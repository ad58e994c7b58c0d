"""The recommender behind HTTP, on real servers: what it answers, what it refuses, and what it survives."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import shutil
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from calling import Client, agree

from sasrec_utils.features import load_titles, with_titles
from sasrec_utils.recommender import Recommender, train_recommender
from sasrec_utils.sequences import load_dataset, load_sequences

serving = pytest.importorskip("sasrec_utils.serving", reason="the extra `serve` is not installed")


# What it answers


def test_answers_equal_the_recommenders(client, recommender, uris):
    rng = np.random.default_rng(0)
    for length in (0, 1, 2, 7, 40, 300):
        tracks = [uris[i] for i in rng.integers(0, len(uris), length)]
        k = int(rng.integers(1, 30))
        status, answer = client.ask("/recommendations", {"tracks": tracks, "k": k})
        expected = recommender.recommend(tracks, k)
        assert status == 200 and answer["history"] == tracks and answer["unknown"] == []
        assert answer["note"] == expected.note
        agree(answer, expected)
        shares = recommender.probabilities(expected)
        given = [row["probability"] for row in answer["recommendations"]]
        assert given == [None] * k if shares is None else np.allclose(given, np.sort(shares[1:])[::-1][:k], atol=0.1)


def test_names_and_links_are_understood_as_the_recommender_does(client, recommender, uris):
    names = recommender.table([3, 7])
    by_name = [f"{row.artist_name} - {row.track_name}".upper() for row in names.itertuples()]
    link = f"https://open.spotify.com/intl-de/track/{uris[10].split(':')[-1]}?si=1"
    status, answer = client.ask("/recommendations", {"tracks": [*by_name, link], "exclude": [uris[20], by_name[0]]})
    assert status == 200 and answer["history"] == [uris[2], uris[6], uris[10]]
    agree(answer, recommender.recommend([*by_name, link], exclude=[uris[20], by_name[0]]))


def test_what_is_excluded_does_not_come_back(client, uris):
    tracks = uris[4:9]
    first = [row["track_uri"] for row in client.ask("/recommendations", {"tracks": tracks})[1]["recommendations"]]
    for temperature in (0, 1):
        ask = {"tracks": tracks, "exclude": first, "k": 500, "temperature": temperature, "seed": 1}
        after = client.ask("/recommendations", ask)[1]["recommendations"]
        assert not {row["track_uri"] for row in after} & {*first, *tracks} and len(after) > 100


def test_unknown_tracks_are_told_with_suggestions(client, recommender, uris):
    label = recommender.names.label(5)
    typo = f"{label[:3]}{label[4:]}x"
    asked = [uris[0], typo, "spotify:track:unknown", "https://open.spotify.com/playlist/37i9dQZF1DX"]
    answer = client.ask("/recommendations", {"tracks": asked})[1]
    assert answer["history"] == [uris[0]] and [one["text"] for one in answer["unknown"]] == asked[1:]
    assert uris[4] in [track["track_uri"] for track in answer["unknown"][0]["suggestions"]]
    assert "playlist" in answer["unknown"][2]["reason"] and answer["unknown"][1]["suggestions"] == []


def test_a_batch_is_as_one_by_one(client, recommender, uris):
    rng = np.random.default_rng(1)
    asks = [{"tracks": [uris[i] for i in rng.integers(0, 200, n)], "k": n + 1} for n in range(20)]
    asks[3]["tracks"].append("never heard of")
    status, many = client.ask("/recommendations/batch", {"requests": asks})
    assert status == 200 and len(many["answers"]) == len(asks)
    for ask, answer in zip(asks, many["answers"], strict=True):
        agree(answer, recommender.recommend(ask["tracks"], ask["k"]))
        assert len(answer["recommendations"]) == ask["k"]
    assert [one["text"] for one in many["answers"][3]["unknown"]] == ["never heard of"]
    assert all(answer["unknown"] == [] for i, answer in enumerate(many["answers"]) if i != 3)


def test_a_title_is_given_to_the_recommender(client, recommender, uris):
    status, answer = client.ask("/recommendations", {"tracks": uris[:3], "title": "running"})
    expected = recommender.recommend(uris[:3], title="running")
    assert status == 200 and answer["note"] == expected.note and "title" in answer["note"]
    agree(answer, expected)


def test_a_title_is_read_by_a_model_that_reads_titles(copy):
    """In this process, to spare a server: also that a playlist of the data comes with its own."""
    [prepared] = (copy / "prepared").glob("[0-9a-f]*")
    titles = load_titles(prepared)
    data = with_titles(load_dataset(prepared), titles)
    folder = copy / "models" / "titled"
    train_recommender(folder, data, prepared.name, progress=False, epochs=1, accelerator="cpu")
    reader = Recommender.load(folder)
    assert reader.reads_titles

    asks = [{"tracks": [], "title": title, "k": 4} for title in ("running", "rain", "")]
    with in_process(copy, "titled") as (_, ask):
        card = ask("GET", "/model").json()
        assert card["reads_titles"] and card["name"] == "titled"
        for asked, answer in zip(
            asks, ask("POST", "/recommendations/batch", {"requests": asks}).json()["answers"], strict=True
        ):
            expected = reader.recommend([], 4, title=asked["title"])
            agree(answer, expected)
            assert answer["note"] == expected.note
        own = ask("GET", "/playlists/3/recommendations").json()
        agree(own, reader.recommend(own["history"], title=titles[3]))


def test_a_temperature_draws_and_a_seed_draws_the_same(client, uris):
    def drawn(**more) -> list[str]:
        answer = client.ask("/recommendations", {"tracks": uris[4:9], "k": 10, **more})[1]
        return [row["track_uri"] for row in answer["recommendations"]]

    best = drawn()
    assert drawn(temperature=1, seed=4) == drawn(temperature=1, seed=4) != drawn(temperature=1, seed=5)
    assert drawn(temperature=0.001, seed=4)[:3] == best[:3]
    assert len({*drawn(temperature=10, seed=4)} & {*best}) < 6


def test_tracks_are_drawn_by_their_probability():
    """The first one of 1,500 draws, against p^(1/T); what is left out never."""
    from sasrec_utils.baselines import Markov
    from sasrec_utils.sequences import Sequences
    from sasrec_utils.serving.scoring import Question, answer_together

    train = Sequences.from_lists([[1, 2]] * 6 + [[1, 3]] * 3 + [[1, 4]])
    columns = ("track_uri", "track_name", "artist_name", "album_name")
    tracks = pd.DataFrame({name: [f"{name} {i}" for i in range(1, 6)] for name in columns})
    toy = Recommender(Markov.fit(train, 5), tracks)
    p = toy.probabilities(toy.recommend(["track_uri 1"]))[2:] ** (1 / 0.7)
    questions = [Question(["track_uri 1"], 1, (), 0.7, seed) for seed in range(1_500)]
    first = np.array([scored.ids[0] for scored in answer_together(toy, questions)])
    found = np.bincount(first, minlength=6)[2:] / len(first)
    assert np.allclose(found, p / p.sum(), atol=0.04) and (first > 1).all()


def test_tracks_are_found_by_words_and_by_link(client, recommender, uris):
    names = recommender.names
    word = names.label(1).split(" - ")[1].split()[0]
    found = client.ask(f"/tracks?q={word}&k=4")[1]
    assert [track["track_uri"] for track in found["tracks"]] == [uris[i - 1] for i in names.search(word, 4)]
    assert found["nearest"] == []
    assert client.ask(f"/tracks?q={uris[6]}")[1]["tracks"][0]["track_uri"] == uris[6]
    typo = names.label(1).replace(" ", "%20") + "zq"
    near = client.ask(f"/tracks?q={typo}")[1]
    assert near["tracks"] == [] and uris[0] in [track["track_uri"] for track in near["nearest"]]


def test_a_playlist_of_the_data_is_continued(client, data_dir, recommender):
    [prepared] = (data_dir / "prepared").glob("[0-9a-f]*")
    catalogue = pd.read_parquet(prepared / "tracks.parquet")["track_uri"]
    playlists = load_sequences(prepared)
    for pid in (0, 17, 299):
        status, answer = client.ask(f"/playlists/{pid}/recommendations?k=7")
        tracks = [uri for uri in catalogue[playlists[pid] - 1] if recommender.names.find(uri)]
        assert status == 200 and answer["history"] == tracks
        agree(answer, recommender.recommend(tracks, 7))
    status, answer = client.ask("/playlists/300/recommendations")
    assert status == 404 and answer["type"] == "not_found" and "300" in answer["message"]


def test_a_pasted_playlist_is_read_as_the_picker_reads_it(client, recommender, uris):
    label = recommender.names.label(5)
    text = f"1. {recommender.names.label(3)}\nhttps://open.spotify.com/track/{uris[8].split(':')[-1]}\n{label[:-1]}zz\n"
    status, read = client.ask("/playlists", {"text": text})
    expected = recommender.read_playlist(text)
    assert status == 200 and [track["track_uri"] for track in read["tracks"]] == [uris[i - 1] for i in expected.ids]
    assert read["written"] == 3 and len(expected.ids) == 2
    assert [one["text"] for one in read["missing"]] == [f"{label[:-1]}zz"]
    assert uris[4] in [track["track_uri"] for track in read["missing"][0]["suggestions"]]


def test_a_text_that_names_a_file_of_the_server_is_only_a_text(client, tmp_path, uris):
    secret = tmp_path / "mine.csv"
    secret.write_text("Track URI\n" + uris[0])
    status, read = client.ask("/playlists", {"text": str(secret)})
    assert status == 200 and read["tracks"] == [] and read["written"] == 1


def test_what_is_loaded(client, data_dir, recommender):
    status, card = client.ask("/model")
    assert not card["reads_titles"] and not card["second_stage"]
    assert status == 200 and card["name"] == "default" and card["tracks"] == len(recommender)
    assert card["playlists"] == 300 and card["training"]["epochs"] == 1 and card["metrics"] is None
    assert client.ask("/health") == (200, {"status": "ok", "model": card["model"]})


def test_what_the_readme_tells_to_ask_is_answered(server):
    """As it stands there, but for the port."""
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    asked = re.findall(r"^curl .*$", readme, re.MULTILINE)
    assert asked
    for command in asked:
        told = shlex.split(command.replace("http://127.0.0.1:8000", server.url))
        if shutil.which(told[0]) is None:
            pytest.skip("curl is not installed")
        answer = json.loads(subprocess.run(told, capture_output=True, check=True, timeout=30).stdout)
        assert len(answer["recommendations"]) == 3 and answer["unknown"] == [] and answer["history"]


def test_the_schema_has_examples_that_work(server):
    schema = server.ask("/openapi.json")
    for path, methods in schema["paths"].items():
        for method, told in methods.items():
            assert told["summary"] and told["description"].endswith("."), path
            assert all("model" not in answer or answer["description"] for answer in told["responses"].values())
            if method == "post":
                name = told["requestBody"]["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
                for example in schema["components"]["schemas"][name]["examples"]:
                    assert "type" not in server.ask(path, example), path


# What it refuses


DEEP = b"[" * 200_000
REFUSED = [
    (b'{"tracks": [', 422), (b"", 422), (DEEP, 422), (b'{"tracks":' + DEEP, 422), (b"\xff\xfe{}", 422),
    (b'{"tracks": ["\\ud800"]}', 422), (b'{"tracks": [], "temperature": NaN}', 422),
    (b'{"tracks": [], "temperature": 1e999}', 422), (b'{"tracks": [], "k": ' + b"9" * 5_000 + b"}", 422),
    (b'{"tracks": [], "seed": ' + b"9" * 300 + b"}", 422), ({"tracks": "one"}, 422), ({"tracks": [1]}, 422),
    ({"tracks": [], "k": 0}, 422), ({"tracks": [], "k": 501}, 422), ({"tracks": [], "k": "5"}, 422),
    ({"tracks": ["x"] * 1_001}, 422), ({"tracks": ["x" * 301]}, 422), ({"tracks": [], "sed": 3}, 422),
    ({"tracks": [], "temperature": -1}, 422), ([], 422), (b" " * 2_000_001, 413),
]  # fmt: skip


@pytest.mark.parametrize(("body", "status"), REFUSED)
def test_a_mistake_is_told_in_one_sentence(server, data_dir, body, status):
    found, answer = Client(server.url).ask("/recommendations", body)
    assert found == status and answer["type"] in ("invalid_request", "too_large")
    assert answer["message"] and len(answer["message"]) < 200 and "\n" not in answer["message"]
    assert str(data_dir) not in json.dumps(answer) and "sasrec_utils" not in json.dumps(answer)


def test_other_mistakes(client, uris):
    one = {"tracks": []}
    assert client.ask("/recommendations/batch", {"requests": [one] * 65})[0] == 422
    assert client.ask("/recommendations/batch", {"requests": []})[0] == 422
    status, answer = client.ask("/recommendations/batch", {"requests": [one, {"tracks": [], "k": -1}]})
    assert status == 422 and answer["where"] == ["body", "requests", 1, "k"]
    assert client.ask("/playlists", {"text": " "})[1]["type"] == "no_playlist"
    assert client.ask("/playlists", {"text": "a\0b"})[0] == 422
    for text, word in (("x\n" * 1_001, "1,001 tracks"), ("x\n" + "y" * 1_001, "line 2")):
        status, answer = client.ask("/playlists", {"text": text})
        assert status == 422 and word in answer["message"]
    assert client.ask("/playlists/x/recommendations")[0] == 422
    assert client.ask("/playlists/99999999999999999999999/recommendations")[0] == 422
    assert client.ask("/nothing") == (404, {"type": "not_found", "message": "There is nothing here."})
    assert client.ask("/recommendations")[0] == 405
    assert client.ask("/tracks?q=" + "x" * 301)[0] == 422


def test_a_body_without_a_length_is_bounded_too(server):
    client = Client(server.url)

    def endless():
        while True:
            yield b" " * 65_536

    try:
        client.connection.request("POST", "/recommendations", endless(), {"content-type": "application/json"})
    except OSError:  # the server has closed the connection: what it said first can still be read, or not
        return
    assert client.connection.getresponse().status == 413


def test_nobody_waits_long_for_the_longest_request(server, client, uris):
    """Names that are made to be slow, as many as a request takes, and suggestions for none of them."""
    nasty = [" - ".join(["a"] * 75)[:300] for _ in range(1_000)]
    began = time.perf_counter()
    thread = threading.Thread(target=Client(server.url).ask, args=("/recommendations", {"tracks": nasty}))
    thread.start()
    waited = []
    while thread.is_alive():
        start = time.perf_counter()
        assert client.ask("/recommendations", {"tracks": uris[:3]})[0] == 200
        waited.append(time.perf_counter() - start)
    thread.join()
    assert time.perf_counter() - began < 20 and max(waited) < 5
    for piece in ("(feat ", " - ", "(", "a (with b ", '"', ","):
        lines = "\n".join([(piece * 1_000)[:999]] * 290)
        began = time.perf_counter()
        assert client.ask("/playlists", {"text": lines})[0] in (200, 422)
        assert time.perf_counter() - began < 10, piece


def test_an_open_address_needs_a_token(data_dir, monkeypatch):
    from sasrec_utils.checkpoints import CheckpointError

    for named, token, word in (
        ({"host": "0.0.0.0"}, "", "SASREC_TOKEN"), ({"host": "::"}, "", "SASREC_TOKEN"),
        ({"host": "0.0.0.0"}, "short", "16"), ({"host": "0.0.0.0"}, "sixteen letters and blanks", "blanks"),
        ({"name": "none"}, "", "config.json"),
    ):  # fmt: skip
        monkeypatch.setenv("SASREC_TOKEN", token)
        with pytest.raises(CheckpointError if word == "config.json" else ValueError, match=word):
            serving.serve(data_dir, port=0, **named)
    from sasrec_utils.serving.running import is_loopback

    assert all(map(is_loopback, ("127.0.0.1", "127.3.2.1", "localhost", "::1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.0.1", "no.such.host.invalid")))


def test_a_port_in_use_is_told(data_dir, server):
    with pytest.raises(OSError, match="cannot be used"):
        serving.serve(data_dir, port=int(server.url.rsplit(":", 1)[1]))


@contextlib.contextmanager
def in_process(data_dir, name: str = "default"):
    """An application without a server around it, to be looked into and asked."""
    import asyncio

    import httpx

    served = serving.Served(data_dir, name)
    app = serving.create_app(served)

    def ask(method: str, path: str, body=None):
        async def one() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
                return await client.request(method, path, json=body)

        return asyncio.run(one())

    yield served, ask
    served.thread.shutdown()


def test_what_nobody_foresaw_is_a_number_outside_and_a_trace_inside(data_dir, capsys, monkeypatch):
    with in_process(data_dir) as (served, ask):

        def broken(*_, **__):
            raise RuntimeError(f"a secret of {data_dir}")

        monkeypatch.setattr(served.now.recommender, "recommend_batch", broken)
        answer = ask("POST", "/recommendations", {"tracks": []})
    assert answer.status_code == 500 and answer.json()["type"] == "internal" and "secret" not in answer.text
    assert answer.headers["x-request-id"] in answer.json()["message"]
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert "a secret of" in lines[-2]["trace"] and lines[-2]["id"] == lines[-1]["id"] and lines[-1]["status"] == 500

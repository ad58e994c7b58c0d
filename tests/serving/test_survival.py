"""What a server survives: many clients at once, being killed, another model in its place, an end while it is asked."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from calling import Client, agree, at_once

from sasrec_utils.recommender import Recommender

serving = pytest.importorskip("sasrec_utils.serving", reason="the extra `serve` is not installed")
running_server = serving.running_server
TOKEN = "a-token-of-this-test"


def load(server, count: int, seconds: float, expected: dict[str, dict], asks: list[dict]) -> int:
    """Requests that `count` clients got answered, each right for the model that it says it comes from."""
    clients = [Client(server.url) for _ in range(count)]
    turn = [0] * count

    def work(i: int) -> int:
        turn[i] += 1
        n = (i * 7 + turn[i]) % len(asks)
        status, answer = clients[i].ask("/recommendations", asks[n])
        assert status == 200, answer
        agree(answer, expected[answer["model"]][n])
        assert answer["history"] == asks[n]["tracks"]
        return 1

    done = at_once(count, work, seconds)
    assert min(done) > 0
    return sum(done)


def answers(folder: Path, asks: list[dict]) -> dict[int, object]:
    loaded = Recommender.load(folder)
    return {n: loaded.recommend(ask["tracks"], ask["k"]) for n, ask in enumerate(asks)}


def test_parallel_clients_lose_nothing_and_mix_nothing_up(server, data_dir, asks):
    expected = {server.ask("/health")["model"]: answers(data_dir / "models" / "default", asks)}
    before = server.log.read_text().count('"request"')
    done = load(server, 32, 3, expected, asks)
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    requests = [line for line in lines if line["event"] == "request"][before:]
    assert len(requests) == done  # one line each
    assert {line["status"] for line in requests} == {200} and len({line["id"] for line in requests}) == done
    assert all({"time", "client", "method", "path", "bytes", "ms"} <= line.keys() for line in requests)


def test_what_arrives_together_is_scored_together(recommender, uris):
    from sasrec_utils.serving.scoring import Batcher, Question

    class Counting:
        scorer, probabilities = recommender.scorer, staticmethod(recommender.probabilities)
        calls: list[int] = []  # noqa: RUF012

        def recommend_batch(self, playlists, *more, **named):
            if any(len(playlist) == 13 for playlist in playlists):
                raise ValueError("unlucky")
            self.calls.append(len(playlists))
            return recommender.recommend_batch(playlists, *more, **named)

    async def many(thread):
        batcher = Batcher(Counting(), thread)
        questions = [Question(uris[i : i + 1 + i % 5], 5) for i in range(100)]
        together = await asyncio.gather(*(batcher.ask([question]) for question in questions))
        calls = list(Counting.calls)
        unlucky = await asyncio.gather(
            *(batcher.ask([Question(uris[:n], 5)]) for n in (12, 13, 14)), return_exceptions=True
        )
        return questions, together, calls, unlucky

    with ThreadPoolExecutor(1) as thread:
        questions, together, calls, unlucky = asyncio.run(many(thread))
    assert sum(calls) == 100 and len(calls) <= 3
    for question, [answer] in zip(questions, together, strict=True):
        assert answer.ids == recommender.recommend(question.tracks, 5).table["track_id"].tolist()
    assert isinstance(unlucky[1], ValueError) and len(unlucky[0][0].ids) == len(unlucky[2][0].ids) == 5


def test_a_model_is_replaced_without_dropping_a_request(copy, asks):
    models = copy / "models"
    with running_server(copy) as server:
        expected = {server.ask("/health")["model"]: answers(models / "default", asks)}
        new = answers(models / "other", asks)
        for name in ("model.safetensors", "config.json"):
            shutil.copy(models / "other" / name, models / "default" / name)

        class Versions(dict):
            def __missing__(self, version):
                return new

        def replace():
            time.sleep(0.7)
            server.process.send_signal(signal.SIGHUP)

        thread = threading.Thread(target=replace)
        thread.start()
        load(server, 8, 2, Versions(expected), asks)
        thread.join()
        [old] = expected
        now = server.ask("/health")["model"]
        assert now != old
        agree(server.ask("/recommendations", asks[5]), new[5])

        # one that is damaged does not take the place of one that works; the log says what was wrong
        (models / "default" / "config.json").write_text("{}")
        server.process.send_signal(signal.SIGHUP)
        for _ in range(100):
            if "not reloaded" in server.log.read_text():
                break
            time.sleep(0.1)
        assert "config.json" in server.log.read_text().split("not reloaded")[1]
        assert server.ask("/health")["model"] == now
        agree(server.ask("/recommendations", asks[5]), new[5])


def wants_its_token(server) -> None:
    asked = {"tracks": []}
    for headers in ({}, {"authorization": f"Bearer {TOKEN}x"}, {"authorization": f"Basic {TOKEN}"},
                    {"authorization": "Bearer ä".encode().decode("latin-1")}):  # fmt: skip
        status, answer = Client(server.url).ask("/recommendations", asked, **headers)
        assert status == 401 and answer["type"] == "unauthorized" and TOKEN not in answer["message"]
    assert Client(server.url).ask("/model")[0] == 401 and Client(server.url).ask("/nothing")[0] == 401
    assert Client(server.url).ask("/health")[0] == 200
    assert Client(server.url, TOKEN).ask("/recommendations", asked)[0] == 200
    assert "security" in server.ask("/openapi.json")["paths"]["/recommendations"]["post"]


def stops_when_all_are_answered(server, asks) -> None:
    before, got = server.log.read_text().count('"request"'), []

    def ask(n: int) -> None:
        got.append(Client(server.url, TOKEN).ask("/recommendations/batch", {"requests": asks[n : n + 60]})[0])

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    while server.log.read_text().count('"request"') < before + 2:
        time.sleep(0.002)
    assert server.stop() == 0
    for thread in threads:
        thread.join()
    assert got == [200] * 8
    assert json.loads(server.log.read_text().splitlines()[-1])["event"] == "stopped"


def test_with_a_token_killed_and_started_again_it_answers_the_same_and_stops_cleanly(data_dir, asks):
    def some(server) -> list:
        temperatures = [ask | {"temperature": i % 2, "seed": i} for i, ask in enumerate(asks[:20])]
        return [server.ask("/recommendations", ask) for ask in temperatures]

    with running_server(data_dir, token=TOKEN) as server:
        wants_its_token(server)
        first, port = some(server), int(server.url.rsplit(":", 1)[1])
        server.process.kill()
        server.process.wait()
    with running_server(data_dir, port=port, token=TOKEN) as server:
        assert some(server) == first and "recommendations" in first[0]
        stops_when_all_are_answered(server, asks)


def test_a_fuzz_of_the_schema_finds_no_server_error(server, tmp_path):
    pytest.importorskip("schemathesis")
    # Too long is refused by its bytes before anybody counts its letters.
    (tmp_path / "schemathesis.toml").write_text(
        "[checks.negative_data_rejection]\nexpected-statuses = [401, 404, 413, 422]\n"
    )
    # One worker: with two, CPython 3.11.7 trips over parsing Python in two threads.
    ended = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "--no-color", "run", f"{server.url}/openapi.json",
         "--checks", "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
         "unsupported_method,negative_data_rejection", "--phases", "examples,coverage,fuzzing", "--max-examples", "40", "--max-time", "12",
         "--seed", "1", "--suppress-health-check", "all"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout[-5_000:] + ended.stderr[-2_000:]
    assert re.search(r"[1-9]\d* generated", ended.stdout), ended.stdout

"""What a server takes for one request and how many it answers in a second: `sasrec serve`, asked over loopback.

    python benchmarks/serving.py [--tracks 34000] [--clients 32] [--seconds 30] [--shape best]

An untrained model of the given size is as fast as a trained one. Histories have 50 tracks, given as URIs; every answer
has ten named tracks with their probabilities. The clients run on the same cores as the server. While many ask, each
answer is compared with what the server said when nobody else asked: nothing may be lost or mixed up.
"""

from __future__ import annotations

import argparse
import http.client
import json
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pandas as pd

from sasrec_utils.checkpoints import save
from sasrec_utils.model import SASRec, SASRecConfig
from sasrec_utils.serving import Running, running_server

HISTORIES = 200  # different ones, asked again and again


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tracks", type=int, default=34_000)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--shape", choices=("paper", "best"), help="only this one")
    args = parser.parse_args()
    n = args.tracks
    shapes = {
        "paper": SASRecConfig(n, dim=64, heads=2, max_len=50),
        "best": SASRecConfig(
            n, dim=128, heads=4, max_len=100, positions="relative", tied=False, n_artists=n // 8, n_albums=n // 8
        ),
    }
    if args.shape:
        shapes = {args.shape: shapes[args.shape]}
    with tempfile.TemporaryDirectory() as folder:
        for name, shape in shapes.items():
            _make(Path(folder) / "models" / name, shape)
        print("| shape | asked | p50 | p95 | requests a second |\n|---|---|---|---|---|")
        for name in shapes:
            with running_server(folder, name) as server:
                _measure(server, name, args)


def _make(folder: Path, shape: SASRecConfig) -> None:
    """An untrained model whose tracks have names of a usual length."""
    rng, n = np.random.default_rng(0), shape.n_items
    words = np.array([f"{a}{b}" for a in "bdfklmnprst" for b in ("ala", "eri", "ono", "ush", "yne", "ikka")])
    columns = {"track_uri": [f"spotify:track:{i:022d}" for i in range(n)]}
    for column in ("track_name", "artist_name", "album_name"):
        columns[column] = [" ".join(row) for row in words[rng.integers(0, len(words), (n, 3))]]
    feature = np.append(0, rng.integers(1, n // 8, n))
    save(folder, SASRec(shape, feature, feature))
    pd.DataFrame(columns).to_parquet(folder / "tracks.parquet")


def _measure(server: Running, name: str, args) -> None:
    rng = np.random.default_rng(1)
    asks = [{"tracks": [f"spotify:track:{i:022d}" for i in rng.integers(0, args.tracks, 50)]} for _ in range(HISTORIES)]
    alone = _Client(server.url)
    expected = [_tracks(alone.ask("/recommendations", ask)) for ask in asks]
    seconds = [_timed(alone, "/recommendations", asks[i % HISTORIES]) for i in range(args.requests)]
    _print(name, "one after the other", seconds, 1 / np.mean(seconds))
    for size in (16, 64):
        several = [{"requests": asks[i : i + size]} for i in range(0, HISTORIES - size, 8)]
        seconds = [_timed(alone, "/recommendations/batch", body) for body in several]
        _print(name, f"{size} in one request", seconds, size / np.mean(seconds))
    seconds, wrong = _crowd(server, asks, expected, args.clients, args.seconds)
    _print(name, f"{args.clients} clients for {args.seconds:g} s, {wrong} wrong", seconds, len(seconds) / args.seconds)


def _crowd(server: Running, asks: list, expected: list, clients: int, seconds: float) -> tuple[list[float], int]:
    """Seconds of each request of many clients at once, and how many answers were not what they should be."""
    end, taken, wrong = time.monotonic() + seconds, [], []

    def loop(i: int) -> None:
        client, rng = _Client(server.url), np.random.default_rng(i)
        while time.monotonic() < end:
            n = int(rng.integers(len(asks)))
            began = time.perf_counter()
            try:
                answer = _tracks(client.ask("/recommendations", asks[n]))
            except Exception as error:
                wrong.append(repr(error))
                client = _Client(server.url)
                continue
            taken.append(time.perf_counter() - began)
            if not _same(answer, expected[n]):
                wrong.append((answer, expected[n]))

    threads = [threading.Thread(target=loop, args=(i,)) for i in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return taken, len(wrong)


def _same(answer: list, expected: list) -> bool:
    """Equal but for the last digits of the scores, which turn around what is nearly equal."""
    one, other = dict(answer), dict(expected)
    near = np.allclose([s for _, s in answer], [s for _, s in expected], rtol=1e-4, atol=1e-4)
    return near and len(one.keys() & other.keys()) >= len(expected) - 1


def _tracks(answer: dict) -> list[tuple[str, float]]:
    return [(row["track_uri"], row["score"]) for row in answer["recommendations"]]


def _timed(client: _Client, path: str, body: dict) -> float:
    began = time.perf_counter()
    client.ask(path, body)
    return time.perf_counter() - began


def _print(name: str, how: str, seconds: list[float], rate: float) -> None:
    p50, p95 = np.percentile(seconds, [50, 95]) * 1000
    print(f"| {name} | {how} | {p50:.1f} ms | {p95:.1f} ms | {rate:,.0f} |", flush=True)


class _Client:
    """One connection that is kept."""

    def __init__(self, url: str):
        self.connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)

    def ask(self, path: str, body: dict) -> dict:
        self.connection.request("POST", path, json.dumps(body).encode(), {"content-type": "application/json"})
        answer = self.connection.getresponse()
        said = answer.read()
        if answer.status != 200:
            raise RuntimeError(said.decode())
        return json.loads(said)


if __name__ == "__main__":
    main()

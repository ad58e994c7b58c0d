"""Clients: one that keeps its connection, and many of them at once."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import numpy as np
import pytest


class Client:
    """A connection that is kept from request to request, as a browser does."""

    def __init__(self, url: str, token: str | None = None):
        self.connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
        self.headers = {} if token is None else {"authorization": f"Bearer {token}"}

    def __del__(self) -> None:
        self.connection.close()

    def ask(self, path: str, body=None, **headers) -> tuple[int, dict]:
        """Status and JSON of a GET, or of a POST of `body` (bytes as they are, anything else as JSON)."""
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        headers = {"content-type": "application/json", **self.headers, **headers}
        self.connection.request("GET" if body is None else "POST", path, body, headers)
        answer = self.connection.getresponse()
        return answer.status, json.loads(answer.read())


def at_once(count: int, work: Callable[[int], int], seconds: float) -> list[int]:
    """What `work(i)` returned, in `count` threads that each call it again and again for some seconds: the sums.

    The first exception in any thread is raised here.
    """
    end, done, errors = time.monotonic() + seconds, [0] * count, []

    def loop(i: int) -> None:
        try:
            while time.monotonic() < end and not errors:
                done[i] += work(i)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=loop, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return done


def agree(answer: dict, expected) -> None:
    """An answer of the server says what the Recommender's does. Scores of other batches differ in the last digits."""
    rows = answer["recommendations"]
    assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
    scores = expected.table["score"].to_numpy()
    assert [row["score"] for row in rows] == pytest.approx(scores, rel=1e-4, abs=1e-4)
    uris = expected.table["track_uri"].tolist()
    if not np.any(-np.diff(scores) < 1e-3):  # nothing that rounding could turn around
        assert [row["track_uri"] for row in rows] == uris
    by_uri = expected.table.set_index("track_uri")
    for row in rows:
        if row["track_uri"] in by_uri.index:
            known = by_uri.loc[row["track_uri"]]
            assert row["track_name"] == known["track_name"] and row["artist_name"] == known["artist_name"]
    assert len({row["track_uri"] for row in rows} & set(uris)) >= len(uris) - 1

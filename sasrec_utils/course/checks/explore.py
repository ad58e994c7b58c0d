"""Checks of notebook 01: reading slices and finding what repeats in them."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable

from sasrec_utils.course.checks.trying import Violated, call, check, expect


@check('only "true" means true, whatever else the playlist says')
def shared_playlists(function: Callable[[list[dict]], int]) -> None:
    """Exercise 01.3, find the bug: count collaborative playlists; the file says "true" and "false", as strings."""
    expect(function, ([],), 0, "no playlist is no collaborative one")
    expect(function, ([{"collaborative": "false"}],), 0, 'the string "false" is not empty, so Python takes it for true')
    expect(function, ([{"collaborative": "true"}],), 1, 'the string "true" means true')
    expect(function, ([{}],), 0, "reduced copies have no such key")
    mixed = [{"collaborative": "true"}, {"collaborative": "false"}, {"collaborative": "true"}]
    expect(function, (mixed,), 2, "every playlist is looked at")


@check("slices come in the order of their numbers")
def slice_order(function: Callable[[list[str]], list[str]]) -> None:
    """Exercise 01.4: sort slice names by number."""
    a, b, c = "mpd.slice.0-999.json", "mpd.slice.2000-2999.json", "mpd.slice.10000-10999.json"
    expect(function, ([a],), [a], "one file stays")
    expect(function, ([b, a],), [a, b], "smaller numbers come first")
    expect(function, ([b, c],), [b, c], "numbers are compared as numbers: as text, 10000 would come before 2000")
    expect(function, ([c, b],), [b, c], "the order of the input does not matter")
    expect(function, ([c, a, b],), [a, b, c], "all files are kept")
    d = "mpd.slice.3000-3999.json"
    expect(function, ([d, b],), [b, d], "the number decides, not the length of the name: these two are equally long")


def bucket(uri: str, size: int) -> int:
    """A hash that is the same in every process: CRC32, folded to 0…size-1."""
    return zlib.crc32(uri.encode()) % size


@check("two different tracks with one id; nothing when there are none")
def collision(function: Callable[[list[str], int], tuple[str, str] | None]) -> None:
    """Exercise 01.5: find two different URIs that `bucket` gives the same id."""

    def verify(uris: list[str], size: int) -> None:
        found = call(function, list(uris), size)
        by_id: dict[int, set[str]] = {}
        for uri in uris:
            by_id.setdefault(bucket(uri, size), set()).add(uri)
        exists = next((sorted(group) for group in by_id.values() if len(group) > 1), None)
        shown = (
            f"{function.__name__}({uris!r}, {size})"
            if len(uris) <= 6
            else f"{function.__name__}({len(uris)} uris, {size})"
        )
        if found is None:
            if exists:
                raise Violated(
                    f"a collision that is there must be found: {shown} gives None, but {exists[0]!r} and {exists[1]!r} "
                    f"both get {bucket(exists[0], size)}"
                )
            return
        if not isinstance(found, tuple | list) or len(found) != 2:
            raise Violated(f"the answer is a pair of URIs or None: {shown} gives {found!r}")
        first, second = found
        if first == second:
            raise Violated(f"a track does not collide with itself: {shown} gives {found!r}")
        if first not in uris or second not in uris:
            raise Violated(f"both URIs must be among the given ones: {shown} gives {found!r}")
        if bucket(first, size) != bucket(second, size):
            raise Violated(
                f"both must have one id: {first!r} has {bucket(first, size)}, {second!r} has {bucket(second, size)}"
            )

    call(function, ["a", "b"], 1)  # a stub says so here
    verify(["a", "b"], 1)
    verify(["a"], 10)
    verify(["a", "a"], 10)
    apart = next([x, y] for x, y in itertools.combinations("abcdefgh", 2) if bucket(x, 10) != bucket(y, 10))
    verify(apart, 10)
    outer = next([x, y] for x, y in itertools.combinations("abcdefghijklmnop", 2) if bucket(x, 10) == bucket(y, 10))
    middle = next(x for x in "abcdefghijklmnop" if bucket(x, 10) != bucket(outer[0], 10))
    verify([outer[0], middle, outer[1]], 10)
    verify([f"spotify:track:{i}" for i in range(2_000)], 100_000)


@check("neighbours k apart are compared within each playlist, never across the border of two")
def same_artist(function: Callable[[list[list[str]], int], float]) -> None:
    """Exercise 01.1: share of tracks whose artist is that of the track k steps before, in the same playlist."""
    expect(function, ([["a", "a"]], 1), 1.0, "two tracks of one artist are one pair, and it matches")
    expect(function, ([["a", "b"]], 1), 0.0, "two tracks of different artists do not match")
    expect(function, ([["a", "b"], ["b", "a"]], 1), 0.0, "the end of a playlist is not followed by the next playlist")
    expect(function, ([["a", "b", "c", "a"]], 1), 0.0, "the end of a playlist is not followed by its start")
    expect(function, ([["a", "b", "a"]], 2), 1.0, "k = 2 compares each track with the one two before it")
    expect(function, ([["a", "a", "a"], ["a", "b"]], 1), 2 / 3, "every pair weighs the same, however long its playlist")
    expect(function, ([["a"], ["b", "b"]], 1), 1.0, "a playlist that is too short has no pairs")


@check("each track played once stands for a row that nothing before it announced")
def unseen_share(function: Callable[[list[int]], float]) -> None:
    """Exercise 01.2: Good and Turing's estimate of how often the next row names a track never seen, from plays."""
    expect(function, ([1],), 1.0, "if the only row was new, expect the next one to be new")
    expect(function, ([2],), 0.0, "where no track was played once, no new one is expected")
    expect(function, ([1, 1],), 1.0, "if all rows were new, expect the next one to be new")
    expect(function, ([1, 3],), 0.25, "it is a share of rows, not of tracks: 1 of 4 rows held a track played once")
    expect(function, ([1, 2, 2],), 0.2, "a track played twice announces nothing new")
    expect(function, ([5, 1, 1, 3],), 0.2, "the order of the tracks does not matter")

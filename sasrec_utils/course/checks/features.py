"""Checks of notebook 08: numbers put to one scale, runs of letters, a lift for newcomers, a feature of one's own."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from sasrec_utils.course.checks.trying import Violated, call, called, check, expect, number
from sasrec_utils.features import load_features


@check("0 is the mean of the known tracks, 1 a standard deviation more, and what is missing is 0 with a flag")
def standardise(function: Callable[[list[float], int], tuple[list[float], list[int]]]) -> None:
    """Exercise 08.1: numbers of all tracks (NaN = missing), how many come first and are known → numbers and flags."""
    nan = math.nan
    for values, known, wanted, rule in (
        ([2.0, 4.0], 2, ([-1.0, 1.0], [0, 0]), "0 is the mean, 1 a standard deviation (of all of them: divide by n)"),
        ([2.0, 4.0, 9.0], 2, ([-1.0, 1.0, 6.0], [0, 0, 0]), "only known tracks say what is usual"),
        ([2.0, nan, 4.0], 3, ([-1.0, 0.0, 1.0], [0, 1, 0]), "what is missing says nothing: number 0, flag 1"),
        ([2.0, 4.0, nan], 2, ([-1.0, 1.0, 0.0], [0, 0, 1]), "a track without a number may be a newcomer too"),
        ([0.0, 4.0], 2, ([-1.0, 1.0], [0, 0]), "0 is a number like others, and not missing"),
        ([3.0, 3.0], 2, ([0.0, 0.0], [0, 0]), "if all known tracks are alike, nothing is divided by 0"),
    ):
        expect(function, (values, known), wanted, rule)


@check("every run of n letters, ends included, in the order of the word")
def letter_runs(function: Callable[[str, int], list[str]]) -> None:
    """Exercise 08.2: a word and n → the runs of n letters in <word>."""
    for word, n, wanted, rule in (
        ("rain", 3, ["<ra", "rai", "ain", "in>"], "the word's ends count as letters < and >"),
        ("rain", 4, ["<rai", "rain", "ain>"], "runs of n letters, whatever n is"),
        ("go", 4, ["<go>"], "the last run ends with the word's end"),
        ("a", 4, [], "a word that is too short has no runs"),
    ):
        expect(function, (word, n), wanted, rule)


@check("with this lift the newcomers get their share")
def lift_for(function: Callable[[list[float], float], float]) -> None:
    """Exercise 08.3: log-odds of "a newcomer is next" for some playlists, and their share among the targets → lift."""
    for odds, share, rule in (
        ([0.0], 0.5, "log-odds of 0 are a probability of one half: nothing to lift"),
        ([-2.0], 0.5, "log-odds of -2 need a lift of 2 to become one half"),
        ([0.0, 0.0], 0.1, "where newcomers get too much, the lift is negative"),
        ([-4.0, 0.0, 1.0], 0.3, "the mean over playlists is that of probabilities, not of log-odds"),
        ([-9.0, 3.0], 0.02, "the lift may be large"),
    ):
        shown = f"{function.__name__}({odds}, {share})"
        lift = number(call(function, list(odds), share))
        got = float(np.mean([1 / (1 + math.exp(-max(-500.0, min(500.0, o + lift)))) for o in odds]))
        if abs(got - share) > 1e-3:
            raise Violated(f"{rule}: {shown} gives {lift:.3f}, and newcomers then get {got:.3f}, wanted {share}")


TRACKS = pd.DataFrame({
    "track_uri": [f"spotify:track:{i:022d}" for i in range(1, 9)],
    "track_name": ["Rain", "Rain (Live)", "Go feat. Ann", "", "Song for Bo", "夜", "Two Words", "A Very Long Name, 2"],
    "artist_name": ["Ann", "Ann", "Bo", "Bo", "Bo", "Cy", "Cy", "The Dees"],
    "album_name": ["One", "One Live", "Two", "Two", "Two", "Three", "Three", "Four"],
    "duration_ms": [200_000, 301_000, 150_000, -1, 180_500, 240_000, 99_000, 610_000],
    "plays": [9, 1, 4, 2, 2, 7, 1, 3],
})  # fmt: skip


@check("one row a track, something that differs from track to track, and nothing that tells of the future")
def own_feature(function: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Exercise 08.4: the table of tracks → a table of features with a column track_uri."""
    table = _table(function, TRACKS)
    others = [name for name in table.columns if name != "track_uri"]
    if not others:
        raise Violated("a feature is a column of its own: the table has none beside track_uri")
    for name in others:
        if table[name].astype(str).nunique() < 2:
            raise Violated(f"a feature differs from track to track: {name} is {table[name].iloc[0]!r} for all of them")
    again = _table(function, TRACKS.assign(plays=TRACKS["plays"].to_numpy()[::-1]))
    for name in others:
        if not table[name].astype(str).equals(again[name].astype(str)):
            raise Violated(
                f"plays count all playlists, those of test included, and a newcomer has none yet: {name} changes with "
                "them"
            )
    turned = _table(function, TRACKS.iloc[::-1].reset_index(drop=True))
    for name in others:
        if not table[name].astype(str).equals(turned[name].astype(str)):
            raise Violated(f"a feature belongs to its track: {name} changes with the order of the rows")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "own.csv"
        table.reset_index().to_csv(path, index=False)
        try:
            load_features(path, list(TRACKS["track_uri"]))
        except ValueError as error:
            reason = str(error).replace(str(path), path.name)
            raise Violated(f"load_features must be able to read it: {reason}") from None


def _table(function: Callable[[pd.DataFrame], pd.DataFrame], tracks: pd.DataFrame) -> pd.DataFrame:
    """What the learner's function makes of these tracks, by URI."""
    table = called(function, (tracks.copy(),), "it")
    if not isinstance(table, pd.DataFrame):
        raise Violated(f"it returns a DataFrame, not {type(table).__name__}")
    uris: Sequence[str] = list(table["track_uri"]) if "track_uri" in table else []
    if sorted(uris) != sorted(tracks["track_uri"]):
        counts = f"{len(tracks)} tracks went in, {len(uris)} came out"
        raise Violated(f"one row for each track, found by its track_uri: {counts}")
    return table.set_index("track_uri", drop=True).sort_index()

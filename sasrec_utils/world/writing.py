"""Writing made-up playlists as slices in the MPD's format, and finding their world again."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from sasrec_utils.mpd import MPDError
from sasrec_utils.world.audio import write_features
from sasrec_utils.world.dials import FEATURES, SIDECAR, SLICE, WorldConfig
from sasrec_utils.world.law import Playlists, World, log_normal
from sasrec_utils.world.names import mixed, titles

_DAY = 86_400  # seconds


def write_slices(
    world: World, directory: str | os.PathLike, playlists: int | None = None, progress: bool = False
) -> list[Path]:
    """Write made-up playlists as `mpd.slice.*.json` files in the MPD's format, 1,000 each; returns their paths.

    The same world gives the same bytes in every process. A file `made-up-world.txt` beside the slices names the
    world, so that `load_world` can rebuild it; in the slices themselves nothing but the invented names tells them
    from real ones. `features.csv`, the third kind of file, holds genre and sound of every track in the slices.
    `playlists` (default: the preset's number) is how many to write. Files get their names when all of them are
    complete. Raises MPDError if the folder holds slices already or cannot be written. Memory does not grow with the
    number of slices. Taught in notebook 01 §1.
    """
    n = world.config.playlists if playlists is None else playlists
    if n < 1:
        raise MPDError(f"cannot write {n} playlists: ask for at least one.")
    directory, parts = Path(directory), []
    about = json.dumps({"format": 1, "playlists": n, "config": asdict(world.config)}, indent=1) + "\n"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if next(directory.glob("*.json"), None) is not None:
            raise MPDError(f"{directory} holds slices already: name another folder, or empty this one first.")
        _part(directory / SIDECAR, parts).write_text(about, encoding="utf-8", newline="\n")  # first to get its name
        heard = np.zeros(world.n_tracks, dtype=bool)
        for index in _progress(range(-(-n // SLICE)), "slices", progress):
            drawn = world.draw_slice(index, min(SLICE, n - index * SLICE))
            path = directory / f"mpd.slice.{index * SLICE}-{index * SLICE + SLICE - 1}.json"
            _part(path, parts).write_text(slice_json(world, drawn, index), encoding="utf-8", newline="\n")
            heard[drawn.tracks] = True
        write_features(world, np.flatnonzero(heard), _part(directory / FEATURES, parts))
        return [part.replace(part.with_suffix("")) for part in parts][1:-1]
    except OSError as error:
        raise MPDError(
            f"{error.filename or directory}: cannot write the made-up slices ({error.strerror}); free space or name "
            "another folder."
        ) from error
    finally:
        for part in parts:
            part.unlink(missing_ok=True)


def load_world(directory: str | os.PathLike) -> World | None:
    """The world whose slices lie in `directory`, or None if they are not made up (no `made-up-world.txt` there)."""
    path = Path(directory) / SIDECAR
    if not path.exists():
        return None
    try:
        config = json.loads(path.read_text(encoding="utf-8"))["config"]
        tuples = {k: _tuples(v) for k, v in config.items()}
        return World(WorldConfig(**tuples))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MPDError(
            f"{path}: does not describe a made-up world ({error}); delete the folder and make the data again."
        ) from error


def sample(world: World, n: int = 20) -> pd.DataFrame:
    """The first `n` playlists (at most 1,000) of a world, to look at: title, the genre and the artists most heard.

    `n` rows; the last column is the playlist's first track.
    """
    drawn = world.draw_slice(0, n)
    rows = []
    for u, playlist in enumerate(json.loads(slice_json(world, drawn, 0))["playlists"]):
        genre = world.genre_of[world.artist[drawn.tracks[drawn.offsets[u] : drawn.offsets[u + 1]]]]
        artists = Counter(track["artist_name"] for track in playlist["tracks"])
        rows.append({
            "title": playlist["name"].strip(),
            "mostly": world.genre_names[np.bincount(genre).argmax()],
            "artists": " · ".join(name for name, _ in artists.most_common(3)),
            "begins with": playlist["tracks"][0]["track_name"],
        })  # fmt: skip
    return pd.DataFrame(rows)


def slice_json(world: World, drawn: Playlists, index: int) -> str:
    """The JSON text of one slice, keys in the MPD's order; compact, or four blanks a level if `config.indent`."""
    c = world.config
    rng = np.random.default_rng([c.seed, 2, index])  # of its own: what surrounds the tracks never changes the tracks
    n = len(drawn.mood)
    # everything that is said of a track is the same in every row: make its text once, the row adds its position
    unique, row_track = np.unique(drawn.tracks, return_inverse=True)
    duration = _durations(c.seed, world.twin[unique])
    artist, album = world.artist[unique], world.album[unique]
    columns = zip(
        world.names("artist", artist), world.uris("track", unique), world.uris("artist", artist),
        world.names("track", unique), world.uris("album", album), duration.tolist(), world.names("album", album),
        strict=True,
    )  # fmt: skip
    keys = ("artist_name", "track_uri", "artist_uri", "track_name", "album_uri", "duration_ms", "album_name")
    line, gap = ("\n" + " " * 20, "\n" + " " * 16) if c.indent else ("", "")
    comma = "," + line if c.indent else ", "
    about = [comma.join(f'"{k}": {json.dumps(v)}' for k, v in zip(keys, values, strict=True)) for values in columns]
    position = np.arange(len(drawn.tracks)) - np.repeat(drawn.offsets[:-1], np.diff(drawn.offsets))
    places = zip(position.tolist(), row_track.tolist(), strict=True)
    rows = [f'{gap}{{{line}"pos": {p}{comma}{about[x]}{gap}}}' for p, x in places]
    # around the tracks: the MPD's own statistics
    edits = log_normal(rng, 2.13, 1.30, 2, 2000, n)
    followers = _followers(rng, n)
    day = rng.integers(1_270_000_000 // _DAY, 1_509_500_000 // _DAY, n) * _DAY  # midnight, 2010 to 2017
    shared = rng.random(n) < 0.02
    described = rng.random(n) < 0.019
    names, descriptions = titles(world, drawn, rng)
    separator = "," if c.indent else ", "
    texts = []
    for u in range(n):
        low, high = drawn.offsets[u], drawn.offsets[u + 1]
        ids = drawn.tracks[low:high]
        head = {"name": names[u], "collaborative": "true" if shared[u] else "false", "pid": int(drawn.pids[u])}
        if described[u]:
            head["description"] = descriptions[u]
        head |= {
            "modified_at": int(day[u]),
            "num_tracks": len(ids),
            "num_albums": len(np.unique(world.album[ids])),
            "num_followers": int(followers[u]),
        }
        tail = {
            "num_edits": int(edits[u]),
            "duration_ms": int(np.maximum(duration[row_track[low:high]], 0).sum()),
            "num_artists": len(np.unique(world.artist[ids])),
        }
        texts.append(_playlist_json(head, separator.join(rows[low:high]), tail, c.indent))
    first = index * SLICE
    info = {"generated_on": "2017-12-03 08:41:42.057563", "slice": f"{first}-{first + SLICE - 1}", "version": "v1"}
    if c.indent:
        about_slice = json.dumps({"info": info}, indent=4)[:-2]
        return about_slice + ',\n    "playlists": [\n' + ",\n".join(texts) + "\n    ]\n}"
    return f'{{"info": {json.dumps(info)}, "playlists": [{", ".join(texts)}]}}'


def _playlist_json(head: dict, tracks: str, tail: dict, indent: bool) -> str:
    if not indent:
        return f'{json.dumps(head)[:-1]}, "tracks": [{tracks}], {json.dumps(tail)[1:]}'
    pad = "\n" + " " * 12
    pairs = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in head.items()]
    after = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in tail.items()]
    return " " * 8 + "{" + pad + ("," + pad).join([*pairs, f'"tracks": [{tracks}{pad}]', *after]) + "\n" + " " * 8 + "}"


def _followers(rng: np.random.Generator, n: int) -> np.ndarray:
    """1: 75.4 %, 2: 15.0 %, 3: 4.7 %, 4: 2.0 %, and a tail with slope -3 from 5 on."""
    tail = np.arange(5, 10_000, dtype=float) ** -3
    p = np.concatenate([[0.754, 0.150, 0.047, 0.020], 0.029 * tail / tail.sum()])
    return 1 + rng.choice(len(p), p=p / p.sum(), size=n)


def _durations(seed: int, tracks: np.ndarray) -> np.ndarray:
    """Track lengths in ms, int [n], mean 3.9 minutes; one in 5,000 is -1, as in the MPD."""
    u = [(mixed(seed, 20 + i, tracks) >> np.uint64(11)) / 2.0**53 for i in range(3)]
    normal = np.sqrt(-2 * np.log(1 - u[0])) * np.cos(2 * np.pi * u[1])
    return np.where(u[2] < 1 / 5000, -1, np.round(234_000 * np.exp(0.28 * normal - 0.28**2 / 2))).astype(np.int64)


def _tuples(value):
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def _part(path: Path, parts: list[Path]) -> Path:
    """`path`.part, to be renamed when all are complete; added to `parts`."""
    parts.append(path.with_name(path.name + ".part"))
    return parts[-1]


def _progress(iterable, unit: str, on: bool):
    from tqdm import tqdm

    return tqdm(iterable, unit=unit, desc="made-up playlists", disable=not on)

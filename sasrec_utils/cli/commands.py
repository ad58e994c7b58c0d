"""What the commands do: each takes the parsed options and returns its exit code."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from sasrec_utils.baselines import blend_of_all, fit_baselines
from sasrec_utils.checkpoints import CheckpointError, load
from sasrec_utils.cli.output import BLEND, METRICS, print_json, print_reports, records, say
from sasrec_utils.evaluation import Report, evaluate, keep_reports
from sasrec_utils.features import load_titles, track_features, with_titles
from sasrec_utils.model import SASRec
from sasrec_utils.mpd import MPDError, has_slices, prepare
from sasrec_utils.playlist_text import Entry, read_entries, recognise
from sasrec_utils.recommender import Recommender, load_tracks, readable, train_recommender, unfinished
from sasrec_utils.reranking import has_reranker, train_reranker
from sasrec_utils.sequences import Dataset, leave_last_out, load_dataset
from sasrec_utils.track_names import TrackNames, plain, track_uri
from sasrec_utils.world import PRESETS, Oracle, World, load_world, sample, write_slices

__all__ = ["COMMANDS", "Places", "kept"]

NAMES = ["track_name", "artist_name", "album_name"]
DONE, UNKNOWN = 0, 1  # exit codes
# Validation playlists. Trees grown on 50 already put the made-up world's candidates in a better order, on LastFM 570
# questions were not enough to tell: below this number a run goes without them, unless it is told otherwise.
RERANKED_FROM = 300


@dataclass(frozen=True)
class Places:
    """Where things are under the data directory; `model` is the folder of the model that was named."""

    raw: Path
    prepared: Path
    model: Path

    @classmethod
    def of(cls, args: argparse.Namespace) -> Places:
        """The places that `--data-dir` and `--name` give."""
        root = Path(args.data_dir)
        return cls(root / "raw", root / "prepared", root / "models" / args.name)


# --- the commands -----------------------------------------------------------------------------------------------------


def _run(args: argparse.Namespace) -> int:
    """Data, tables, model, evaluation and recommendations, each step only where its result is missing."""
    places = Places.of(args)
    began = time.perf_counter()
    if not has_slices(places.raw):
        say(f"no slices in {places.raw}: making up playlists ({args.preset}). Put real MPD slices there to use those.")
        write_slices(World(PRESETS[args.preset]), places.raw, args.playlists, progress=True)
    prepared = prepare(places.raw, places.prepared, progress=True)
    data = _data(prepared, args.min_count, args.seed, bool(args.features), args.titles)
    playlists = len(data.split.train) + len(data.split.valid) + len(data.split.test)
    say(f"{playlists:,} playlists, {len(data.catalogue):,} tracks")
    say(f"{len(data.train):,} playlists to train on know {data.vocabulary.n_known:,} tracks")
    seconds = _train_model(args, places, prepared, data)
    model, about = load(places.model)
    rerank = len(data.valid) >= RERANKED_FROM if args.rerank is None else args.rerank
    reports = _judge(model, data, load_world(places.raw), places.model if rerank else None)
    keep_reports(places.model, about, reports)
    example = _example(data, Recommender.load(places.model, rerank=rerank), prepared, args.k)
    if args.json:
        columns = ["rank", "track_id", "track_uri", "track_name", "artist_name", "score"]
        print_json({
            "metrics": {r.name: {m: r.metrics[m]._asdict() for m in METRICS} for r in reports},
            "playlists": reports[0].playlists, "targets_kept": reports[0].targets_kept,
            "train_seconds": about.get("train_seconds", seconds), "playlist": example.name,
            "recommendations": records(example.answer.table[columns]),
        })  # fmt: skip
        return DONE
    print_reports(reports)
    _print_example(example)
    say(f"all done in {time.perf_counter() - began:.0f} s; the model is in {places.model}")
    return DONE


def _make_data(args: argparse.Namespace) -> int:
    """Write made-up playlists, and the genre and sound of their tracks beside them."""
    config = replace(PRESETS[args.preset], seed=args.seed)
    if args.indent is not None:
        config = replace(config, indent=args.indent)
    if args.show is not None:
        print(sample(World(config), args.show).to_string(index=False))
        return DONE
    paths = write_slices(World(config), args.out, args.playlists, progress=True)
    slices = "1 slice" if len(paths) == 1 else f"{len(paths)} slices"
    print(f"{slices} of the made-up world {args.preset!r} in {args.out}")
    return DONE


def _prepare(args: argparse.Namespace) -> int:
    """Slices to tables."""
    print(prepare(args.raw, args.out, csv=args.csv, processes=args.processes, progress=True))
    return DONE


def _train(args: argparse.Namespace) -> int:
    """Tables to a model."""
    places = Places.of(args)
    prepared = _prepared(places)
    data = _data(prepared, args.min_count, args.seed, bool(args.features), args.titles)
    seconds = _train_model(args, places, prepared, data)
    history = pd.read_csv(places.model / "history.csv")
    print(history.to_string(index=False, float_format="{:.5g}".format))
    print(f"\nmodel in {places.model}, {seconds:.0f} s")
    return DONE


def _evaluate(args: argparse.Namespace) -> int:
    """The model beside its baselines."""
    places = Places.of(args)
    prepared = _prepared(places)
    model, about = load(places.model)
    of = about.get("data")
    if not isinstance(of, dict) or of.get("prepared") != prepared.name or not {"min_count", "seed"} <= of.keys():
        raise CheckpointError(
            f"{places.model}: was not trained by `train` on the playlists in {prepared}; do that first."
        )
    if remark := unfinished(places.model, about):
        say(remark)
    data = _data(prepared, of["min_count"], of["seed"], model.config.n_new > 0, model.config.n_words > 0)
    rerank = has_reranker(places.model) if args.rerank is None else args.rerank
    reports = _judge(model, data, load_world(places.raw), places.model if rerank else None, args.protocol)
    if args.protocol == "full":  # the other one flatters: nobody should find it without its name
        keep_reports(places.model, about, reports)
    if args.json:
        print_json([report.row() for report in reports])
    else:
        print_reports(reports)
    return DONE


def _recommend(args: argparse.Namespace) -> int:
    """Tracks to the ten that should follow; code 1 if the model knows none of them."""
    if not args.tracks and args.playlist is None and not args.title:
        raise ValueError("name at least one track, or give --playlist FILE; `sasrec tracks WORD` finds names.")
    recommender = Recommender.load(Places.of(args).model, rerank=args.rerank is not False)
    if args.title and not recommender.reads_titles:
        raise ValueError(f"{Places.of(args).model}: the model does not read titles; train one with --titles.")
    typed = [Entry(0, text, track_uri(text)) for text in args.tracks]
    read = recognise(_listed(args.playlist) + typed, recommender.names)
    if args.playlist is not None or read.missing:
        say(str(read))
    uris = recommender.table(read.ids)["track_uri"]
    by_title = bool(args.title) and not read.entries  # nothing but a title was asked for
    table = recommender.recommend(uris, args.k, title=args.title) if read.ids or by_title else None
    if args.json:
        print_json({
            "recommendations": records(table.table) if table else [],
            "recognised": len(read.ids), "unknown": [one.entry.text for one in read.missing],
            "suggestions": {one.entry.text: records(recommender.table(one.suggestions)) for one in read.missing},
            "note": table.note if table else "The model knows none of these tracks.",
        })  # fmt: skip
    elif table:
        print(table)
    if table is None:
        say("sasrec: the model knows none of these tracks; `sasrec tracks WORD` finds the names that it knows.")
        return UNKNOWN
    return DONE


def _tracks(args: argparse.Namespace) -> int:
    """Names of tracks that the model knows; code 1 if none holds what was asked for."""
    names, query = TrackNames(load_tracks(Places.of(args).model)), " ".join(args.query)
    found = [names.find(query)] if track_uri(query) and names.find(query) else names.search(query, args.k)
    nearest = [] if found else names.nearest(query, args.k)
    if args.json:
        print_json({"tracks": records(names.table(found)), "nearest": records(names.table(nearest))})
    elif found:
        print(readable(names.table(found))[[*NAMES, "track_uri"]].to_string(index=False))
    if found:
        return DONE
    labels = "".join(f"\n  {names.label(i)}" for i in nearest)
    say(f"sasrec: no known track is called {query!r}" + (f"; the nearest:{labels}" if nearest else "."))
    return UNKNOWN


def _serve(args: argparse.Namespace) -> int:
    """The model behind HTTP, until it is told to stop."""
    try:
        from sasrec_utils.serving import serve  # with FastAPI and uvicorn, which only this command needs
    except ModuleNotFoundError as error:
        raise ValueError(f"{error.name} is not installed: python -m pip install --editable '.[serve]'.") from error
    serve(args.data_dir, args.name, args.host, args.port, rerank=args.rerank is not False)
    return DONE


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "run": _run,
    "make-data": _make_data,
    "prepare": _prepare,
    "train": _train,
    "evaluate": _evaluate,
    "recommend": _recommend,
    "tracks": _tracks,
    "serve": _serve,
}


def kept(args: argparse.Namespace) -> str:
    """What to say after Ctrl-C: what of the work is kept, and what the same command does next."""
    if args.command in ("run", "train"):
        directory = Places.of(args).model
        try:
            about = json.loads((directory / "config.json").read_text(encoding="utf-8"))
            if "train_seconds" not in about and "best_epoch" in about:
                epochs = len(pd.read_csv(directory / "history.csv"))
                kept = "1 epoch of training is kept" if epochs == 1 else f"{epochs} epochs of training are kept"
                way = "without --again the same command" if args.again else "the same command"
                return f"{kept}, {way} goes on from there."
        except (OSError, ValueError, TypeError):
            pass  # no model, or none that could be gone on with
    return "the step that was under way has left nothing and begins anew next time; those before it are done."


# --- their steps ------------------------------------------------------------------------------------------------------


def _train_model(args: argparse.Namespace, places: Places, prepared: Path, data: Dataset) -> float:
    """The seconds that training the named model took; trained only if it is not there with these settings."""
    options = ("epochs", "batch_size", "lr", "loss", "negatives", "accelerator", "precision")
    changes = {name: getattr(args, name) for name in options if getattr(args, name) is not None}
    features = None
    if args.features:
        features = track_features(args.features, data)
        for note in features.notes:
            say(f"{args.features}: {note}")
    seconds, now = train_recommender(
        places.model,
        data,
        prepared.name,
        args.shape,
        min_count=args.min_count,
        seed=args.seed,
        again=args.again,
        replace_others=args.again,
        features=features,
        **changes,
    )
    if not now:
        say(f"a model with these settings is in {places.model}: not trained again (--again does)")
    return seconds


def _judge(
    model: SASRec, data: Dataset, world: World | None, second: Path | None, protocol: str = "full"
) -> list[Report]:
    """Reports on the test playlists: the baselines, SASRec, both together, with `second` (the model's folder) the
    second stage and, for made-up data, the oracle. What is tuned or trained here is so on the validation playlists."""
    histories, targets = leave_last_out(data.valid)
    say("fitting the baselines, their settings chosen on the validation playlists")
    baselines = fit_baselines(data.train, data.vocabulary.n_items, histories, targets)
    both, _ = blend_of_all(model, baselines, histories, targets, name=BLEND)
    scorers = [*baselines, model, both]
    if second is not None:
        say("training the second stage on the validation playlists, unless it is there")
        try:
            scorers.append(train_reranker(second, model, data, baselines))
        except ValueError as error:
            say(f"going on without a second stage: {error}")
    if world is not None:
        uris = data.catalogue.tracks["track_uri"].iloc[data.vocabulary.to_catalogue[1:] - 1].tolist()
        scorers.append(Oracle.from_uris(world, uris, data.vocabulary.n_items))
    histories, targets = leave_last_out(data.test)
    return [evaluate(scorer, histories, targets, protocol=protocol) for scorer in scorers]


@dataclass(frozen=True)
class _Example:
    """A test playlist, what the model would play next and what came next."""

    name: str | None
    newest: pd.DataFrame
    answer: object
    unknown: list[str]
    truth: str


def _example(data: Dataset, recommender: Recommender, prepared: Path, k: int) -> _Example:
    """The first test playlist whose last track the model knows, its newest tracks and what should follow them."""
    histories, targets = leave_last_out(data.test)
    fits = (targets > 0) & (targets <= data.vocabulary.n_items) & (histories.lengths >= 5)
    u = int(np.argmax(fits))
    name = pd.read_parquet(prepared / "playlists.parquet", columns=["name"])["name"].iloc[data.split.test[u]]
    ids, name = histories[u], name if isinstance(name, str) else None
    title = name if name and recommender.reads_titles else ""
    names = TrackNames(data.catalogue.tracks)
    shown = names.table(data.vocabulary.decode(ids))
    known = ids <= data.vocabulary.n_items
    return _Example(
        name=name,
        newest=readable(shown[NAMES].tail(5)),
        answer=recommender.recommend(shown["track_uri"][known], k, title=title),
        unknown=[names.label(i) for i in shown["track_id"][~known]],
        truth=names.label(int(data.vocabulary.decode(targets[u : u + 1])[0])) if targets[u] else "nothing",
    )


def _print_example(example: _Example) -> None:
    called = f"Playlist {plain(example.name)!r}, a" if example.name else "A"
    print(f"\n{called} test playlist that no model has seen; its newest tracks:\n")
    print(example.newest.to_string(index=False))
    if example.unknown:
        few = ", ".join(map(repr, example.unknown[:3]))
        more = f" and {len(example.unknown) - 3} more" if len(example.unknown) > 3 else ""
        print(f"\nLeft out, because the model does not know them: {few}{more}.")
    print(f"\nThe {len(example.answer.table)} tracks that should come next:\n\n{example.answer}")
    print(f"\nWhat really came next: {example.truth}")


def _listed(playlist: str | None) -> list[Entry]:
    """What is written in the file that `--playlist` names; "-" is what is piped in."""
    if playlist is None:
        return []
    return read_entries(sys.stdin.buffer.read() if playlist == "-" else Path(playlist))


def _data(prepared: Path, min_count: int, seed: int, newcomers: bool, titles: bool) -> Dataset:
    """The playlists, split and numbered: with the tracks that training does not know, with titles, as it is wanted."""
    data = load_dataset(prepared, min_count, seed, newcomers=newcomers)
    return with_titles(data, load_titles(prepared)) if titles else data


def _prepared(places: Places) -> Path:
    """The prepared folder of the slices in raw/; made if it is not there."""
    if not has_slices(places.raw):
        raise MPDError(
            f"{places.raw}: there are no slices; put mpd.slice.*.json there, or make some up with `make-data`."
        )
    return prepare(places.raw, places.prepared, progress=True)

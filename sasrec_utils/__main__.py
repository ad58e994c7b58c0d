"""From raw slices to ten named next tracks, on the command line: `python -m sasrec_utils`, or `sasrec`.

    run         the whole way, each step only if its result is not there yet (the default)
    make-data   write made-up playlists in the MPD's format
    prepare     slices to tables
    train       tables to a model
    evaluate    the model beside its baselines, on test playlists
    recommend   tracks to the ten that should follow

Results go to stdout, progress to stderr. A mistake in what you give is answered by one sentence and exit code 2.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from sasrec_utils.baselines import fit_baselines, tune_blend
from sasrec_utils.evaluation import Report, compare, evaluate, table
from sasrec_utils.model import SASRec
from sasrec_utils.mpd import MPDError, prepare
from sasrec_utils.recommender import Recommender, train_recommender
from sasrec_utils.sequences import Dataset, leave_last_out, load_dataset
from sasrec_utils.training import CheckpointError, load
from sasrec_utils.world import PRESETS, Oracle, World, load_world, sample, write_slices

METRICS = ("recall@10", "ndcg@10")


@dataclass(frozen=True)
class Places:
    """Where things are under the data directory."""

    raw: Path
    prepared: Path
    models: Path


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code. `argv` without the program's name (default: the command line's)."""
    argv = sys.argv[1:] if argv is None else argv
    parser = _parser()
    if not argv or (argv[0].startswith("-") and argv[0] not in ("-h", "--help")):
        argv = ["run", *argv]
    args = parser.parse_args(argv)
    try:
        args.command(args)
    except (MPDError, CheckpointError, ValueError, OSError) as error:
        if os.environ.get("SASREC_DEBUG"):
            raise
        print(f"sasrec: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("sasrec: stopped; what was finished is kept, the same command goes on from there.", file=sys.stderr)
        return 130
    return 0


# --- the commands -----------------------------------------------------------------------------------------------------


def run(args: argparse.Namespace) -> None:
    """Data, tables, model, evaluation and recommendations, each step only where its result is missing."""
    places = _places(args)
    began = time.perf_counter()
    if not _has_slices(places.raw):
        _say(f"no slices in {places.raw}: making up playlists ({args.preset}). Put real MPD slices there to use those.")
        write_slices(World(PRESETS[args.preset]), places.raw, args.playlists, progress=True)
    prepared = prepare(places.raw, places.prepared, progress=True)
    data = load_dataset(prepared, args.min_count, args.seed)
    _say(
        f"{len(data.split.train) + len(data.split.valid) + len(data.split.test):,} playlists, {len(data.catalogue):,} tracks; "
        f"{len(data.train):,} playlists to train on know {data.vocabulary.n_items:,} tracks"
    )
    directory, seconds = _train(args, places, prepared, data)
    model, about = load(directory)
    reports = _judge(model, data, load_world(places.raw), prepared)
    recommender = Recommender.load(directory)
    example = _example(data, recommender, prepared, args.k)
    if args.json:
        metrics = {r.name: {m: r.metrics[m]._asdict() for m in METRICS} for r in reports}
        columns = ["rank", "track_id", "track_uri", "track_name", "artist_name", "score"]
        print(json.dumps({
            "metrics": metrics, "playlists": reports[0].playlists, "targets_kept": reports[0].targets_kept,
            "train_seconds": about.get("train_seconds", seconds), "playlist": example["name"],
            "recommendations": json.loads(example["answer"].table[columns].to_json(orient="records")),
        }, indent=1))  # fmt: skip
        return
    _print_reports(reports)
    print(f"\nPlaylist {example['name']!r}, a test playlist that no model has seen; its newest tracks:\n")
    print(example["newest"].to_string(index=False))
    print(f"\nThe {len(example['answer'].table)} tracks that should come next:\n\n{example['answer']}")
    print(f"\nWhat really came next: {example['truth']}")
    _say(f"all done in {time.perf_counter() - began:.0f} s; the model is in {directory}")


def make_data(args: argparse.Namespace) -> None:
    """Write made-up playlists, and the genre and sound of their tracks beside them."""
    config = replace(PRESETS[args.preset], seed=args.seed)
    if args.show is not None:
        print(sample(World(config), args.show).to_string(index=False))
        return
    if args.indent is not None:
        config = replace(config, indent=args.indent)
    paths = write_slices(World(config), args.out, args.playlists, progress=True)
    print(f"{len(paths)} slices of the made-up world {args.preset!r} in {args.out}")


def prepare_command(args: argparse.Namespace) -> None:
    """Slices to tables."""
    print(prepare(args.raw, args.out, csv=args.csv, processes=args.processes, progress=True))


def train(args: argparse.Namespace) -> None:
    """Tables to a model."""
    places = _places(args)
    prepared = _prepared(args, places)
    directory, seconds = _train(args, places, prepared, load_dataset(prepared, args.min_count, args.seed))
    print(pd.read_csv(directory / "history.csv").to_string(index=False))
    print(f"\nmodel in {directory}, {seconds:.0f} s")


def evaluate_command(args: argparse.Namespace) -> None:
    """The model beside its baselines."""
    places = _places(args)
    prepared = _prepared(args, places)
    model, about = load(places.models / args.name)
    of = about.get("data")
    if not isinstance(of, dict) or of.get("prepared") != prepared.name or not {"min_count", "seed"} <= of.keys():
        raise CheckpointError(
            f"{places.models / args.name}: was not trained by `train` on the playlists in {prepared}; do that first."
        )
    data = load_dataset(prepared, of["min_count"], of["seed"])
    reports = _judge(model, data, load_world(places.raw), prepared, protocol=args.protocol)
    if args.json:
        print(json.dumps([r.row() for r in reports], indent=1))
    else:
        _print_reports(reports)


def recommend(args: argparse.Namespace) -> None:
    """Tracks to the ten that should follow."""
    answer = Recommender.load(_places(args).models / args.name).recommend(args.tracks, args.k)
    if args.json:
        rows = json.loads(answer.table.to_json(orient="records"))
        print(json.dumps({"recommendations": rows, "unknown": answer.unknown, "note": answer.note}, indent=1))
    else:
        print(answer)


# --- their steps ------------------------------------------------------------------------------------------------------


def _train(args: argparse.Namespace, places: Places, prepared: Path, data: Dataset) -> tuple[Path, float]:
    """The model directory and the seconds its training took; trained only if it is not there with these settings."""
    directory = places.models / args.name
    options = ("epochs", "batch_size", "lr", "loss", "accelerator", "precision")
    changes = {name: getattr(args, name) for name in options if getattr(args, name) is not None}
    about = {"min_count": args.min_count, "seed": args.seed, "again": args.again}
    seconds, now = train_recommender(directory, data, prepared.name, args.shape, **about, **changes)
    if not now:
        _say(f"a model with these settings is in {directory}: not trained again (--again does)")
    return directory, seconds


def _judge(model: SASRec, data: Dataset, world: World | None, prepared: Path, protocol: str = "full") -> list[Report]:
    """Reports on the test playlists: SASRec, each baseline (tuned on validation) and, for made-up data, the oracle."""
    histories, targets = leave_last_out(data.valid)
    _say("fitting the baselines, their settings chosen on the validation playlists")
    baselines = fit_baselines(data.train, data.vocabulary.n_items, histories, targets)
    both, _ = tune_blend((model, baselines[-1]), histories, targets, name="SASRec + item-kNN + Markov")
    scorers = [*baselines, model, both]
    if world is not None:
        uris = data.catalogue.tracks["track_uri"].iloc[data.vocabulary.to_catalogue[1:] - 1].tolist()
        scorers.append(Oracle.from_uris(world, uris, data.vocabulary.n_items))
    histories, targets = leave_last_out(data.test)
    return [evaluate(scorer, histories, targets, protocol=protocol) for scorer in scorers]


def _print_reports(reports: list[Report]) -> None:
    """The table of the test metrics, the share of the best possible, and SASRec against the best baseline, paired."""
    shown = table(reports).drop(columns=["protocol", "targets kept", "playlists"])
    by_name = {r.name: r for r in reports}
    model, oracle = by_name["sasrec"], by_name.get("oracle")
    if oracle is not None:
        for metric in METRICS:
            best = oracle.metrics[metric].mean
            shares = [f"{r.metrics[metric].mean / best:.0%}" if best else "" for r in reports]
            shown[f"share of best {metric}"] = shares
    print(
        f"{model.playlists:,} test playlists, {model.targets_kept:.1%} of their targets kept, protocol: {model.protocol}"
    )
    print("(mean and 95 % bootstrap interval over playlists)\n")
    print(shown.to_string(index=shown.index.name is not None))
    print()
    for other in reports:
        if other.name in ("sasrec", "oracle") or "SASRec" in other.name:
            continue
        gaps = ", ".join(f"{m} {_signed(compare(model, other, m))}" for m in METRICS)
        print(f"SASRec - {other.name}: {gaps}")


def _signed(gap) -> str:
    return f"{gap.mean:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"


def _example(data: Dataset, recommender: Recommender, prepared: Path, k: int) -> dict:
    """The first test playlist whose last track the model knows, its newest tracks and what should follow them."""
    histories, targets = leave_last_out(data.test)
    fits = (targets > 0) & (targets <= data.vocabulary.n_items) & (histories.lengths >= 5)
    u = int(np.argmax(fits))
    names = pd.read_parquet(prepared / "playlists.parquet", columns=["name"])["name"]
    shown = data.catalogue.table(data.vocabulary.decode(histories[u]))
    true = data.catalogue.table(data.vocabulary.decode(targets[u : u + 1])).iloc[0]
    return {
        "name": names.iloc[data.split.test[u]],
        "newest": shown[["track_name", "artist_name", "album_name"]].tail(5),
        "answer": recommender.recommend(shown["track_uri"], k),
        "truth": f"{true['track_name']} ({true['artist_name']})",
    }


def _places(args: argparse.Namespace) -> Places:
    root = Path(args.data_dir)
    return Places(root / "raw", root / "prepared", root / "models")


def _prepared(args: argparse.Namespace, places: Places) -> Path:
    """The prepared folder of the slices in raw/; made if it is not there."""
    if not _has_slices(places.raw):
        raise MPDError(
            f"{places.raw}: there are no slices; put mpd.slice.*.json there, or make some up with `make-data`."
        )
    return prepare(places.raw, places.prepared, progress=True)


def _has_slices(raw: Path) -> bool:
    return next(raw.glob("mpd.slice.*.json"), None) is not None


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sasrec",
        description="SASRec on playlists: from MPD slices to ten named next tracks. Without a command: run.",
        epilog="example: sasrec run --data-dir data, then sasrec recommend 'spotify:track:...' 'Artist - Track'",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, function, about: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name, help=about, description=function.__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        sub.set_defaults(command=function)
        return sub

    def number(least: int):
        def read(text: str) -> int:
            value = int(text)
            if value < least:
                raise argparse.ArgumentTypeError(f"{value} is less than {least}")
            return value

        read.__name__ = "whole number"
        return read

    def data_options(sub, trains: bool = True) -> None:
        sub.add_argument("--data-dir", default="data", metavar="DIR", help="holds raw/, prepared/ and models/")
        sub.add_argument("--name", default="default", help="folder of the model in models/")
        if not trains:
            return
        sub.add_argument(
            "--shape",
            choices=("best", "paper"),
            default="best",
            help="best: relative positions, artists and albums; paper: absolute positions, track ids only",
        )
        sub.add_argument(
            "--min-count", type=number(1), default=2, metavar="N", help="plays in training that make a track known"
        )
        sub.add_argument(
            "--seed", type=number(0), default=0, metavar="N", help="of the split, the weights and the batches"
        )
        sub.add_argument("--again", action="store_true", help="train even if a model with these settings is there")
        for name, kind, about in (
            ("--epochs", number(1), "length of training"), ("--batch-size", number(1), "windows in a batch"), ("--lr", float, "highest learning rate"),
            ("--loss", str, "softmax, sampled_softmax, bce or gbce"), ("--accelerator", str, "cpu, cuda, mps"), ("--precision", str, "32-true, bf16-mixed, ..."),
        ):  # fmt: skip
            sub.add_argument(
                name, type=kind, default=None, metavar="X", help=f"{about} (default: by shape and machine)"
            )

    sub = add("run", run, "the whole way from slices to ten named tracks")
    data_options(sub)
    sub.add_argument("--preset", choices=tuple(PRESETS), default="teaching", help="world to make up if raw/ is empty")
    sub.add_argument(
        "--playlists", type=number(1), default=None, metavar="N", help="how many to make up (default: the preset's)"
    )
    sub.add_argument("-k", type=number(1), default=10, metavar="N", help="how many tracks to recommend")
    sub.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    sub = add("make-data", make_data, "write made-up playlists as MPD slices")
    sub.add_argument("--out", default="data/raw", metavar="DIR", help="folder for the slices, must hold none yet")
    sub.add_argument("--preset", choices=tuple(PRESETS), default="teaching", help="which world")
    sub.add_argument("--playlists", type=number(1), default=None, metavar="N", help="how many (default: the preset's)")
    sub.add_argument("--seed", type=number(0), default=2018, metavar="N", help="of the world")
    sub.add_argument(
        "--show", type=number(1), default=None, metavar="N", help="print N of its playlists instead, at most 1,000"
    )
    sub.add_argument(
        "--indent",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="four blanks a level, as in the MPD (default: the preset's)",
    )
    sub = add("prepare", prepare_command, "slices to Parquet tables; prints their folder")
    sub.add_argument("--raw", default="data/raw", metavar="DIR", help="folder of mpd.slice.*.json")
    sub.add_argument("--out", default="data/prepared", metavar="DIR", help="where the tables' folder goes")
    sub.add_argument("--csv", action="store_true", help="also write spotify_mpd_interactions.csv")
    sub.add_argument("--processes", type=number(1), default=2, metavar="N", help="processes that read slices")
    sub = add("train", train, "tables to a model")
    data_options(sub)
    sub = add("evaluate", evaluate_command, "the model beside its baselines on the test playlists")
    data_options(sub, trains=False)
    sub.add_argument(
        "--protocol",
        choices=("full", "sampled"),
        default="full",
        help="rank among all tracks, or among 100 random ones as the paper did",
    )
    sub.add_argument("--json", action="store_true", help="print JSON instead of a table")
    sub = add("recommend", recommend, "tracks to the ten that should follow")
    sub.add_argument("tracks", nargs="*", metavar="TRACK", help="oldest first: URI, name, or 'artist - track'")
    data_options(sub, trains=False)
    sub.add_argument("-k", type=number(1), default=10, metavar="N", help="how many tracks")
    sub.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


if __name__ == "__main__":
    sys.exit(main())

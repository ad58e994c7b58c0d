"""What can be typed on the command line: each command's options, their limits and their help."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable
from importlib import metadata

from sasrec_utils.training import LOSSES
from sasrec_utils.world import PRESETS

__all__ = ["make_parser", "model_name"]

ACCELERATORS = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true")
# Names that Windows keeps for devices, whatever their ending: a folder called so could not be copied there.
RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10))}


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands; `command` in what it returns is the name of the one that was asked for."""
    parser = argparse.ArgumentParser(
        prog="sasrec",
        description="SASRec on playlists: from MPD slices to ten named next tracks. Without a command: run.",
        epilog="Example: sasrec run --data-dir data, then sasrec recommend 'spotify:track:...' 'Artist - Track'. "
        "Exit codes: 0 done, 1 no track is known of those that were asked for, 2 a mistake, 130 stopped.",
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for add in (_add_run, _add_make_data, _add_prepare, _add_train, _add_evaluate):
        add(commands)
    for add in (_add_recommend, _add_tracks, _add_serve):
        add(commands)
    return parser


def _add_run(commands) -> None:
    sub = _command(commands, "run", "the whole way from slices to ten named tracks")
    _place_options(sub)
    _training_options(sub)
    sub.add_argument("--preset", choices=tuple(PRESETS), default="teaching", help="world to make up if raw/ is empty")
    sub.add_argument("--playlists", type=_whole(1), metavar="N", help="how many to make up (default: the preset's)")
    sub.add_argument("-k", type=_whole(1), default=10, metavar="N", help="how many tracks to recommend")
    _rerank_option(sub, "train and judge the second stage (default: with 300 validation playlists or more)")
    sub.add_argument("--json", action="store_true", help="print one JSON object instead of tables")


def _add_make_data(commands) -> None:
    sub = _command(commands, "make-data", "write made-up playlists as MPD slices")
    sub.add_argument("--out", default="data/raw", metavar="DIR", help="folder for the slices, must hold none yet")
    sub.add_argument("--preset", choices=tuple(PRESETS), default="teaching", help="which world")
    sub.add_argument("--playlists", type=_whole(1), metavar="N", help="how many (default: the preset's)")
    sub.add_argument("--seed", type=_whole(0), default=2018, metavar="N", help="of the world")
    shown = "print N of its playlists instead, at most 1,000"
    sub.add_argument("--show", type=_whole(1), metavar="N", help=shown)
    sub.add_argument(
        "--indent",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="four blanks a level, as in the MPD (default: the preset's)",
    )


def _add_prepare(commands) -> None:
    sub = _command(commands, "prepare", "slices to Parquet tables; prints their folder")
    sub.add_argument("--raw", default="data/raw", metavar="DIR", help="folder of mpd.slice.*.json")
    sub.add_argument("--out", default="data/prepared", metavar="DIR", help="where the tables' folder goes")
    sub.add_argument("--csv", action="store_true", help="also write spotify_mpd_interactions.csv")
    sub.add_argument("--processes", type=_whole(1), default=2, metavar="N", help="processes that read slices")


def _add_train(commands) -> None:
    sub = _command(commands, "train", "tables to a model")
    _place_options(sub)
    _training_options(sub)


def _add_evaluate(commands) -> None:
    sub = _command(commands, "evaluate", "the model beside its baselines on the test playlists")
    _place_options(sub)
    sub.add_argument(
        "--protocol",
        choices=("full", "sampled"),
        default="full",
        help="rank among all tracks, or among 100 random ones as the paper did",
    )
    _rerank_option(sub, "train and judge the second stage (default: if the model has one)")
    sub.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _add_recommend(commands) -> None:
    sub = _command(commands, "recommend", "tracks, or a playlist in a file, to the ten that should follow")
    sub.add_argument("tracks", nargs="*", metavar="TRACK", help="oldest first: link or URI, name, or 'artist - track'")
    sub.add_argument(
        "--playlist",
        metavar="FILE",
        help="tracks to put before those: a CSV or M3U export, or lines 'Artist - Title'; - reads what is piped in",
    )
    sub.add_argument("--title", default="", help="of the playlist, for a model trained with --titles; needs no track")
    _place_options(sub)
    sub.add_argument("-k", type=_whole(1), default=10, metavar="N", help="how many tracks")
    _rerank_option(sub, "let the second stage order them (default: if the model has one)")
    sub.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _add_tracks(commands) -> None:
    sub = _command(commands, "tracks", "find the names of tracks that the model knows")
    sub.add_argument("query", nargs="+", metavar="QUERY", help="words of a title or an artist, or parts of words")
    _place_options(sub)
    sub.add_argument("-k", type=_whole(1), default=10, metavar="N", help="how many tracks at most")
    sub.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _add_serve(commands) -> None:
    sub = _command(commands, "serve", "the recommender behind HTTP, and a page to try it, until Ctrl-C")
    _place_options(sub)
    host = "others than loopback need SASREC_TOKEN in the environment"
    sub.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help=host)
    sub.add_argument("--port", type=_port, default=8000, metavar="N", help="0 takes a free one")
    _rerank_option(sub, "let the second stage order the tracks (default: if the model has one)")


# --- options that several commands have -------------------------------------------------------------------------------


def _place_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--data-dir", default="data", metavar="DIR", help="holds raw/, prepared/ and models/")
    sub.add_argument("--name", type=model_name, default="default", help="folder of the model in models/")


def _training_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--shape",
        choices=("best", "paper"),
        default="best",
        help="best: relative positions, artists and albums; paper: absolute positions, track ids only",
    )
    table = (
        "what is known of tracks: CSV or Parquet with a column track_uri; never played tracks can then be recommended"
    )
    sub.add_argument("--features", metavar="FILE", help=table)
    sub.add_argument("--titles", action="store_true", help="read the titles of playlists too")
    plays = "plays in training that make a track known"
    sub.add_argument("--min-count", type=_whole(1), default=2, metavar="N", help=plays)
    sub.add_argument("--seed", type=_whole(0), default=0, metavar="N", help="of split, weights and batches")
    sub.add_argument("--again", action="store_true", help="train although a model is there, and replace it")
    chosen = "(default: by shape and machine)"
    sub.add_argument("--epochs", type=_whole(1), metavar="N", help=f"length of training {chosen}")
    sub.add_argument("--batch-size", type=_whole(1), metavar="N", help=f"windows in a batch {chosen}")
    sub.add_argument("--lr", type=float, metavar="X", help=f"highest learning rate {chosen}")
    sub.add_argument("--loss", choices=LOSSES, help=f"what is minimised {chosen}")
    drawn = "negatives that every loss but softmax draws (default: by loss)"
    sub.add_argument("--negatives", type=_whole(1), metavar="N", help=drawn)
    sub.add_argument("--accelerator", choices=ACCELERATORS, help=f"where it is computed {chosen}")
    sub.add_argument("--precision", choices=PRECISIONS, help=f"of numbers while training {chosen}")


def _rerank_option(sub: argparse.ArgumentParser, about: str) -> None:
    sub.add_argument("--rerank", action=argparse.BooleanOptionalAction, default=None, help=about)


class _Help(argparse.HelpFormatter):
    """Defaults where there is one and the help does not tell it already."""

    def _get_help_string(self, action: argparse.Action) -> str:
        told = "(default" in (action.help or "")
        none = action.default is None or action.default is False or action.default == argparse.SUPPRESS
        if told or none:
            return action.help or ""
        return f"{action.help} (default: %(default)s)"


def _command(commands, name: str, about: str) -> argparse.ArgumentParser:
    return commands.add_parser(name, help=about, description=about.capitalize() + ".", formatter_class=_Help)


def _whole(least: int) -> Callable[[str], int]:
    """A reader of whole numbers from `least` on."""

    def read(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is less than {least}")
        return value

    read.__name__ = "whole number"  # argparse says "invalid whole number value"
    return read


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65_535:
        raise argparse.ArgumentTypeError(f"{port} is no port: they go from 0 to 65535")
    return port


_port.__name__ = "whole number"


def model_name(text: str) -> str:
    """`text`, if it can be the name of a folder right in models/, on every system; else ArgumentTypeError."""
    device = text.split(".")[0].strip().upper() in RESERVED
    sign = any(c in '<>:"/\\|?*' or not c.isprintable() for c in text)
    edge = text != text.strip() or text.startswith((".", "-")) or text.endswith(".")
    if not text or device or sign or edge or len(text.encode(errors="replace")) > 200:
        raise argparse.ArgumentTypeError(f"{text!r} cannot name a folder in models/: use letters, digits, - and _")
    return text


def _version() -> str:
    try:
        own = metadata.version("sasrec-playlists")
    except metadata.PackageNotFoundError:
        own = "(not installed)"
    return f"sasrec {own}, torch {metadata.version('torch')}, Python {platform.python_version()}"

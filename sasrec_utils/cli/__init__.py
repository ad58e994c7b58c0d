"""From raw slices to ten named next tracks, on the command line: `python -m sasrec_utils`, or `sasrec`.

    run         the whole way, each step only if its result is not there yet (the default)
    make-data   write made-up playlists in the MPD's format
    prepare     slices to tables
    train       tables to a model
    evaluate    the model beside its baselines, on test playlists
    recommend   tracks, or a playlist in a file, to the ten that should follow
    tracks      find the names of tracks that the model knows
    serve       the recommender behind HTTP, and a page to try it

Results go to stdout, progress to stderr. Exit codes: 0 done, 1 no track of those that were asked for is known, 2 a
mistake in what was given (one sentence says which), 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import io
import os
import sys
import warnings

from sasrec_utils.checkpoints import CheckpointError
from sasrec_utils.cli.commands import COMMANDS, kept
from sasrec_utils.cli.output import say
from sasrec_utils.cli.parser import make_parser
from sasrec_utils.mpd import MPDError
from sasrec_utils.track_names import plain

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code. `argv` without the program's name (default: the command line's)."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or (argv[0].startswith("-") and argv[0] not in ("-h", "--help", "--version")):
        argv = ["run", *argv]
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A title in letters that this terminal does not have must not end the program: they are written as \uXXXX.
        sys.stdout.reconfigure(errors="backslashreplace")
    formatted, warnings.formatwarning = warnings.formatwarning, _as_remark
    try:
        args = make_parser().parse_args(argv)
        return _run(args)
    except BrokenPipeError:  # whoever read our output, `head` for instance, has seen enough
        _leave_stdout()
        return 141  # 128 + SIGPIPE, as other programs end then
    finally:
        warnings.formatwarning = formatted


def _as_remark(message: Warning | str, *_, **__) -> str:
    """A warning as a sentence, without the place in our code where it was given."""
    return f"sasrec: {plain(str(message))}\n"


def _run(args) -> int:
    try:
        code = COMMANDS[args.command](args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        raise
    except (MPDError, CheckpointError, ValueError, OSError) as error:
        if os.environ.get("SASREC_DEBUG"):
            raise
        say(f"sasrec: {plain(str(error))}")
        return 2
    except KeyboardInterrupt:
        say(f"sasrec: stopped; {kept(args)}")
        return 130


def _leave_stdout() -> None:
    """Python writes what is left in its buffer when it ends; without a reader that would be an error again."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

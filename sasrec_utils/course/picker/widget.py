"""The picker as a widget: shows a `Desk` in JupyterLab and does what the reader does there. See `picker.js`.

Built with anywidget, which is made for widgets of one file and needs no CDN: ipywidgets' own lists cannot hold a row
with a bar, a number and two buttons, and a widget for each of 250 rows would take seconds to make.
"""

from __future__ import annotations

import html
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import anywidget
import pandas as pd
import torch
import traitlets
from IPython.display import display

from sasrec_utils.course.picker.desk import NOTHING, Desk
from sasrec_utils.course.picker.view import names_of, view
from sasrec_utils.course.picker.wording import count
from sasrec_utils.playlist_text import PlaylistTextError
from sasrec_utils.recommender import Recommender
from sasrec_utils.sequences import Dataset, Sequences

HERE = Path(__file__).parent
# What a hand in the browser may set off: the name it sends, and the arguments that go with it.
ACTIONS = {
    "choose": ("row",), "add": ("track",), "remove": ("at",), "move": ("at", "to"), "go_on": (), "undo": (),
    "restart": (), "empty": (), "compare": ("model", "beside"), "turn": ("settings",), "ask": ("track", "row"),
    "paste": ("text",),
    "guess_next": (), "guess": ("track",), "another": (), "stop_guessing": (),
}  # fmt: skip


class PlaylistPicker(anywidget.AnyWidget):
    """Pick a playlist or bring your own, see the next tracks, change it, ask why, guess along. Notebook 07 §3.

    `recommenders`: by name; the last one is asked, the one before it stands beside it. `playlists`: in model ids,
    `names`: one each (None is allowed), `tracks`: a table whose row i is model id i + 1, unknown tracks included, with
    `track_uri`, `track_name`, `artist_name`, `album_name`. With `hide_last` the last track of each playlist is kept
    back as the real next one. Whatever a hand can do, code can do by the same names: `choose(3)`, `remove(5)`,
    `add(17)`, `undo()`, `go_on(5)`, `paste(text)`, `compare("oracle", "SASRec")`, `turn(shown=5)`, `guess_next()`;
    `ids`, `uris`, `answers`, `table()`, `why` and `export()` hold what is shown.
    """

    _esm = HERE / "picker.js"
    _css = HERE / "picker.css"
    view = traitlets.Dict().tag(sync=True)
    reasons = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        recommenders: Mapping[str, Recommender],
        playlists: Sequences,
        names: Sequence[str | None],
        tracks: pd.DataFrame,
        *,
        hide_last: bool = True,
        seed: int = 0,
    ):
        self.desk = Desk(recommenders, playlists, names, tracks, hide_last, seed)
        self._lock = threading.RLock()
        super().__init__()
        self.on_msg(self._heard)
        self._show()

    @classmethod
    def from_dataset(
        cls, recommenders: Mapping[str, Recommender], dataset: Dataset, prepared: str | Path, **kwargs
    ) -> PlaylistPicker:
        """A picker over the test playlists of a prepared folder: no model has seen them. Taught in notebook 07 §3."""
        names = pd.read_parquet(Path(prepared) / "playlists.parquet", columns=["name"])["name"]
        names = names.iloc[dataset.split.test].to_numpy(dtype=object, na_value=None)
        tracks = dataset.catalogue.tracks.iloc[dataset.vocabulary.to_catalogue[1:] - 1]
        return cls(recommenders, dataset.test, names, tracks, **kwargs)

    # --- what code and hands can do -----------------------------------------------------------------------------------

    def _do(self, action: str, *args, **kwargs):
        """One change at a time, computed on one core, and shown.

        JupyterLab may deliver what a reader does on another thread than the one that runs the cells. And a single
        playlist is too small for two cores to help: beside a busy browser the second one would be waited for.
        """
        with self._lock:
            cores = torch.get_num_threads()
            torch.set_num_threads(1)
            try:
                done = getattr(self.desk, action)(*args, **kwargs)
                self._show(answers=action != "ask")
                return done
            finally:
                torch.set_num_threads(cores)

    def choose(self, row: int) -> None:
        """Take playlist number `row`."""
        self._do("choose", row)

    def search(self, query: str) -> list[int]:
        """Numbers of the playlists that `query` finds."""
        return self.desk.search(query)[0]

    def find(self, query: str) -> list[int]:
        """Model ids of the tracks that `query` finds."""
        return self.desk.find(query)

    def paste(self, text: str | bytes):
        """Take a playlist of one's own: any text that `read_playlist` understands, or a file's name."""
        return self._do("paste", text)

    def add(self, track: int) -> None:
        """Put a track (a model id) at the end."""
        self._do("add", track)

    def remove(self, at: int) -> None:
        """Take the track at this place (from 0) out."""
        self._do("remove", at)

    def move(self, at: int, to: int) -> None:
        """Put the track at place `at` to place `to`."""
        self._do("move", at, to)

    def go_on(self, steps: int | None = None, temperature: float | None = None) -> list[int]:
        """Let the asked model add tracks to the end; returns their model ids."""
        return self._do("go_on", steps, temperature)

    def undo(self) -> None:
        """Take back the last change."""
        self._do("undo")

    def restart(self) -> None:
        """The playlist as it was picked or pasted."""
        self._do("restart")

    def empty(self) -> None:
        """Start from nothing."""
        self._do("empty")

    def compare(self, model: str, beside: str = NOTHING) -> None:
        """Which model is asked, and which one stands beside it."""
        self._do("compare", model, beside)

    def turn(self, **settings) -> None:
        """Change settings: shown, seen, steps, temperature, draw."""
        self._do("turn", **settings)

    def ask(self, track: int = 0, row: int = -1) -> str:
        """Why this track (0: the first one)? With `row`: what if that row were not there? Returns the sentence."""
        self._do("ask", track, row)
        return self.why

    def guess_next(self) -> list[str]:
        """Begin a round of guessing; returns the ten tracks as they are shown."""
        return [self.desk.label(i) for i in self._do("guess_next").choices]

    def guess(self, track: int) -> dict[str, int]:
        """Choose one of the ten (a model id): returns who chose what."""
        return dict(self._do("guess", track).picks)

    def another(self) -> list[str]:
        """Take the next playlist that can be guessed and begin a round; returns the ten tracks as they are shown."""
        return [self.desk.label(i) for i in self._do("another").choices]

    def stop_guessing(self) -> None:
        """Show the predictions again."""
        self._do("stop_guessing")

    def table(self, model: str | None = None) -> pd.DataFrame:
        """What is shown for one of the models (default: the asked one)."""
        return self.desk.table(model)

    def export(self, kind: str = "csv") -> str:
        """The playlist as "csv" or "m3u"."""
        return self.desk.export(kind)

    @property
    def ids(self) -> list[int]:
        """The playlist as it stands, in model ids."""
        return self.desk.ids

    @property
    def uris(self) -> list[str]:
        """The playlist as it stands, as URIs."""
        return self.desk.uris

    @property
    def answers(self) -> dict:
        """By model, the `Recommendation` that is shown."""
        return self.desk.answers

    @property
    def next_id(self) -> int:
        """The track that really came next; 0 if none is known."""
        return self.desk.next_id

    @property
    def why(self) -> str:
        """The sentence under the lists."""
        return self.reasons.get("sentence", "")

    # --- between the desk and the page --------------------------------------------------------------------------------

    def _show(self, answers: bool = True) -> None:
        """Send what is to be seen; the reasons come after the answers, which need not wait for them."""
        if answers:
            self.view = view(self.desk)
        self.reasons = (
            {"rows": [], "sentence": "", "heads": [], "bars": "", "control": "", "asked": 0}
            if self._hidden
            else self.desk.reasons()
        )

    @property
    def _hidden(self) -> bool:
        """Whether a round of guessing is open: then nothing may give the answer away."""
        return self.desk.round is not None and not self.desk.round.over

    def _heard(self, _, message: dict, __) -> None:
        """What the page sends. Anything else than the known actions is ignored: it comes from outside."""
        asked, query = message.get("do"), str(message.get("query", ""))
        if asked == "search":
            rows, total = self.desk.search(query)
            lengths = self.desk.playlists.lengths
            found = [{"row": u, "label": self.desk.names[u], "by": count(int(lengths[u]), "track")} for u in rows]
            self.send({"found": "playlists", "query": query, "rows": found, "total": total})
        elif asked == "find":
            found = [names_of(self.desk, i) for i in self.desk.find(query)] if query.strip() else []
            rows = [{"row": one["id"], "label": one["track"], "by": one["artist"]} for one in found]
            self.send({"found": "tracks", "query": query, "rows": rows, "total": len(rows)})
        elif asked == "save":
            kind = "m3u" if message.get("kind") == "m3u" else "csv"
            text = self.export(kind)
            # A spreadsheet takes text without a mark for the machine's own encoding, and breaks every accent.
            self.send({"save": ("\ufeff" if kind == "csv" else "") + text, "kind": kind})
        elif asked in ACTIONS:
            try:
                arguments = [message[name] for name in ACTIONS[asked]]
                if asked == "turn":
                    self._do("turn", **arguments[0])
                else:
                    self._do(asked, *arguments)
            except (PlaylistTextError, ValueError, KeyError, IndexError, TypeError) as error:
                self.send(
                    {"said": str(error) if isinstance(error, PlaylistTextError | ValueError) else "That did not work."}
                )

    # --- without a kernel ---------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        lines = [f"PlaylistPicker: {self.desk.title}, {count(len(self.ids), 'track')}"]
        for name in () if self._hidden else self.answers:
            table = self.table(name).head(3)
            best = "; ".join(f"{r.rank}. {r.track_name} ({r.artist_name})" for r in table.itertuples())
            lines.append(f"{name}: {best}")
        return "\n".join(lines)

    def _ipython_display_(self) -> None:
        """The widget and, after it, its twin in plain HTML. The page hides the twin while the widget lives there."""
        bundle = self._repr_mimebundle_()
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        view = "application/vnd.jupyter.widget-view+json"
        display({view: data[view]}, metadata=metadata, raw=True)
        display({"text/html": self.twin(), "text/plain": repr(self)}, raw=True)

    def twin(self) -> str:
        """What is shown, as plain HTML tables without style or controls: for readers that have no kernel."""
        view = self.view
        said = (
            "The picker as it was when this was saved. To search, change the playlist and ask why, run the notebook "
            "(Run → Run All Cells)."
        )
        parts = [f'<div class="playlist-picker-twin"><p>{said}</p>']
        parts.append(f"<p><b><bdi>{html.escape(view['title'])}</bdi></b>, {view['count']}; the newest:</p>")
        first = max(0, len(view["playlist"]) - 8)
        rows = "".join(f"<li>{_named(one)}</li>" for one in view["playlist"][first:])
        parts.append(f'<ol start="{first + 1}">{rows}</ol>')
        if self._hidden:
            choices = "".join(f"<li>{_named(one)}</li>" for one in view["round"]["choices"])
            parts.append(f"<p>{html.escape(view['status'])}</p><ol>{choices}</ol>")
        for answer in view["answers"]:
            rows = []
            for one in answer["rows"]:
                star = " ★ really next" if one["next"] else ""
                bar = "█" * round(12 * one["bar"])
                rows.append(
                    f"<tr><td>{one['rank']:,}</td><td>{_named(one)}{star}</td><td>{bar} {one['number']}</td></tr>"
                )
            head = f"<tr><th>#</th><th>next track</th><th>{answer['unit']}</th></tr>"
            caption = f"<caption>{html.escape(answer['model'])}</caption>"
            parts.append(f"<table>{caption}<thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>")
        parts.append(f"<p>{html.escape(view['truth'])}</p><p>{html.escape(self.why)}</p></div>")
        return "\n".join(parts)


def _named(one: dict) -> str:
    artist = f" — <bdi>{html.escape(one['artist'])}</bdi>" if one["artist"] else ""
    return f"<bdi>{html.escape(one['track'])}</bdi>{artist}"

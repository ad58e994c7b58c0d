"""The playlist picker: choose a playlist, see what each model would play next and why, change it and see what follows.

Built of ipywidgets alone: nothing is fetched, every control has a label and works from the keyboard. Pictures are HTML
and CSS with JupyterLab's own colours, so light and dark theme both work, and no meaning hangs on colour alone. Names
come from data and are never trusted: they are escaped in HTML and kept from turning the text around them. Taught in
notebook 06.
"""

from __future__ import annotations

import base64
import html
import itertools
import threading
import time
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from pathlib import Path

import ipywidgets
import numpy as np
import pandas as pd
import torch
from ipywidgets import Layout

from sasrec_utils.playlist_text import as_csv, as_m3u
from sasrec_utils.recommender import Recommendation, Recommender, extend
from sasrec_utils.sequences import Dataset, Sequences

__all__ = ["PlaylistPicker"]

NOTHING = "nothing"
FOUND, ADDABLE = 50, 30  # how many matches the two lists show
SHUFFLES = 8  # how many shuffled histories the control of the attention averages
_TURNS = dict.fromkeys(map(ord, "\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"))
_number = itertools.count(1)


def _calm(method: Callable) -> Callable:
    """One change at a time, and what a change sets off in other controls is not taken for a change by the reader.

    JupyterLab may deliver what a reader does in a widget on another thread than the one that runs the cells. Answers
    are computed on one core: a single playlist is too small for two to help, and beside a busy browser the second one
    would be waited for (measured: 30 ms against stalls of seconds).
    """

    @wraps(method)
    def calm(self, *args, **kwargs):
        with self._lock:
            if self._busy:
                return None
            self._busy, cores = True, torch.get_num_threads()
            torch.set_num_threads(1)
            try:
                return method(self, *args, **kwargs)
            finally:
                torch.set_num_threads(cores)
                self._busy = False

    return calm


class PlaylistPicker(ipywidgets.VBox):
    """Pick a playlist, see the next tracks, change it, ask why, let it go on. Taught in notebook 06 §3.

    `recommenders`: by name, the first two are shown side by side. `playlists`: in model ids, `names`: one each (None
    is allowed), `tracks`: a table whose row i is model id i + 1, unknown tracks included, with `track_uri`,
    `track_name`, `artist_name`, `album_name`. With `hide_last` the last track of each playlist is kept back as the real
    next one. Whatever a reader can do with the mouse, code can do through the same controls: `search.value = "chill"`,
    `found.index = 0`, `shown.value = 5`, `press("remove")`; `answers`, `table()`, `uris` and `export()` hold what is
    shown.
    """

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
        if not recommenders:
            raise ValueError("a picker needs at least one recommender")
        if len(names) != len(playlists):
            raise ValueError(f"{len(playlists)} playlists need as many names, got {len(names)}")
        if playlists.items.size and playlists.items.max() > len(tracks):
            raise ValueError(f"track {playlists.items.max()} is outside a table of {len(tracks)} tracks")
        self.recommenders, self.playlists, self.hide_last, self.seed = dict(recommenders), playlists, hide_last, seed
        self.names = [_plain(name) or "(no name)" for name in names]
        columns = ("track_uri", "track_name", "artist_name", "album_name")
        self._tracks = {c: tracks[c].to_numpy(dtype=object, na_value=None) for c in columns}
        self._find_playlist = _Finder(self.names)
        self._find_track: _Finder | None = None  # made when somebody first looks for a track
        self._lock, self._busy = threading.RLock(), False
        self.ids: list[int] = []  # the playlist as it stands, oldest track first
        self.added: list[bool] = []  # which of its tracks the reader or a model added
        self.next_id, self.chosen = 0, -1
        self.answers: dict[str, Recommendation] = {}
        self._undo: list[tuple] = []
        self._drawing: str | tuple[int, int] = "mean"  # what the reader wants drawn, wherever the model has it
        self._class = f"playlist-picker-{next(_number)}"
        self._make_controls()
        super().__init__([self._style, self._columns])
        self.add_class("playlist-picker")
        self.add_class(self._class)
        self._search()
        if len(playlists):
            self.choose(0)

    @classmethod
    def from_dataset(
        cls, recommenders: Mapping[str, Recommender], dataset: Dataset, prepared: str | Path, **kwargs
    ) -> PlaylistPicker:
        """A picker over the test playlists of a prepared folder: no model has seen them. Taught in notebook 06 §3."""
        names = pd.read_parquet(Path(prepared) / "playlists.parquet", columns=["name"])["name"]
        names = names.iloc[dataset.split.test].to_numpy(dtype=object, na_value=None)
        tracks = dataset.catalogue.tracks.iloc[dataset.vocabulary.to_catalogue[1:] - 1]
        return cls(recommenders, dataset.test, names, tracks, **kwargs)

    # --- what is there ------------------------------------------------------------------------------------------------

    def _make_controls(self) -> None:
        wide, models = Layout(width="auto"), list(self.recommenders)

        def select(label: str, rows: int) -> ipywidgets.Select:
            return ipywidgets.Select(description=label, rows=rows, layout=Layout(width="auto"), options=())

        def text(label: str, hint: str) -> ipywidgets.Text:
            return ipywidgets.Text(description=label, placeholder=hint, layout=wide)

        def button(label: str, does: str, tip: str) -> ipywidgets.Button:
            made = ipywidgets.Button(description=label, tooltip=tip, layout=Layout(width="auto"))
            made.on_click(lambda _: self.press(does))
            return made

        self._style, self._head, self._note, self._why, self._files = (ipywidgets.HTML() for _ in range(5))
        self._predictions, self._marks = ipywidgets.HTML(), ipywidgets.HTML()
        self._style.value = f"<style>{_CSS.replace('SCOPE', '.' + self._class)}</style>{_KEYS}"
        self.search = text("Search", "part of a playlist's name")
        self.found = select("Playlists", 5)
        self.rows = select("Tracks", 14)
        self.rows.add_class("playlist-picker-rows")
        self.buttons = {
            "remove": button("Remove", "remove", "Take the chosen track out of the playlist"),
            "up": button("Move up", "up", "Swap the chosen track with the one before it"),
            "down": button("Move down", "down", "Swap the chosen track with the one after it"),
            "undo": button("Undo", "undo", "Take back the last change"),
            "restart": button("Start over", "restart", "The playlist as it was picked"),
            "empty": button("Empty", "empty", "Start from an empty playlist"),
        }
        self.track_search = text("Add", "part of a track's or artist's name")
        self.track_found = select("Matches", 3)
        self.buttons["add"] = button("Add to the end", "add", "Add the chosen match to the end of the playlist")
        self.model = ipywidgets.Dropdown(description="Model", options=models, value=models[-1], layout=wide)
        beside = models[-2] if len(models) > 1 else NOTHING
        self.beside = ipywidgets.Dropdown(
            description="Beside it", options=[NOTHING, *models], value=beside, layout=wide
        )
        self.shown = ipywidgets.IntSlider(description="Show", value=10, min=1, max=20, layout=wide)
        self.shown.tooltip = "How many next tracks are shown"
        self.history = ipywidgets.IntSlider(description="History", value=1, min=1, max=1, layout=wide)
        self.history.tooltip = "How many of the newest tracks the models see"
        self.about = ipywidgets.Dropdown(description="Ask about", layout=wide)
        self.draw = ipywidgets.Dropdown(description="Draw", layout=wide)
        self.steps = ipywidgets.IntSlider(description="How many", value=5, min=1, max=50, layout=wide)
        self.temperature = ipywidgets.FloatSlider(
            description="Temperature", value=0.0, min=0.0, max=2.0, step=0.1, layout=wide
        )
        self.temperature.style.description_width = "initial"
        self.buttons["continue"] = button("Continue", "continue", "Let the model add tracks to the end")

        for control in (self.search, self.track_search):
            # Enter takes the first match; what the browser sends then has no public observer any more.
            control.on_msg(lambda sender, content, _: content.get("event") == "submit" and self._take_first(sender))
        self.search.observe(lambda _: self._search(), "value")
        self.track_search.observe(lambda _: self._search_tracks(), "value")
        self.found.observe(self._found_chosen, "index")
        for control in (self.model, self.beside, self.shown, self.history, self.about, self.draw):
            control.observe(self._changed, "value")
        self.rows.observe(self._changed, "index")

        def heading(words: str) -> ipywidgets.HTML:
            return ipywidgets.HTML(f"<h4>{words}</h4>")

        def line(*names: str) -> ipywidgets.HBox:
            return ipywidgets.HBox([self.buttons[name] for name in names], layout=Layout(flex_flow="row wrap"))

        def area(name: str, *children: ipywidgets.Widget) -> ipywidgets.VBox:
            return ipywidgets.VBox(children, layout=Layout(grid_area=name, width="auto", min_width="0"))

        def pair(*children: ipywidgets.Widget) -> ipywidgets.HBox:
            box = ipywidgets.HBox(children, layout=Layout(flex_flow="row wrap"))
            for child in children:
                child.layout = Layout(flex="1 1 200px", width="auto", min_width="0")
            return box

        self._columns = ipywidgets.Box([
            area(
                "pick", heading("Pick a playlist"), self.search, self.found, self._note,
                heading("The playlist"), self._head, self.rows, self._marks,
                line("remove", "up", "down", "undo", "restart", "empty"),
            ),
            area(
                "next", heading("What comes next"), pair(self.model, self.beside), pair(self.shown, self.history),
                self._predictions,
                heading("Add a track"), self.track_search, self.track_found, line("add"),
                heading("Let it go on"), pair(self.steps, self.temperature), line("continue"), self._files,
            ),
            area("why", heading("Why"), self.about, self.draw, self._why),
        ])  # fmt: skip
        self._columns.add_class("playlist-picker-areas")

    @property
    def recommender(self) -> Recommender:
        """The recommender that is asked: the left one of two."""
        return self.recommenders[self.model.value]

    @property
    def uris(self) -> list[str]:
        """URIs of the playlist as it stands, oldest first."""
        return [self._tracks["track_uri"][i - 1] for i in self.ids]

    @property
    def seen(self) -> int:
        """How many of the newest tracks the models are given."""
        return min(self.history.value, len(self.ids))

    def table(self, model: str | None = None) -> pd.DataFrame:
        """What is shown for one of the models (default: the left one): rank, names, share, and whether it is the next.

        `share` is the probability where the model has one, else what `Recommender.probabilities` says.
        """
        name = model or self.model.value
        answer, shares = self.answers[name], self._shares(name)
        table = answer.table[["rank", "track_name", "artist_name", "album_name"]].copy()
        ids = answer.table["track_id"].to_numpy()
        table["share"] = np.nan if shares is None else shares[ids].astype(float)
        table["is_next"] = ids == self.next_id
        return table

    # --- picking ------------------------------------------------------------------------------------------------------

    @_calm
    def _search(self) -> None:
        rows = self._find_playlist(self.search.value)
        lengths = self.playlists.lengths
        options = [(f"{_isolate(_short(self.names[u], 48))} · {lengths[u]} tracks · no. {u}", u) for u in rows[:FOUND]]
        at = [u for _, u in options].index(self.chosen) if self.chosen in rows[:FOUND] else None
        _fill(self.found, options, at)
        more = f"; the first {FOUND} are listed" if len(rows) > FOUND else ""
        self._note.value = f'<div role="status">{len(rows):,} of {_count(len(self.names), "playlist")}{more}</div>'

    def _found_chosen(self, change: dict) -> None:
        if change["new"] is not None:
            self.choose(self.found.options[change["new"]][1])

    def _take_first(self, control: ipywidgets.Text) -> None:
        if control is self.search and self.found.options:
            self.choose(self.found.options[0][1])
        elif control is self.track_search and self.track_found.options:
            self.press("add")

    @_calm
    def choose(self, row: int) -> None:
        """Take playlist number `row` (of those that the picker was given)."""
        ids = self.playlists[row].tolist()
        self.chosen = row
        self.next_id = ids.pop() if self.hide_last and ids else 0
        self._undo.clear()
        listed = [u for _, u in self.found.options]
        self.found.index = listed.index(row) if row in listed else None
        self._put(ids, [False] * len(ids), len(ids) - 1)

    def _put(self, ids: list[int], added: list[bool], at: int) -> None:
        """Make this the playlist, with row `at` chosen, and show all that follows from it."""
        whole = self.history.value >= len(self.ids)
        self.ids, self.added = ids, added
        most = max(1, len(ids))
        self.history.max = most
        self.history.value = most if whole else min(self.history.value, most)
        self.history.disabled = not ids
        _fill(self.rows, [(self._row_label(i), i) for i in range(len(ids))], min(max(at, 0), len(ids) - 1))
        self._refresh()

    # --- changing -----------------------------------------------------------------------------------------------------

    def press(self, button: str) -> None:
        """Press one of the `buttons`: remove, up, down, undo, restart, empty, add, continue."""
        if button not in self.buttons:
            raise ValueError(f"there is no button {button!r}; there are {', '.join(self.buttons)}")
        self._press(button)

    @_calm
    def _press(self, button: str) -> None:
        ids, added, at = list(self.ids), list(self.added), self.rows.index
        if button == "undo":
            if self._undo:
                self._put(*self._undo.pop())
            return
        if button == "restart" and self.chosen >= 0:
            ids = self.playlists[self.chosen].tolist()
            if self.hide_last:
                ids = ids[:-1]
            added, at = [False] * len(ids), len(ids) - 1
        elif button == "empty":
            ids, added, at = [], [], -1
        elif button == "add":
            if not self.track_found.options:
                return
            ids.append(self.track_found.options[self.track_found.index or 0][1])
            added.append(True)
            at = len(ids) - 1
        elif button == "continue":
            new = self._continuation()
            ids, added = ids + new, added + [True] * len(new)
            at = len(ids) - 1
        elif at is None:
            return
        elif button == "remove":
            del ids[at], added[at]
            at = min(at, len(ids) - 1)
        else:  # up, down
            to = at - 1 if button == "up" else at + 1
            if not 0 <= to < len(ids):
                return
            for moved in (ids, added):
                moved[at], moved[to] = moved[to], moved[at]
            at = to
        if ids != self.ids:
            self._undo.append((self.ids, self.added, self.rows.index if self.rows.index is not None else -1))
            self._put(ids, added, at)

    @_calm
    def _search_tracks(self) -> None:
        if self._find_track is None:
            names, artists = self._tracks["track_name"], self._tracks["artist_name"]
            self._find_track = _Finder([f"{a or ''} - {t or ''}" for t, a in zip(names, artists, strict=True)])
        rows = self._find_track(self.track_search.value)[:ADDABLE] if self.track_search.value.strip() else []
        _fill(self.track_found, [(self._label(row + 1), row + 1) for row in rows], 0 if rows else None)

    def _continuation(self) -> list[int]:
        rng = np.random.default_rng(
            [self.seed, len(self.ids), *self.ids[-3:]]
        )  # the same playlist goes on the same way
        last = None if self.seen == len(self.ids) else self.seen
        playlist = Sequences.from_lists([self.ids])
        new = extend(self.recommender.scorer, playlist, self.steps.value, self.temperature.value, rng, last)[0]
        return [int(track) for track in new if track]

    def export(self, kind: str = "csv") -> str:
        """The playlist as text: "csv" (position, uri, track, artist, album) or "m3u" (URIs with names as comments)."""
        rows = np.array(self.ids, dtype=np.int64) - 1
        tracks = pd.DataFrame({name: column[rows] for name, column in self._tracks.items()})
        if kind == "csv":
            return as_csv(tracks)
        if kind == "m3u":
            return as_m3u(tracks)
        raise ValueError(f'an export is "csv" or "m3u", not {kind!r}')

    # --- showing ------------------------------------------------------------------------------------------------------

    @_calm
    def _changed(self, change: dict) -> None:
        if change["owner"] is self.draw:
            self._drawing = self.draw.value
        if change["owner"] in (self.about, self.draw, self.rows):
            self._explain()
        else:
            self._refresh()

    def _refresh(self) -> None:
        """Ask the models again and show what they say; the reasons come after the answers."""
        both = [self.model.value] + (
            [self.beside.value] if self.beside.value not in (NOTHING, self.model.value) else []
        )
        uris, seen = self.uris, self.seen
        older, newest = uris[: len(uris) - seen], uris[len(uris) - seen :]
        began = time.perf_counter()
        self.answers = {
            name: self.recommenders[name].recommend(newest, self.shown.value, exclude=older) for name in both
        }
        self._took = 1000 * (time.perf_counter() - began)
        name = html.escape(self.names[self.chosen]) if self.chosen >= 0 else "(none)"
        changed = " <em>(changed)</em>" if self._undo else ""
        unseen = f", the models see the newest {seen}" if seen < len(uris) else ""
        self._head.value = f"<div><b><bdi>{name}</bdi></b>{changed} · {_count(len(uris), 'track')}{unseen}</div>"
        self._predictions.value = self._predictions_html()
        self._files.value = self._files_html()
        answer = self.answers[both[0]]
        options = [(f"{r} · {self._label(i)}", i) for r, i in zip(answer.table["rank"], answer.table["track_id"].tolist(), strict=True)]  # fmt: skip
        if self.next_id and answer.rank(self.next_id) > len(options):
            options.append((f"★ {self._label(self.next_id)}", self.next_id))
        ids = [i for _, i in options]
        asked = self.about.value
        _fill(self.about, options, ids.index(asked) if asked in ids else (0 if ids else None))
        self._offer_drawings()
        self._explain()

    def _offer_drawings(self) -> None:
        options = [("what removing each track does", "falls"), (NOTHING, "")]
        scorer = self.recommender.scorer
        if hasattr(scorer, "blocks"):
            heads = [(b, h) for b in range(len(scorer.blocks)) for h in range(scorer.config.heads)]
            options = [
                ("attention, mean of all heads", "mean"),
                *((f"attention, block {b + 1}, head {h + 1}", (b, h)) for b, h in heads),
                *options,
            ]
        values = [value for _, value in options]
        if list(self.draw.options) != options:
            _fill(self.draw, options, values.index(self._drawing) if self._drawing in values else 0)

    def _explain(self) -> None:
        """What the playlist's rows show, and the words to it."""
        answer, known = self.answers[self.model.value], len(self.recommender)
        places = [p for p in range(len(self.ids) - self.seen, len(self.ids)) if self.ids[p] <= known]
        limit = getattr(getattr(self.recommender.scorer, "config", None), "max_len", None)
        places = places[-limit:] if limit else places
        row, asked = self.rows.index, self.about.value
        parts, heads, marks = [], "", {p: "not seen" for p in range(len(self.ids)) if p not in set(places)}
        drawn: dict[int, float] = {}
        if isinstance(self.draw.value, tuple) or self.draw.value == "mean":
            *parts, heads = self._explain_attention(places, row, drawn)
        if row is not None and asked:
            alone = self._without([row], asked)[0]
            parts.append(
                f"<p><b>What if row {row + 1} were not there?</b> {self._fall_words(asked, alone, answer)}</p>"
            )
        parts.append(heads)
        if self.draw.value == "falls" and asked and places:
            before = self._share(answer, asked)
            after = [after for after, _ in self._without(places, asked)]
            drawn.update(
                {p: before - a for p, a in zip(places, after, strict=True) if a is not None and before is not None}
            )
            parts.append(
                f"<p>Each row shows how many points the share of {self._named(asked)} gains (+) or loses (-) without it.</p>"
            )
        self._marks.value = self._marks_html(drawn, marks)
        if not self.ids:
            parts.append(f"<p>{html.escape(answer.note)}</p>")
        self._why.value = '<div role="status">' + "".join(parts) + "</div>"

    def _explain_attention(self, places: list[int], row: int | None, drawn: dict[int, float]) -> list[str]:
        if not places:
            return ["<p>There is no track to look at.</p>", ""]
        ids = [self.ids[p] for p in places]
        rng = np.random.default_rng(self.seed)
        shuffled = [[*(ids[j] for j in rng.permutation(len(ids) - 1)), ids[-1]] for _ in range(SHUFFLES)]
        attention = self.recommender.attention([ids, *shuffled])  # [1 + S, blocks, H, L]
        real, control = attention[0], attention[1:].mean(0)

        def of(weights: np.ndarray) -> np.ndarray:
            return weights.mean((0, 1)) if self.draw.value == "mean" else weights[self.draw.value]

        drawn.update(zip(places, of(real).tolist(), strict=True))
        label = self.draw.label.removeprefix("attention, ")
        top = np.argsort(-of(real), kind="stable")[:3]
        most = ", ".join(f"{of(real)[j]:.0%} to row {places[j] + 1}" for j in top)
        nothing = 1 - of(real).sum()
        lines = [f"<p><b>Where the newest track looks</b> ({label}): {most}; {max(nothing, 0):.0%} to no track.</p>"]
        j = places.index(row) if row in places else int(top[0])
        lines.append(
            f"<p><b>Control:</b> row {places[j] + 1} gets {of(real)[j]:.0%}; with the earlier tracks shuffled, whatever "
            f"stands there gets {of(control)[j]:.0%}: that much belongs to the place, not to the track. A weight says "
            "where a head looks, not what it changes (notebook 03).</p>"
        )
        cells = []
        for b, h in np.ndindex(real.shape[:2]):
            j = int(real[b, h].argmax())
            cells.append(
                f'<tr><th scope="row">{b + 1} · {h + 1}</th><td>row {places[j] + 1}, {len(self.ids) - 1 - places[j]} back</td>'
                f"<td>{real[b, h, j]:.0%}</td><td>{control[b, h, j]:.0%}</td></tr>"
            )
        head = "".join(
            f'<th scope="col">{name}</th>' for name in ("block · head", "looks most at", "weight", "control")
        )
        lines.append(f'<table class="heads"><thead><tr>{head}</tr></thead><tbody>{"".join(cells)}</tbody></table>')
        return lines

    def _without(self, places: Iterable[int], asked: int) -> list[tuple[float | None, int]]:
        """Share and rank of a track when one place of the playlist is taken out, for each of `places`."""
        first, uris, recommender = len(self.ids) - self.seen, self.uris, self.recommender
        places = list(places)
        histories = [uris[first:p] + uris[p + 1 :] if p >= first else uris[first:] for p in places]
        others = [uris[:first] for _ in places]
        answers = recommender.recommend_batch(histories, 1, others)
        found = []
        for answer in answers:
            shares = recommender.probabilities(answer)
            found.append((None if shares is None else float(shares[asked]), answer.rank(asked)))
        return found

    def _share(self, answer: Recommendation, asked: int) -> float | None:
        shares = self.recommender.probabilities(answer)
        return None if shares is None else float(shares[asked])

    def _fall_words(self, asked: int, alone: tuple[float | None, int], answer: Recommendation) -> str:
        share, rank = self._share(answer, asked), answer.rank(asked)
        after, later = alone

        def state(share: float | None, rank: int) -> str:
            return (f"rank {rank}" if rank else "no candidate") + (f" ({share:.1%})" if share is not None else "")

        if share is None or after is None:
            change = "goes"
        else:
            change = "stays" if abs(after - share) < 5e-5 and rank == later else ("falls" if after < share else "rises")
        if change == "stays":
            return f"{self._named(asked)} stays at {state(share, rank)}."
        return f"{self._named(asked)} {change} from {state(share, rank)} to {state(after, later)}."

    # --- HTML ---------------------------------------------------------------------------------------------------------

    def _shares(self, name: str) -> np.ndarray | None:
        return self.recommenders[name].probabilities(self.answers[name])

    def _unit(self, name: str) -> str:
        return "share of the score" if "knn" in self.recommenders[name].scorer.name.lower() else "probability"

    def _predictions_html(self) -> str:
        shares = {name: self._shares(name) for name in self.answers}
        tables = {name: answer.table["track_id"].to_numpy() for name, answer in self.answers.items()}
        tops = [float(shares[name][ids].max()) for name, ids in tables.items() if shares[name] is not None and len(ids)]
        scale = max([*tops, 1e-9])
        boxes = [self._answer_html(name, tables[name], shares[name], scale) for name in self.answers]
        both = ""
        if len(tables) == 2:
            (a, first), (b, second) = tables.items()
            common = len(set(first.tolist()) & set(second.tolist()))
            both = f"<p>{common} of {len(first)} tracks stand in both lists ({html.escape(a)}, {html.escape(b)}).</p>"
        truth = self._truth_html(shares)
        took = f'<p class="by">Answered in {self._took:.0f} ms.</p>'
        return f'<div role="status">{truth}</div><div class="answers">{"".join(boxes)}</div>{both}{took}'

    def _truth_html(self, shares: Mapping[str, np.ndarray | None]) -> str:
        if not self.next_id:
            return ""
        told = []
        for name, answer in self.answers.items():
            rank = answer.rank(self.next_id)
            share = "" if not rank or shares[name] is None else f", {shares[name][self.next_id]:.1%}"
            told.append(f"{html.escape(name)} has it at rank {rank:,}{share}" if rank else f"{html.escape(name)} cannot name it")  # fmt: skip
        why = ""
        if self.next_id in self.ids:
            why = " It is in the playlist already, so it is no candidate."
        elif self.next_id > len(self.recommender):
            why = " No training playlist had it: it is unknown to every model."
        return f"<p>★ The real next track: {self._named(self.next_id)}. {'; '.join(told)}.{why}</p>"

    def _answer_html(self, name: str, ids: np.ndarray, shares: np.ndarray | None, scale: float) -> str:
        answer, body = self.answers[name], []
        rows = list(zip(answer.table["rank"].tolist(), ids.tolist(), strict=True))
        rank = answer.rank(self.next_id) if self.next_id else 0
        if rank > len(rows):
            rows.append((rank, self.next_id))
        for r, i in rows:
            kind = ' class="next"' if i == self.next_id else ""
            star = '<span class="star">★ next</span>' if i == self.next_id else ""
            number = "" if shares is None else f"{shares[i]:.1%}"
            width = 0.0 if shares is None else min(100.0, 100 * float(shares[i]) / scale)
            body.append(
                f'<tr{kind}><th scope="row">{r:,}</th><td><bdi class="track">{self._part(i, "track_name")}</bdi> {star}'
                f'<div class="by"><bdi class="artist">{self._part(i, "artist_name")}</bdi> · '
                f'<bdi class="album">{self._part(i, "album_name")}</bdi></div></td>'
                f'<td class="share"><span class="number">{number}</span>'
                f'<span class="bar" aria-hidden="true"><span style="width:{width:.1f}%"></span></span></td></tr>'
            )
        note = f"<p>{html.escape(answer.note)}</p>" if answer.note else ""
        head = f'<th scope="col">#</th><th scope="col">track</th><th scope="col">{self._unit(name)}</th>'
        return (
            f'<div class="answer"><table><caption>{html.escape(name)}</caption><thead><tr>{head}</tr></thead>'
            f"<tbody>{''.join(body)}</tbody></table>{note}</div>"
        )

    def _marks_html(self, drawn: Mapping[int, float], marks: Mapping[int, str]) -> str:
        """Style rules that draw bars behind the rows of the playlist and numbers at their right ends."""
        scale = max([abs(v) for v in drawn.values()] + [1e-9]) if self.draw.value == "falls" else 1.0
        row = f".{self._class} .playlist-picker-rows option:nth-child"
        rules = [f'{row}({p + 1}){{opacity:.6}}{row}({p + 1})::after{{content:"{word}"}}' for p, word in marks.items()]
        for p, value in drawn.items():
            width = min(100.0, 100 * abs(value) / scale)
            number = f"{value:.0%}" if self.draw.value != "falls" else f"{-100 * value:+.1f}"
            if number not in ("0%", "+0.0", "-0.0"):
                rules.append(f'{row}({p + 1}){{--bar:{width:.1f}%}}{row}({p + 1})::after{{content:"{number}"}}')
        what = ""
        if drawn and self.draw.value == "falls":
            what = "Bars: points by which the asked track's share changes without this row."
        elif drawn:
            what = f"Bars: share of the look from the newest track ({html.escape(self.draw.label)})."
        return f"<style>{''.join(rules)}</style><div>{what}</div>"

    def _files_html(self) -> str:
        links = []
        for kind, name, mime in (("csv", "playlist.csv", "text/csv"), ("m3u", "playlist.m3u8", "audio/x-mpegurl")):
            data = base64.b64encode(self.export(kind).encode()).decode()
            links.append(f'<a download="{name}" href="data:{mime};charset=utf-8;base64,{data}">Save as {name}</a>')
        return f"<div>{' · '.join(links)}</div>"

    # --- names --------------------------------------------------------------------------------------------------------

    def _part(self, i: int, column: str) -> str:
        return html.escape(_short(_plain(self._tracks[column][i - 1]) or "(unknown)", 80))

    def _named(self, i: int) -> str:
        return f"<bdi>{self._part(i, 'track_name')}</bdi> — <bdi>{self._part(i, 'artist_name')}</bdi>"

    def _label(self, i: int, isolate: bool = True, limit: int = 60) -> str:
        parts = (_plain(self._tracks[c][i - 1]) or "(unknown)" for c in ("track_name", "artist_name"))
        return " — ".join(_isolate(_short(part, limit)) if isolate else _short(part, limit) for part in parts)

    def _row_label(self, place: int) -> str:
        added = " +" if self.added[place] else ""
        return f"{place + 1}.{added} {self._label(self.ids[place])}"

    # --- without a kernel ---------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        if not self.answers:
            return "PlaylistPicker(no playlists)"
        lines = [
            f"PlaylistPicker: {self.names[self.chosen] if self.chosen >= 0 else '(none)'}, {_count(len(self.ids), 'track')}"
        ]
        for name in self.answers:
            table = self.table(name).head(3)
            best = "; ".join(f"{r.rank}. {r.track_name} ({r.artist_name})" for r in table.itertuples())
            lines.append(f"{name}: {best}")
        return "\n".join(lines)

    def _repr_mimebundle_(self, **kwargs) -> dict:
        bundle = super()._repr_mimebundle_(**kwargs)
        return {**bundle, "text/plain": repr(self), "text/html": self.twin()}

    def twin(self) -> str:
        """What is shown, as plain HTML tables without style or controls: for readers that have no kernel."""
        if not self.answers:
            return "<p>No playlists.</p>"
        name = html.escape(self.names[self.chosen]) if self.chosen >= 0 else "(none)"
        newest = [f"<li>{self._named(i)}</li>" for i in self.ids[-8:]]
        before = len(self.ids) - len(newest)
        parts = [f"<p><b><bdi>{name}</bdi></b>, {_count(len(self.ids), 'track')}; the newest {len(newest)}:</p>"]
        parts.append(f'<ol start="{before + 1}">{"".join(newest)}</ol>')
        shares = {name: self._shares(name) for name in self.answers}
        parts.append(self._truth_html(shares))
        tops = [s[a.table["track_id"]].max() for s, a in zip(shares.values(), self.answers.values(), strict=True) if s is not None and len(a.table)]  # fmt: skip
        for name, answer in self.answers.items():
            rows = []
            for r, i in zip(answer.table["rank"].tolist(), answer.table["track_id"].tolist(), strict=True):
                share = None if shares[name] is None else float(shares[name][i])
                bar = "" if share is None else f"{'█' * round(12 * share / max([*tops, 1e-9]))} {share:.1%}"
                star = " ★ the real next track" if i == self.next_id else ""
                rows.append(
                    f"<tr><td>{r}</td><td><bdi>{self._part(i, 'track_name')}</bdi>{star}</td><td><bdi>{self._part(i, 'artist_name')}"
                    f"</bdi></td><td><bdi>{self._part(i, 'album_name')}</bdi></td><td>{bar}</td></tr>"
                )
            head = f"<tr><th>#</th><th>track</th><th>artist</th><th>album</th><th>{self._unit(name)}</th></tr>"
            parts.append(f"<table><caption>{html.escape(name)}</caption><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>")  # fmt: skip
        parts.append("<p>Run the notebook to search, change the playlist and ask why.</p>")
        return "\n".join(part for part in parts if part)


class _Finder:
    """Which of many texts contain all words of a query, in any case and without accents; the texts' own order.

    All texts stand in one string, so that thousands of them are searched in a millisecond.
    """

    def __init__(self, texts: Sequence[str]):
        folded = [_fold(text) for text in texts]
        self.blob = "\n".join(folded) + "\n"
        self.starts = [0, *itertools.accumulate(len(text) + 1 for text in folded)]

    def __call__(self, query: str) -> list[int]:
        words = sorted(_fold(query).split(), key=self.blob.count)  # the rarest first: few texts are looked at
        if not words:
            return list(range(len(self.starts) - 1))
        exact, found, at = [], [], self.blob.find(words[0])
        whole = _fold(query)
        while at >= 0:
            row = bisect_right(self.starts, at) - 1
            start, end = self.starts[row], self.starts[row + 1]
            text = self.blob[start : end - 1]
            if all(word in text for word in words[1:]):
                (exact if text == whole else found).append(row)
            at = self.blob.find(words[0], end)
        return exact + found


def _fill(control: ipywidgets.Select | ipywidgets.Dropdown, options: list[tuple], index: int | None) -> None:
    """New options with one of them chosen, sent to the browser as one change."""
    if list(control.options) == options and control.index == index:
        return
    with control.hold_sync():
        control.options = options
        control.index = index if options else None


def _fold(text: str) -> str:
    if not text.isascii():
        text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return " ".join(text.casefold().split())


def _plain(text: str | None) -> str:
    """One line without characters that turn the direction of what stands around them, or that no one can see."""
    text = " ".join((text or "").translate(_TURNS).split())
    return "".join(c for c in text if unicodedata.category(c) not in ("Cc", "Cs"))


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _isolate(text: str) -> str:
    """Kept apart from its surroundings: right-to-left names must not reorder the numbers beside them."""
    return text if text.isascii() else f"\u2068{text}\u2069"


def _count(n: int, thing: str) -> str:
    return f"{n:,} {thing}" + ("" if n == 1 else "s")


# JupyterLab takes arrow keys and letters for commands to the notebook (x cuts the cell), even while a list or a slider has
# the focus (seen with 4.6). So keys stop at the picker; those with Ctrl, Alt or Cmd, and Shift+Enter, go on to JupyterLab.
# And the handle of a slider has no name of its own (ipywidgets 8.1): it gets that of its label.
_KEYS = """<img alt="" hidden src="data:," onerror="
const root = this.closest('.playlist-picker');
root.addEventListener('keydown', e => {
  if (!(e.ctrlKey || e.metaKey || e.altKey || (e.shiftKey && e.key == 'Enter'))) e.stopPropagation();
});
root.addEventListener('focusin', e => {
  const label = e.target.closest('.widget-slider')?.querySelector('label');
  if (label) e.target.setAttribute('aria-label', label.textContent);
});">""".replace("\n", " ")

_CSS = """
SCOPE{--ink:var(--jp-ui-font-color1,#212121);--soft:var(--jp-ui-font-color2,#5f5f5f);--line:var(--jp-border-color2,#bdbdbd);
 --paper:var(--jp-layout-color1,#fff);--tint:rgba(86,180,233,.42);color:var(--ink);background:var(--paper);padding:4px;max-width:1200px;width:auto;container-type:inline-size}
SCOPE .playlist-picker-areas{display:grid;grid-template-columns:minmax(0,9fr) minmax(0,11fr);grid-template-rows:auto 1fr;
 grid-template-areas:"pick next" "why next";gap:0 16px;overflow:visible}
@container (max-width:720px){SCOPE .playlist-picker-areas{grid-template-columns:minmax(0,1fr);grid-template-rows:none;
 grid-template-areas:"pick" "next" "why"}}
SCOPE .jupyter-widgets{min-width:0}
SCOPE .widget-html-content,SCOPE .jupyter-widget-html-content{line-height:1.4;color:var(--ink)}
SCOPE h4{margin:8px 0 2px;font-size:1.05em}
SCOPE p{margin:4px 0}
SCOPE bdi{overflow-wrap:anywhere}
SCOPE .playlist-picker-rows option{--bar:0%;position:relative;padding:2px 4.2em 2px 6px;overflow:hidden;text-overflow:ellipsis;white-space:nowrap;
 background:linear-gradient(to right,var(--tint) var(--bar),transparent 0)}
SCOPE .playlist-picker-rows option::after{position:absolute;right:6px;top:2px;font-weight:normal}
SCOPE .playlist-picker-rows option:checked{color:var(--ink);font-weight:bold;outline:2px solid var(--ink);outline-offset:-2px;
 background:linear-gradient(to right,var(--tint) var(--bar),transparent 0)}
SCOPE select:focus-visible{outline:2px solid var(--jp-brand-color1,#0072b2)}
SCOPE .answers{display:flex;flex-wrap:wrap;gap:4px 16px}
SCOPE .answer{flex:1 1 250px;min-width:0}
SCOPE table{border-collapse:collapse;width:100%;table-layout:fixed;font-size:inherit;color:var(--ink);margin:4px 0}
SCOPE caption{font-weight:bold;text-align:left;caption-side:top;color:var(--ink)}
SCOPE .answer th:first-child{width:2.5em;white-space:nowrap;overflow-wrap:normal}
SCOPE .answer th:last-child{width:5.8em}
SCOPE th,SCOPE td{text-align:left;vertical-align:top;padding:2px 4px;border-bottom:1px solid var(--line);
 white-space:normal;max-width:none;overflow-wrap:anywhere}
SCOPE thead th{font-weight:normal;color:var(--soft)}
SCOPE .by,SCOPE p.by{color:var(--soft);font-size:.92em}
SCOPE .number{display:block;text-align:right;font-variant-numeric:tabular-nums}
SCOPE .bar{display:block;height:7px}
SCOPE .bar span{display:block;height:7px;min-width:1px;background:#0072b2;border-radius:1px}
SCOPE .next td,SCOPE .next th{border-top:2px solid var(--ink);border-bottom:2px solid var(--ink);font-weight:bold}
SCOPE .next .by,SCOPE .next .star{font-weight:normal}
SCOPE .next .bar span{background:repeating-linear-gradient(135deg,#d55e00 0 4px,transparent 4px 6px)}
SCOPE .heads{max-width:480px;font-size:.92em}
SCOPE a{color:var(--jp-content-link-color,#0b5fa5)}
""".strip()

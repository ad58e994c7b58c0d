"""What lies on the table: a playlist, what each model would play next, and why. No widget in it, and no HTML.

A `Desk` holds the playlist as it stands and answers every question that the picker can ask. What is to be seen is in
`view.view(desk)` and `reasons()`: plain dictionaries of text and numbers, which `widget` sends to the browser.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from sasrec_utils.course.picker.wording import Finder, count, share, unit
from sasrec_utils.model import SASRec
from sasrec_utils.playlist_text import PlaylistText, as_csv, as_m3u, read_playlist
from sasrec_utils.recommender import Recommendation, Recommender, extend
from sasrec_utils.sequences import Sequences
from sasrec_utils.track_names import TrackNames, plain
from sasrec_utils.world import Oracle

NOTHING = "nothing"
FOUND = 12  # how many matches a search lists
SHUFFLES = 8  # how many shuffled histories the control of the attention averages
REMOVED = 100  # how many of the newest tracks are taken out on trial
CHOICES = 10  # tracks to guess among


@dataclass(frozen=True)
class Settings:
    """What the reader can turn. `seen`: how many of the newest tracks the models see, 0 = all. `draw`: what the bars
    behind the playlist show: "removals", "attention" (the mean of all heads) or "attention 2.1" (block 2, head 1)."""

    shown: int = 10
    seen: int = 0
    steps: int = 5
    temperature: float = 0.0
    draw: str = "removals"


@dataclass
class Round:
    """One round of guessing: ten tracks, one of which came next. `picks`: by name, which one each chose."""

    choices: list[int]
    answer: int
    picks: dict[str, int] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        """Whether the reader has chosen."""
        return "you" in self.picks


class Desk:
    """A playlist and its next tracks. See `PlaylistPicker` for the arguments.

    `ids`: the playlist in model ids, oldest first; `added`: which of them the reader or a model added; `next_id`: the
    track that really came next (0: none); `answers`: by model, what is shown; `status`: what happened last, in words.
    """

    def __init__(
        self,
        recommenders: Mapping[str, Recommender],
        playlists: Sequences,
        names: Sequence[str | None],
        tracks: pd.DataFrame,
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
        self.names = [plain(name) or "(no name)" for name in names]
        self.tracks = TrackNames(tracks)
        self._find_playlist = Finder(self.names)
        models = list(recommenders)
        self.model, self.beside = models[-1], models[-2] if len(models) > 1 else NOTHING
        self.settings = Settings()
        self.ids: list[int] = []
        self.added: list[bool] = []
        self.title, self.chosen, self.next_id = "Your playlist", -1, 0
        self.asked, self.row = 0, -1  # the track that "why" is about (0: the first one shown), and the playlist's row
        self.answers: dict[str, Recommendation] = {}
        self.status, self.took = "", 0.0
        self.read: PlaylistText | None = None  # the reader's own playlist, as it was read
        self.round: Round | None = None
        self.score: dict[str, int] = {}
        self.rounds = 0
        self._start: tuple[list[int], str] = ([], self.title)
        self._undo: list[tuple[list[int], list[bool], str]] = []
        if len(playlists):
            self.choose(0)
        else:
            self.refresh()

    # --- finding ------------------------------------------------------------------------------------------------------

    def search(self, query: str) -> tuple[list[int], int]:
        """Numbers of the playlists whose names hold all words of `query`: the first ones, and how many there are."""
        rows = self._find_playlist(query)
        return rows[:FOUND], len(rows)

    def find(self, query: str) -> list[int]:
        """Model ids of tracks whose title or artist holds all words of `query`, the most played first."""
        return self.tracks.search(query, FOUND)

    # --- the playlist -------------------------------------------------------------------------------------------------

    def choose(self, row: int) -> None:
        """Take playlist number `row` (of those that the desk was given)."""
        ids = self.playlists[row].tolist()
        self.next_id = ids.pop() if self.hide_last and ids else 0
        self.chosen, self.read, self.round = row, None, None
        self._begin(ids, self.names[row], f"{self.names[row]}: {count(len(ids), 'track')}.")

    def paste(self, text: str | bytes) -> PlaylistText:
        """Take the reader's own playlist; returns what was read. Raises PlaylistTextError if there is nothing."""
        found = read_playlist(text, self.tracks)
        self.read, self.chosen, self.next_id, self.round = found, -1, 0, None
        said = f"{len(found.ids):,} of {count(len(found.entries), 'track')} recognised."
        self._begin(list(found.ids), "Your playlist", said)
        return found

    def _begin(self, ids: list[int], title: str, said: str) -> None:
        self._start, self._undo, self.asked, self.row = (list(ids), title), [], 0, -1
        self.ids, self.added, self.title, self.status = ids, [False] * len(ids), title, said
        self.refresh()

    def add(self, track: int) -> None:
        """Put a track (a model id) at the end."""
        self._change([*self.ids, track], [*self.added, True], f"Added {self.label(track)}.")

    def remove(self, at: int) -> None:
        """Take the track at this place (from 0) out."""
        if not 0 <= at < len(self.ids):
            return
        gone = self.label(self.ids[at])
        self._change(self.ids[:at] + self.ids[at + 1 :], self.added[:at] + self.added[at + 1 :], f"Removed {gone}.")

    def move(self, at: int, to: int) -> None:
        """Put the track at place `at` to place `to`; the others close up."""
        if not (0 <= at < len(self.ids) and 0 <= to < len(self.ids)) or at == to:
            return
        ids, added = list(self.ids), list(self.added)
        ids.insert(to, ids.pop(at))
        added.insert(to, added.pop(at))
        self._change(ids, added, f"Moved {self.label(self.ids[at])} to place {to + 1}.")

    def go_on(self, steps: int | None = None, temperature: float | None = None) -> list[int]:
        """Let the asked model add tracks to the end, each told to it before the next; returns them."""
        steps = self.settings.steps if steps is None else steps
        temperature = self.settings.temperature if temperature is None else temperature
        rng = np.random.default_rng(
            [self.seed, len(self.ids), *self.ids[-3:]]
        )  # the same playlist goes on the same way
        last = self.settings.seen or None
        new = extend(
            self.recommenders[self.model].scorer, Sequences.from_lists([self.ids]), steps, temperature, rng, last
        )
        tracks = [int(track) for track in new[0] if track]
        if tracks:
            said = f"{self.model} added {count(len(tracks), 'track')}."
            self._change(self.ids + tracks, self.added + [True] * len(tracks), said)
        return tracks

    def undo(self) -> None:
        """Take back the last change."""
        if self._undo:
            self.ids, self.added, what = self._undo.pop()
            self.status = f"Taken back: {what}"
            self.row = -1
            self.refresh()

    @property
    def changed(self) -> bool:
        """Whether there is anything to take back."""
        return bool(self._undo)

    @property
    def begun(self) -> bool:
        """Whether `restart` would bring back a playlist."""
        return bool(self._start[0])

    def restart(self) -> None:
        """The playlist as it was picked or pasted."""
        if self._undo:
            self._begin(list(self._start[0]), self._start[1], "As it was at the start.")

    def empty(self) -> None:
        """Start from nothing."""
        if self.ids or self.next_id:
            self.next_id, self.chosen, self.title, self.round = 0, -1, "Your playlist", None
            self._change([], [], "An empty playlist: add a track.")

    def _change(self, ids: list[int], added: list[bool], said: str) -> None:
        self._undo.append((self.ids, self.added, said))
        self.ids, self.added, self.status, self.row = ids, added, said, -1
        self.refresh()

    # --- asking -------------------------------------------------------------------------------------------------------

    def compare(self, model: str, beside: str = NOTHING) -> None:
        """Which model is asked, and which one stands beside it ("nothing" for none)."""
        for name in (model, beside):
            if name not in self.recommenders and name != NOTHING:
                raise ValueError(f"there is no model {name!r}; there are {', '.join(self.recommenders)}")
        self.model, self.beside = model, beside if beside != model else NOTHING
        self.status = ""
        self.refresh()

    def turn(self, **changes) -> None:
        """Change some of the `Settings`."""
        self.settings = Settings(**{**vars(self.settings), **changes})
        self.status = ""
        self.refresh()

    def ask(self, track: int = 0, row: int = -1) -> None:
        """What "why" is about: a track (0: the first one shown) and a row (-1: the one that matters most)."""
        self.asked, self.row = track, row

    @property
    def seen(self) -> int:
        """How many of the newest tracks the models are given."""
        return min(self.settings.seen or len(self.ids), len(self.ids))

    @property
    def uris(self) -> list[str]:
        """URIs of the playlist as it stands, oldest first."""
        column = self.tracks.columns["track_uri"]
        return [column[i - 1] for i in self.ids]

    def label(self, track: int) -> str:
        """“Title” by Artist, in one line; what is missing is left out."""
        title, artist = (plain(self.tracks.columns[c][track - 1]) for c in ("track_name", "artist_name"))
        return f"“{title or 'untitled'}”" + (f" by {artist}" if artist else "")

    def refresh(self) -> None:
        """Ask the models again."""
        older, newest = self.uris[: len(self.ids) - self.seen], self.uris[len(self.ids) - self.seen :]
        both = [self.model] + ([self.beside] if self.beside != NOTHING else [])
        began = time.perf_counter()
        self.answers = {m: self.recommenders[m].recommend(newest, self.settings.shown, exclude=older) for m in both}
        self.took = 1000 * (time.perf_counter() - began)
        if self.asked and not self.answers[self.model].rank(self.asked):
            self.asked = 0

    def strengths(self, name: str) -> np.ndarray:
        """How strongly a model's answer speaks for each track, float [N+1]: its probability where it has one."""
        answer = self.answers[name]
        shares = (
            self.recommenders[name].probabilities(answer) if unit(self.recommenders[name]) == "probability" else None
        )
        return answer.scores if shares is None else shares

    def table(self, model: str | None = None) -> pd.DataFrame:
        """What is shown for one of the models (default: the asked one): rank, names, strength, whether it came next."""
        name = model or self.model
        table = self.answers[name].table[["rank", "track_name", "artist_name", "album_name"]].copy()
        ids = self.answers[name].table["track_id"].to_numpy()
        table["strength"] = self.strengths(name)[ids].astype(float)
        table["is_next"] = ids == self.next_id
        return table

    def export(self, kind: str = "csv") -> str:
        """The playlist as text: "csv" (with names, for a spreadsheet) or "m3u" (URIs with names as comments)."""
        if kind not in ("csv", "m3u"):
            raise ValueError(f'an export is "csv" or "m3u", not {kind!r}')
        table = self.tracks.table(self.ids)
        return as_csv(table) if kind == "csv" else as_m3u(table)

    # --- why ----------------------------------------------------------------------------------------------------------

    def places(self) -> list[int]:
        """The places of the playlist that the asked model really uses: known, not too old, not hidden by `seen`."""
        recommender = self.recommenders[self.model]
        used = [p for p in range(len(self.ids) - self.seen, len(self.ids)) if self.ids[p] <= len(recommender)]
        limit = getattr(getattr(recommender.scorer, "config", None), "max_len", REMOVED)
        return used[-min(limit, REMOVED) :]

    def without(self, places: Sequence[int], track: int) -> tuple[np.ndarray, np.ndarray]:
        """Strength and rank of a track when the playlist loses one of these places: (float [n], int [n])."""
        recommender = self.recommenders[self.model]
        known = len(recommender)
        seen = self.ids[len(self.ids) - self.seen :]
        first = len(self.ids) - self.seen
        histories = [seen[: p - first] + seen[p - first + 1 :] for p in places]
        histories = [[i for i in history if i <= known] for history in histories]
        scores = recommender.scorer.score(Sequences.from_lists(histories))  # [n, N+1]
        own = scores[:, track]
        strengths = own
        if isinstance(recommender.scorer, SASRec):  # scores are logarithms up to a constant
            top = scores[:, 1:].max(axis=1)
            strengths = np.exp(own - top) / np.exp(scores[:, 1:] - top[:, None]).sum(axis=1)
        # The rank: how many candidates score at least as high. What the playlist has is no candidate, what was taken
        # out of it is one again, unless it stands there twice.
        taken = sorted({i for i in self.ids if i <= known})
        better = (scores[:, 1:] >= own[:, None]).sum(axis=1) - (scores[:, taken] >= own[:, None]).sum(axis=1)
        gone = np.array([self.ids[p] for p in places])
        again = np.array([self.ids.count(i) == 1 for i in gone]) & (scores[np.arange(len(places)), gone] >= own)
        return strengths, better + again

    def reasons(self) -> dict:
        """Why the asked track: one sentence, and a bar and a number for each row of the playlist."""
        answer, shown = self.answers[self.model], self.answers[self.model].table["track_id"].tolist()
        asked = self.asked or (shown[0] if shown else 0)
        places = self.places()
        rows = [{"bar": 0.0, "number": "", "note": ""} for _ in self.ids]
        for p in set(range(len(self.ids))) - set(places):
            rows[p]["note"] = "new to the models" if self.ids[p] > len(self.recommenders[self.model]) else "not seen"
        seen = {"asked": asked, "rows": rows, "heads": [], "bars": "", "control": ""}
        if not asked or not places:
            empty = "Nothing here to go by, so these are the most played tracks." if asked else ""
            return seen | {"sentence": empty}
        before, rank = float(self.strengths(self.model)[asked]), answer.rank(asked)
        after, later = self.without(places, asked)
        change = after / before - 1 if before > 0 else np.zeros(len(places))
        sentence = self._because(asked, places, rank, before, after, later)
        if self.settings.draw == "removals" or not isinstance(self.recommenders[self.model].scorer, SASRec):
            for p, value in zip(places, change.tolist(), strict=True):
                number = f"{100 * value:+.0f}%" if abs(value) >= 0.005 else ""
                rows[p] |= {"bar": float(np.clip(-value, -1, 1)), "number": number.replace("-", "−")}
            unit_name = unit(self.recommenders[self.model])
            seen["bars"] = f"how the {unit_name} of {self.label(asked)} changes without this track"
            return seen | {"sentence": sentence}
        return seen | self._attention(places, rows) | {"sentence": sentence}

    def _because(
        self, asked: int, places: list[int], rank: int, before: float, after: np.ndarray, later: np.ndarray
    ) -> str:
        """One sentence: the track without which the asked one loses most, or the one that the reader points at."""
        probable = unit(self.recommenders[self.model]) == "probability"
        name = self.label(asked)

        def numbers(i: int) -> str:
            return f" ({share(before)} → {share(float(after[i]))})" if probable else ""

        if self.row in places:
            i = places.index(self.row)
            of = self.label(self.ids[self.row])
            if rank == later[i] and abs(after[i] - before) <= 0.02 * abs(before):
                return f"Without {of}, {name} stays at rank {rank:,}: it does not rest on that track."
            verb = "falls" if later[i] > rank else "rises" if later[i] < rank else "stays at rank"
            moved = f"stays at rank {rank:,}" if later[i] == rank else f"{verb} from rank {rank:,} to {later[i]:,}"
            return f"Without {of}, {name} {moved}{numbers(i)}."
        i = int(np.argmin(after))
        if not after[i] < 0.9 * before:
            span = sorted({int(later.min()), int(later.max()), rank})
            between = f"at rank {rank:,}" if len(span) == 1 else f"between ranks {span[0]:,} and {span[-1]:,}"
            return f"No single track decides this: whichever of yours is missing, {name} stays {between}."
        of = self.label(self.ids[places[i]])
        moved = f"it stays at rank {rank:,}" if later[i] == rank else f"it falls from rank {rank:,} to {later[i]:,}"
        if later[i] < rank:
            moved = f"it goes from rank {rank:,} to {later[i]:,}"
        return f"{name}: because you had {of}. Without that, {moved}{numbers(i)}."

    def _attention(self, places: list[int], rows: list[dict]) -> dict:
        """Where the newest track looks, beside a control: the same with the earlier tracks shuffled."""
        ids = [self.ids[p] for p in places]
        rng = np.random.default_rng(self.seed)
        shuffled = [[*(ids[j] for j in rng.permutation(len(ids) - 1)), ids[-1]] for _ in range(SHUFFLES)]
        attention = self.recommenders[self.model].attention([ids, *shuffled])  # [1 + S, blocks, H, L]
        real, control = attention[0], attention[1:].mean(0)
        head = self.settings.draw.removeprefix("attention").strip()
        block, number = (int(part) - 1 for part in head.split(".")) if head else (slice(None), slice(None))
        drawn, expected = (w[block, number].reshape(-1, len(places)).mean(0) for w in (real, control))
        for p, weight in zip(places, drawn.tolist(), strict=True):
            rows[p] |= {"bar": weight, "number": f"{100 * weight:.0f}%" if weight >= 0.005 else ""}
        top = int(drawn.argmax())
        heads = []
        for b, h in np.ndindex(real.shape[:2]):
            j = int(real[b, h].argmax())
            heads.append(
                [f"{b + 1}.{h + 1}", f"{len(ids) - 1 - j} back", share(real[b, h, j]), share(control[b, h, j])]
            )
        control_words = (
            f"It looks most at row {places[top] + 1} ({share(drawn[top])}); with the earlier tracks shuffled, whatever "
            f"stands there gets {share(expected[top])}: that much belongs to the place, not to the track. A weight "
            "says where a head looks, not what it changes."
        )
        return {"heads": heads, "control": control_words, "bars": "where the newest track looks"}

    # --- guessing -----------------------------------------------------------------------------------------------------

    @property
    def can_guess(self) -> bool:
        """Whether the real next track is one that could be named."""
        return 0 < self.next_id <= len(self.recommenders[self.model]) and self.next_id not in self.ids

    def guess_next(self) -> Round:
        """Begin a round: the track that really came next among nine others, drawn by how often they are played."""
        known = len(self.recommenders[self.model])
        if not 0 < self.next_id <= known or self.next_id in self.ids:
            raise ValueError("this playlist has no next track that could be guessed: pick another one")
        rng = np.random.default_rng([self.seed, self.chosen + 1, len(self.ids)])
        others = [
            i for i in rng.permutation(self._by_plays(rng, known)) if i != self.next_id and i not in set(self.ids)
        ]
        choices = [int(i) for i in rng.permutation([self.next_id, *others[: CHOICES - 1]])]
        self.round, self.status = Round(choices, self.next_id), "Which of these came next?"
        return self.round

    def _by_plays(self, rng: np.random.Generator, known: int) -> np.ndarray:
        """Distinct tracks, the more played the likelier: ids are in order of plays, Zipf's law is near enough."""
        weight = 1 / np.arange(1, known + 1)
        n = min(known, CHOICES + len(self.ids))
        return 1 + rng.choice(known, size=n, replace=False, p=weight / weight.sum())

    def guess(self, track: int) -> Round:
        """Choose one of the ten: reveals what the models would have chosen, and keeps the score."""
        if self.round is None or self.round.over:
            raise ValueError("there is no round to guess in: begin one with guess_next()")
        if track not in self.round.choices:
            raise ValueError("that track is not among the choices")
        self.round.picks["you"] = track
        uris = self.uris
        for name in {self.model: 0, self.beside: 0, **dict.fromkeys(self._best())}:
            if name in self.recommenders:
                scores = self.recommenders[name].recommend(uris, 1).scores
                self.round.picks[name] = max(self.round.choices, key=lambda i, scores=scores: float(scores[i]))
        self.rounds += 1
        for name, pick in self.round.picks.items():
            self.score[name] = self.score.get(name, 0) + (pick == self.round.answer)
        right = "Right" if track == self.round.answer else "Not this time"
        self.status = f"{right}: {self.label(self.round.answer)} came next."
        return self.round

    def _best(self) -> list[str]:
        return [name for name, one in self.recommenders.items() if isinstance(one.scorer, Oracle)]

    def another(self) -> Round:
        """The next playlist that can be guessed, and a round with it."""
        for step in range(1, len(self.playlists) + 1):
            self.choose((max(self.chosen, 0) + step) % len(self.playlists))
            if self.can_guess:
                return self.guess_next()
        raise ValueError("no playlist here has a next track that could be guessed")

    def stop_guessing(self) -> None:
        """Show the predictions again."""
        self.round, self.status = None, ""

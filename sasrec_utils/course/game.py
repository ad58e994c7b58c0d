"""The game of notebook 00: guess what a playlist plays next, then see what the model and the oracle would have said.

A guess of an artist becomes ten tracks, the artist's most played ones, so that it is ranked like everyone else's ten.
Over all test playlists it becomes a rule: "the artist of so many tracks back", whoever that is.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import pandas as pd

from sasrec_utils.baselines import Popularity
from sasrec_utils.course import plots
from sasrec_utils.course.picker import PlaylistPicker
from sasrec_utils.evaluation import evaluate, top_k
from sasrec_utils.recommender import Recommender
from sasrec_utils.sequences import Dataset, Sequences, leave_last_out
from sasrec_utils.world import Oracle, World

SHOWN = 8  # tracks of the playlist that are shown, the newest ones
ARTIST = "You have not guessed yet. Write an artist's name between quotes and run this again."
TRACK = "You have not picked yet. Write a number from 1 to 10 instead of None, and run this again."


class ArtistBack:
    """A scorer that puts one artist's tracks first, the most played before the others.

    `back`: the artist of so many tracks before the next one. `always`: this artist id, wherever `back` is None.
    """

    name = "your guess"

    def __init__(self, artist_of: np.ndarray, n_items: int, back: int | None, always: int = 0):
        self.artist_of, self.n_items, self.back, self.always = artist_of, n_items, back, always

    def score(self, histories: Sequences) -> np.ndarray:
        """float32 [B, N+1]; model ids are in order of plays, so a lower id is a better track."""
        plays = 1 - np.arange(self.n_items + 1) / (self.n_items + 1)
        scores = np.tile(plays.astype(np.float32), (len(histories), 1))
        for row, history in enumerate(histories):
            artist = self.always
            if self.back is not None:
                artist = self.artist_of[history[-self.back]] if len(history) >= self.back else 0
            if artist:
                scores[row] += self.artist_of[: self.n_items + 1] == artist
        scores[:, 0] = 0
        return scores


class Game:
    """One round: a test playlist whose next track the models know and you do not. `lab.new_game()` makes it.

    `about`: one sentence on the model. `names`: titles of the test playlists. `world` is None for real playlists: then
    nobody knows the best possible answer, and the oracle is left out.
    """

    def __init__(
        self,
        dataset: Dataset,
        model: Recommender,
        about: str,
        world: World | None,
        round_number: int = 1,
        names: Sequence[str | None] | None = None,
    ):
        self.dataset, self.about, self.world = dataset, about, world
        N = dataset.vocabulary.n_items
        self.histories, self.targets = leave_last_out(dataset.test)
        playable = [u for u in range(len(dataset.test)) if self._playable(u, N)]
        if not 1 <= round_number <= len(playable):
            raise ValueError(f"there are rounds 1 to {len(playable):,}, not {round_number}")
        self.u = playable[round_number - 1]
        tracks = dataset.catalogue.tracks.iloc[dataset.vocabulary.to_catalogue[1:] - 1].reset_index(drop=True)
        self.tracks = tracks
        self.players = {"SASRec": model}
        if world is not None:
            uris = tracks["track_uri"].tolist()
            self.players = {"oracle": Recommender(Oracle.from_uris(world, uris, N), tracks.iloc[:N])} | self.players
        names = [None] * len(dataset.test) if names is None else names
        self.picker = PlaylistPicker(self.players, dataset.test, names, tracks)
        self.picker.choose(self.u)
        self.picker.guess_next()
        self._choices = self.picker.desk.round.choices
        self._artist: str | None = None
        self._pick = 0

    def _playable(self, u: int, n_items: int) -> bool:
        history, target = self.histories[u], self.targets[u]
        return len(history) >= SHOWN and 0 < target <= n_items and target not in history

    # --- what you see before you guess --------------------------------------------------------------------------------

    def playlist(self) -> pd.DataFrame:
        """The newest tracks, the newest at the bottom: track, artist, genre; row: how many back. Corner: the title."""
        table = self._named(self.histories[self.u][-SHOWN:])
        table.columns.name = self.picker.desk.title
        return table.set_axis([f"{SHOWN - i} back" for i in range(SHOWN)])

    def choices(self) -> pd.DataFrame:
        """Ten tracks, numbered 1 to 10: the one that came next, and nine others drawn by how often they are played."""
        return self._named(self._choices).set_axis(range(1, len(self._choices) + 1))

    # --- your guess ---------------------------------------------------------------------------------------------------

    def guess_artist(self, name: str | None) -> str:
        """Take your guess of the artist: the answer says what becomes of it. Not yet (None) is fine."""
        self._artist = None
        if name is None:
            return ARTIST
        known = self.tracks["artist_name"].fillna("")
        same = known[known.str.casefold() == str(name).strip().casefold()]
        if same.empty:
            return f"No track here is by {name!r}. Copy the name from the table, with its capitals and blanks."
        self._artist = same.iloc[0]
        back = self._back()
        where = "is not among the newest tracks" if back is None else f"was last heard {_tracks(back)} back"
        return f"You say {self._artist}, who {where}. Your ten are that artist's ten most played tracks."

    def pick(self, number: int | None) -> str:
        """Take your pick among the ten choices, 1 to 10. Not yet (None) is fine."""
        self._pick = 0
        if number is None:
            return TRACK
        if number not in range(1, len(self._choices) + 1):
            return f"Pick a number from 1 to {len(self._choices)}, not {number!r}."
        self._pick = self._choices[number - 1]
        return f"You pick {self._label(self._pick)}."

    # --- what comes out -----------------------------------------------------------------------------------------------

    def truth(self) -> str:
        """What really came next, and what became of your two guesses."""
        target = int(self.targets[self.u])
        genre = self._named([target])["genre"].iloc[0]
        lines = [f"Really next: {self._label(target)}" + (f", {genre}." if genre else ".")]
        if self._artist is None:
            lines.append("Your artist: you have not guessed yet.")
        else:
            right = self._artist == self.tracks["artist_name"].iloc[target - 1]
            lines.append(f"Your artist: {self._artist}. " + ("Right!" if right else "Not this time."))
        if not self._pick:
            lines.append("Your pick of ten: you have not picked yet.")
        else:
            lines.append(f"Your pick of ten: {self._label(self._pick)}. " + self._judged(self._pick))
        return "\n".join(lines)

    def tens(self, *players: str) -> pd.DataFrame:
        """The ten best of each, side by side: "you" (once you have guessed), "SASRec", "oracle"; ★ is what came next.

        The last row is the rank of what really came next among all candidates.
        """
        columns = {}
        for player in players or ("you", *reversed(self.players)):
            if player == "you" and self._artist is None:
                columns["you"] = ["(not guessed yet)", *[""] * 9, "–"]
            elif player in ("you", *self.players):
                columns[player] = self._column(player)
        return pd.DataFrame(columns, index=[*map(str, range(1, 11)), "rank of ★"])

    def _column(self, player: str) -> list[str]:
        history, target = self.histories.take([self.u]), int(self.targets[self.u])
        scorer = self._mine() if player == "you" else self.players[player].scorer
        scores = np.array(scorer.score(history), dtype=np.float64)
        best = top_k(scores, 10, history)[0]
        rank = int(evaluate(scorer, history, self.targets[[self.u]], n_boot=1).ranks[0])
        return [("★ " if i == target else "") + self._label(int(i)) for i in best] + [f"{rank:,}"]

    def looks(self) -> plots.Picture:
        """Where SASRec's newest track looks: the two heads of its first block that differ most, whole history read."""
        model = self.players["SASRec"]
        known = [int(i) for i in self.histories[self.u] if i <= len(model)][-model.scorer.config.max_len :]
        weights = model.attention([known])[0, 0][:, -SHOWN:]
        apart = np.abs(weights[:, None] - weights[None]).sum(-1)
        pair = sorted(np.unravel_index(apart.argmax(), apart.shape)) if len(weights) > 1 else [0]
        artists = self.tracks["artist_name"].fillna("?").iloc[np.array(known[-SHOWN:]) - 1].tolist()
        return plots.looks(weights[pair], artists, [f"head {h + 1}" for h in pair])

    def recalls(self, *players: str) -> dict:
        """Recall@10 with its interval over all test playlists, by player. "you" is your rule, once you have guessed."""
        found = {}
        for player in players or ("popularity", "you", *reversed(self.players)):
            if player == "you":
                scorer = self._mine() if self._artist else None
            elif player == "popularity":
                scorer = self._popularity
            else:
                scorer = self.players[player].scorer if player in self.players else None
            if scorer is not None:
                found[player] = evaluate(scorer, self.histories, self.targets).metrics["recall@10"]
        return found

    def chart(self) -> plots.Picture:
        """One bar each: popularity, your rule, the model, the oracle."""
        found = self.recalls()
        names = {"popularity": "popularity", "SASRec": "SASRec", "oracle": "oracle: the best possible"}
        if "you" in found:
            back = self._back()
            names["you"] = f"you: always {self._artist}" if back is None else f"you: the artist {_tracks(back)} back"
        else:
            names["you"] = "you: not guessed yet"
        rows = [name for name in ("popularity", "you", "SASRec", "oracle") if name in found or name == "you"]
        means = [found[name].mean if name in found else 0.0 for name in rows]
        spans = [(found[name].low, found[name].high) if name in found else (0.0, 0.0) for name in rows]
        mean = found["SASRec"].mean
        if "oracle" in found:
            title = f"SASRec has {mean / found['oracle'].mean:.0%} of the best possible"
        else:
            title = f"SASRec finds {mean:.0%} of the next tracks"
        return plots.bars([names[row] for row in rows], means, "Recall@10", title, spans, mark=rows.index("SASRec"))

    def play_on(self) -> PlaylistPicker:
        """The picker with the next playlist, ready for a guess."""
        self.picker.another()
        return self.picker

    # --- small things -------------------------------------------------------------------------------------------------

    @cached_property
    def _popularity(self) -> Popularity:
        return Popularity.fit(self.dataset.train, self.dataset.vocabulary.n_items)

    def _mine(self) -> ArtistBack:
        name_of = self.tracks["artist_name"].fillna("").to_numpy()
        always = int(self.dataset.artist_of[1 + int(np.argmax(name_of == self._artist))])
        return ArtistBack(self.dataset.artist_of, self.dataset.vocabulary.n_items, self._back(), always)

    def _back(self) -> int | None:
        """How many tracks back the guessed artist was heard last, among those shown."""
        artists = self.tracks["artist_name"].iloc[self.histories[self.u][-SHOWN:] - 1].tolist()[::-1]
        return artists.index(self._artist) + 1 if self._artist in artists else None

    def _judged(self, pick: int) -> str:
        return "Right!" if pick == int(self.targets[self.u]) else "Not this time."

    def _label(self, track: int) -> str:
        row = self.tracks.iloc[track - 1]
        return f"{row['track_name']} · {row['artist_name']}"

    def _named(self, ids) -> pd.DataFrame:
        table = self.tracks.iloc[np.asarray(ids, dtype=np.int64) - 1]
        genre = [""] * len(table)
        if self.world is not None:
            world_ids = [self.world.track_ids[uri] for uri in table["track_uri"]]
            genre = [self.world.genre_names[g] for g in self.world.genre_of[self.world.artist[world_ids]]]
        columns = {"track": table["track_name"].to_numpy(), "artist": table["artist_name"].to_numpy(), "genre": genre}
        return pd.DataFrame(columns)


def _tracks(n: int) -> str:
    return f"{n} track" + ("" if n == 1 else "s")

"""Track names in, track names out: a trained model with its catalogue, ready to use.

A model directory is complete in itself: `model.safetensors` and `config.json` (the weights and their shape) and
`tracks.parquet` (what model ids 1…N are called). Taught in notebook 07.
"""

from __future__ import annotations

import hashlib
import html
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from sasrec_utils.baselines import Markov
from sasrec_utils.checkpoints import CheckpointError, is_writer, load, save, writing
from sasrec_utils.evaluation import top_k
from sasrec_utils.features import WORDS, TrackFeatures, read_titles
from sasrec_utils.model import SASRec
from sasrec_utils.mpd import Catalogue
from sasrec_utils.mpd.files import write_beside
from sasrec_utils.playlist_text import PlaylistText, read_playlist
from sasrec_utils.reranking import RERANKER, Reranker, has_reranker
from sasrec_utils.sequences import Dataset, Sequences, Vocabulary
from sasrec_utils.track_names import COLUMNS, TrackNames, not_a_track, plain, track_uri
from sasrec_utils.training import fit, recipe
from sasrec_utils.world import Oracle

__all__ = [
    "Recommendation",
    "Recommender",
    "extend",
    "load_tracks",
    "readable",
    "save_tracks",
    "train_recommender",
    "unfinished",
]


@dataclass(frozen=True)
class Recommendation:
    """`ids`: of the tracks that should follow, the best first, int64 [K]; `table` has their names.

    `history`: model ids of the tracks it rests on. `unknown`: what was asked for and could not be used, as given.
    `note`: one sentence if something needs saying (unknown tracks, an empty history), else "". `scores`: of all tracks,
    float32 [N+1]. `left_out`: model ids that were no candidates: those of the history, and those asked to be excluded.
    """

    ids: np.ndarray
    history: list[int]
    unknown: list[str]
    note: str
    scores: np.ndarray = field(repr=False)
    left_out: set[int] = field(repr=False)
    names: TrackNames = field(repr=False)

    @cached_property
    def table(self) -> pd.DataFrame:
        """rank, track_id, track_uri, track_name, artist_name, album_name, score; the best track first.

        Made when it is first asked for: a server needs none, and making one takes half as long as scoring.
        """
        table = self.names.table(self.ids)
        table.insert(0, "rank", np.arange(1, len(self.ids) + 1))
        table["score"] = self.scores[self.ids]
        return table

    def rank(self, track_id: int) -> int:
        """Rank of a track among the candidates as evaluation counts it (ties against it), 0 if it is no candidate."""
        if not 0 < track_id < len(self.scores) or track_id in self.left_out:
            return 0
        shown = np.flatnonzero(self.ids == track_id)
        if len(shown):  # among equals the list has an order: keep to what it shows
            return int(shown[0]) + 1
        beaten_by = self.scores >= self.scores[track_id]
        beaten_by[[0, track_id, *self.left_out]] = False
        return 1 + int(beaten_by.sum())

    def __str__(self) -> str:
        text = readable(self.table[["rank", "track_name", "artist_name", "album_name", "score"]]).to_string(index=False)
        return f"{text}\n{self.note}" if self.note else text

    def _repr_html_(self) -> str:
        note = f"<p>{html.escape(self.note)}</p>" if self.note else ""
        return readable(self.table).to_html(index=False, escape=True) + note


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A table of tracks to show: names in one line that no terminal obeys (`plain`), and "" where a name is missing."""
    return table.assign(**{name: [plain(text) for text in table[name]] for name in COLUMNS if name in table})


class Recommender:
    """Any scorer with the names of its tracks. `Recommender.load(directory)` makes one from a trained model.

    `scorer`: see evaluation; `tracks`: a table whose row i is model id i + 1, with `track_uri`, `track_name`,
    `artist_name`, `album_name`. `names`: what finds tracks by what people write. `remark`: a sentence that every answer
    carries, for instance that the model's training was stopped. Taught in notebook 07.
    """

    def __init__(self, scorer, tracks: pd.DataFrame, remark: str = ""):
        if len(tracks) != scorer.n_items:
            raise ValueError(f"{scorer.name} scores {scorer.n_items} tracks, the table names {len(tracks)}")
        self.scorer, self.names, self.remark = scorer, TrackNames(tracks), remark

    @classmethod
    def load(cls, directory: str | os.PathLike, rerank: bool = False, device: str = "cpu") -> Recommender:
        """The recommender of a model directory. Raises CheckpointError if something is missing or damaged.

        With `rerank`, the second stage orders what the model and the counts find, if one lies there: the better list,
        but its scores are no probabilities. `device`: where the model computes, as torch names it ("cuda", "mps");
        ValueError if this machine cannot.
        """
        model, about = load(directory)
        try:
            model.to(device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            reason = str(error).split("\n")[0].rstrip(".")
            raise ValueError(f"the model cannot be moved to the device {device!r}: {reason}") from error
        tracks = load_tracks(directory)
        model.keep_table()
        scorer = Reranker.load(directory, model) if rerank and has_reranker(directory) else model
        try:
            return cls(scorer, tracks, unfinished(directory, about))
        except ValueError as error:
            path = Path(directory) / "tracks.parquet"
            raise CheckpointError(
                f"{path}: does not name the model's tracks ({error}); train the model again."
            ) from error

    def __len__(self) -> int:
        return self.scorer.n_items

    @property
    def reads_titles(self) -> bool:
        """Whether the model makes something of a playlist's title."""
        return bool(self._model is not None and self._model.config.n_words)

    @property
    def _model(self) -> SASRec | None:
        """The SASRec in it: the scorer itself, or that of a second stage's first."""
        scorer = self.scorer.first.blend.scorers[0] if isinstance(self.scorer, Reranker) else self.scorer
        return scorer if isinstance(scorer, SASRec) else None

    def recommend(
        self, tracks: Iterable[str], k: int = 10, exclude: Iterable[str] = (), title: str = ""
    ) -> Recommendation:
        """The `k` tracks that should follow `tracks`, which are given oldest first, as URIs or names.

        What a name may look like, `TrackNames.find` says: "artist - track" and much else; several tracks of one name
        mean the most played. Tracks of the history are not recommended again, nor are those of `exclude`, which the
        model does not see. What the model does not know is in `unknown`, and `note` says it; with nothing left, the
        most played tracks are recommended and the note says so. `title`: of the playlist, for a model that reads titles
        (notebook 08); it may stand alone, without any track.
        """
        return self.recommend_batch([tracks], k, [exclude], [title])[0]

    def recommend_batch(
        self,
        playlists: Sequence[Iterable[str]],
        k: int = 10,
        exclude: Sequence[Iterable[str]] | None = None,
        titles: Sequence[str] | None = None,
    ) -> list[Recommendation]:
        """`recommend` for several playlists at once; the same answers as one by one."""
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        found = [self._resolve(tracks) for tracks in playlists]
        histories = [ids for ids, _ in found]
        others = [self._resolve(tracks)[0] for tracks in exclude] if exclude is not None else [[]] * len(found)
        left_out = [ids + other for ids, other in zip(histories, others, strict=True)]
        titles = [""] * len(found) if titles is None else list(titles)
        asked = Sequences.from_lists(histories)
        if self.reads_titles:
            asked = replace(asked, titles=read_titles(titles, buckets=self._model.config.n_words))
        scores = self.scorer.score(asked)
        best = top_k(scores, min(k, len(self)), Sequences.from_lists(left_out))
        return [self._answer(scores[i], best[i], *found[i], set(left_out[i]), titles[i]) for i in range(len(found))]

    def probabilities(self, answer: Recommendation) -> np.ndarray | None:
        """What an answer's scores say of each track as a share of 1, float32 [N+1]; None if they cannot be read so.

        The softmax of SASRec's scores; the oracle's and the Markov chain's as they are, for they are probabilities; of
        others each score's share of the sum. A SASRec that knows no track of the history orders by popularity, and a
        blend adds up z-scores: neither gives shares. Taught in notebook 07 §2.
        """
        if isinstance(self.scorer, SASRec):
            if not answer.history and not self.reads_titles:
                return None
            scores = np.exp(answer.scores - answer.scores[1:].max())
        else:
            scores = answer.scores.astype(np.float32)
            if scores[1:].min() < 0:
                return None
        scores[0] = 0
        return scores if isinstance(self.scorer, Markov | Oracle) else scores / scores.sum()

    @torch.inference_mode()
    def attention(self, histories: Sequence[Sequence[int]]) -> np.ndarray | None:
        """Where the newest track of each history looks, float32 [B, blocks, H, L]; None if the scorer does not look.

        `histories`: B lists of L model ids each, at most the model's `max_len`. What is missing to 1 goes to nothing.
        Taught in notebook 07 §5.
        """
        if not isinstance(self.scorer, SASRec):
            return None
        ids = torch.as_tensor(np.asarray(histories, dtype=np.int64), device=self.scorer.item_emb.weight.device)
        if self.reads_titles:  # the place of the title is left out of the answer
            ids = torch.nn.functional.pad(ids, (1, 0))
        _, attention = self.scorer.eval()(ids, return_attention=True)
        weights = torch.stack([weights[:, :, -1] for weights in attention], 1)
        return weights[..., 1 if self.reads_titles else 0 :].cpu().numpy()

    def table(self, ids: np.ndarray) -> pd.DataFrame:
        """Names of model ids 1…N, one row each."""
        return self.names.table(ids)

    def read_playlist(self, source: str | bytes | os.PathLike, suggestions: int = 3) -> PlaylistText:
        """A playlist that somebody pasted or exported, in this model's ids; `recommend(uris of its table)` goes on from
        there. See `playlist_text.read_playlist` for what is understood and what is raised."""
        return read_playlist(source, self.names, suggestions)

    def _resolve(self, tracks: Iterable[str]) -> tuple[list[int], list[str]]:
        """Model ids of the tracks that the model knows, and the others as they were given."""
        if isinstance(tracks, str):
            raise TypeError("tracks must be a list of URIs or names, not one string")
        ids, unknown = [], []
        for track in tracks:
            if not isinstance(track, str):
                raise TypeError(f"a track must be given as a URI or a name, got {track!r}")
            found = self.names.find(track)
            if found:
                ids.append(found)
            else:
                unknown.append(track)
        return ids, unknown

    def _answer(
        self,
        scores: np.ndarray,
        best: np.ndarray,
        ids: list[int],
        unknown: list[str],
        left_out: set[int],
        title: str,
    ) -> Recommendation:
        notes = [_unknown_words(unknown)] if unknown else []
        if title and not self.reads_titles:
            notes.append("The model does not read titles, and has left this one out: train it with titles.")
        if not ids and title and self.reads_titles:
            notes.append("The history is empty: these tracks follow from the title alone.")
        elif not ids:
            notes.append("The history is empty: these are the most played tracks.")
        if self.remark:
            notes.append(self.remark)
        return Recommendation(best[best > 0], ids, unknown, " ".join(notes), scores, left_out, self.names)


def _unknown_words(unknown: list[str]) -> str:
    """A sentence about what was left out. Names are told; an address says nothing to a reader and is only counted."""
    named = [text for text in unknown if not (track_uri(text) or not_a_track(text) or text.startswith("spotify:"))]
    parts = [", ".join(map(repr, named[:3]))] if named else []
    if len(named) > 3:
        parts.append(f"{len(named) - 3} more")
    if links := len(unknown) - len(named):
        parts.append(f"{links} link" + ("" if links == 1 else "s"))
    return f"Not known to the model and left out: {' and '.join(parts)}."


def extend(
    scorer,
    playlists: Sequences,
    n: int,
    temperature: float = 0.0,
    rng: np.random.Generator | None = None,
    last: int | None = None,
) -> np.ndarray:
    """Continue each playlist by `n` tracks, one after the other, each told to the scorer before the next: int [B, n].

    `temperature` 0 takes the best candidate every time (greedy); 1 draws from the scorer's own probabilities, less
    sharpens and more flattens them: p^(1/temperature), renormalised. Candidates are the tracks that the playlist does
    not have; where none is left the rest is 0. `last`: the scorer sees only that many of the newest tracks. Taught in
    notebook 07 §6.
    """
    rng = rng or np.random.default_rng(0)
    rows = [list(map(int, playlist)) for playlist in playlists]
    out = np.zeros((len(rows), n), dtype=np.int64)
    for step in range(n):
        grown = Sequences.from_lists(rows)
        scores = np.array(scorer.score(grown if last is None else grown.last(last)), dtype=np.float64)
        if not isinstance(scorer, SASRec):  # SASRec's scores are logarithms already, up to a constant
            with np.errstate(divide="ignore"):
                scores = np.log(np.maximum(scores, 0))
        scores[:, 0] = -np.inf
        known = grown.items <= scorer.n_items
        scores[grown.owner[known], grown.items[known]] = -np.inf
        if temperature > 0:  # adding Gumbel noise and taking the best is drawing from the softmax
            scores = scores / temperature + rng.gumbel(size=scores.shape)
        best = scores.argmax(1)
        out[:, step] = np.where(scores[np.arange(len(rows)), best] > -np.inf, best, 0)
        for row, track in zip(rows, out[:, step], strict=True):
            if track:
                row.append(int(track))
    return out


def save_tracks(directory: str | os.PathLike, catalogue: Catalogue, vocabulary: Vocabulary) -> None:
    """Write `tracks.parquet`: the names of model ids 1…N, beside a model. Under `torchrun` only process 0 writes."""
    if not is_writer():
        return
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    known = vocabulary.to_catalogue[1 : vocabulary.n_items + 1]
    table = catalogue.tracks.iloc[known - 1].reset_index(drop=True)
    with write_beside(directory / "tracks.parquet") as beside:
        table.to_parquet(beside)


def load_tracks(directory: str | os.PathLike) -> pd.DataFrame:
    """The names of a model's tracks, row i for model id i + 1. Raises CheckpointError if missing or damaged."""
    path = Path(directory) / "tracks.parquet"
    try:
        # Without the notes that pandas keeps in the file: nothing there is needed, and damaged they give any error. And
        # as text of Python right away, for only that shows whether it is text.
        table = pq.read_table(path, columns=list(COLUMNS))
        return pd.DataFrame({name: table[name].to_numpy() for name in COLUMNS}, dtype=object)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: there is no such file; train a model there first.") from error
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())  # some are spread over lines
        raise CheckpointError(f"{path}: does not name the model's tracks ({reason}); train the model again.") from error


def unfinished(directory: str | os.PathLike, about: dict) -> str:
    """A sentence if the training of a model was stopped before its end, else "". `about`: its `config.json`."""
    plan = about.get("training")
    if "train_seconds" in about or "best_epoch" not in about or not isinstance(plan, dict):
        return ""
    try:
        done = len(pd.read_csv(Path(directory) / "history.csv"))
        over = done >= plan["epochs"] or done - about["best_epoch"] >= plan["patience"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    if over:
        return ""
    return f"Its training was stopped after epoch {done} of {plan['epochs']}: the same command finishes it."


def train_recommender(
    directory: str | os.PathLike,
    data: Dataset,
    prepared: str,
    shape: str = "best",
    *,
    min_count: int = 2,
    seed: int = 0,
    again: bool = False,
    replace_others: bool = True,
    progress: bool = True,
    features: TrackFeatures | None = None,
    **changes,
) -> tuple[float, bool]:
    """Train the model of a `recipe` and leave in `directory` all that `Recommender.load` needs.

    `prepared`: the name of the folder that `data` comes from, `min_count` and `seed` what it was loaded with; they are
    noted beside the model, so that evaluation can refuse other data. `changes`: fields of TrainConfig that differ from
    the recipe. Returns the seconds that training took and whether it took them now: a model with the same settings is
    kept (unless `again`), and a run of theirs that was stopped goes on. Without `replace_others` a model with other
    settings is kept too: ValueError says in what it differs and what to do.

    `features`: of the tracks 1…N of `data` (`track_features`), newcomers among them if the vocabulary has some; the
    model keeps them. Titles are read if the playlists of `data` have them (`with_titles`).
    """
    directory, vocabulary = Path(directory), data.vocabulary
    rows = int((data.train.items <= vocabulary.n_known).sum())
    config, plan = recipe(shape, vocabulary.n_known, int(data.artist_of.max()), int(data.album_of.max()), rows)
    config = replace(config, n_items=vocabulary.n_items, n_new=vocabulary.n_new)
    if features is not None:
        config = replace(config, categories=features.sizes, n_numbers=len(features.columns))
    if data.train.titles is not None:
        config = replace(config, n_words=WORDS)
    plan = replace(plan, seed=seed, **changes)
    if plan.loss != "softmax":
        config = replace(config, pointer=False)  # which only that loss can train
    about = {"data": {"prepared": prepared, "min_count": min_count, "seed": seed}}
    key = json.dumps([asdict(config), asdict(plan), about, _fingerprint(features)], sort_keys=True)
    if features is not None:
        about["features"] = features.about()
    about["run"] = hashlib.blake2b(key.encode(), digest_size=8).hexdigest()
    try:
        there = load(directory)[1] if not again else {}
    except CheckpointError:
        there = {}
    same = there.get("run") == about["run"]
    if same and "train_seconds" in there:
        try:
            Recommender.load(directory)
        except CheckpointError:  # only the names are damaged or gone
            save_tracks(directory, data.catalogue, vocabulary)
        return there["train_seconds"], False
    if there and not same and not replace_others:
        raise ValueError(
            f"{directory}: holds a model with {_difference(there, asdict(config), asdict(plan), about['data'])}; "
            "give the new one another --name, or replace it with --again."
        )
    known = slice(vocabulary.n_items + 1)
    model = SASRec(config, data.artist_of[known], data.album_of[known], seed=seed, features=features)
    with writing(directory):
        if not same and is_writer():  # weights of another run must never meet the names of this one
            for name in ("config.json", RERANKER):
                (directory / name).unlink(missing_ok=True)
        save_tracks(directory, data.catalogue, vocabulary)
        history = fit(model, data.train, data.valid, plan, directory, resume=same, progress=progress, extra=about)
        seconds = round(float(history["seconds"].sum()), 1)
        save(directory, model, {**about, "training": asdict(plan), "train_seconds": seconds})
    return seconds, True


def _fingerprint(features: TrackFeatures | None) -> str:
    """Of all values of features: another table is another model."""
    if features is None:
        return ""
    digest = hashlib.blake2b(np.ascontiguousarray(features.numbers).data, digest_size=8)
    for ids in features.categories.values():
        digest.update(np.ascontiguousarray(ids).data)
    return digest.hexdigest()


def _difference(there: dict, shape: dict, plan: dict, data: dict) -> str:
    """What a model that is there has other than the one that is asked for: the settings that people give come first."""
    for wanted, key in ((data, "data"), (plan, "training"), (shape, "model")):
        its = there.get(key)
        for name, value in wanted.items() if isinstance(its, dict) else ():
            if name == "prepared" and its.get(name) != value:
                return "other playlists than those in raw/ now"
            if name in its and its[name] != value:
                return f"{name} = {its[name]}, not {value}"
    return "other settings"

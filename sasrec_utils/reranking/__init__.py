"""The second stage: every scorer finds candidates, and trees put them in order.

One model over all tracks has to be simple, because it is asked about tens of thousands of tracks for each playlist.
Asked about a few hundred candidates, it may look at each of them closely: what does each scorer think of it, how often
and how lately has the playlist had its artist, how well known is it? The RecSys Challenge 2018 on the Million Playlist
Dataset was won in this way (Volkovs et al., "Two-stage model for automatic playlist continuation at scale", doi
10.1145/3267471.3267480); the trees are LightGBM's, with LambdaRank (Burges, "From RankNet to LambdaRank to LambdaMART",
2010).

The trees must learn from playlists that no scorer of the first stage has seen. A scorer is surer of what it was trained
on, so trees that learn from its training playlists trust it more than new playlists bear out. Validation playlists are
unseen, and test playlists are never touched.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.numpy import load as from_safetensors
from safetensors.numpy import save as to_safetensors
from scipy import sparse

from sasrec_utils.baselines import Blend, ItemKNN, Markov, blend_of_all
from sasrec_utils.checkpoints import CheckpointError, write_bytes
from sasrec_utils.reranking.candidates import FEATURES, Candidates, FirstStage, cut
from sasrec_utils.sequences import Dataset, Sequences, leave_last_out

if TYPE_CHECKING:
    import lightgbm  # takes a while to import: below only where trees are grown or read

__all__ = [
    "FEATURES",
    "RERANKER",
    "Candidates",
    "FirstStage",
    "RerankConfig",
    "Reranker",
    "cut",
    "has_reranker",
    "train_reranker",
]

FORMAT = 1  # of a saved second stage
RERANKER, TREES, COUNTS = "reranker.json", "reranker.txt", "reranker.safetensors"


@dataclass(frozen=True)
class RerankConfig:
    """How the trees are grown.

    `questions`: how many are asked of each validation playlist (`cut`). `trees`: at most so many. How many it is to be
    is found out on every `held_out`-th validation playlist: the number after which `patience` more do not make NDCG@10
    better. `only`: the features to use, by default all. Raises ValueError for a feature that does not exist.
    """

    questions: int = 4
    trees: int = 300
    patience: int = 20
    held_out: int = 5
    rate: float = 0.1
    leaves: int = 15
    least_in_leaf: int = 50
    feature_share: float = 0.7
    only: tuple[str, ...] = tuple(FEATURES)
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "only", tuple(self.only))  # a list, when it comes from a file
        unknown = [name for name in self.only if name not in FEATURES]
        if unknown or not self.only:
            raise ValueError(f"only must name some of {', '.join(FEATURES)}; got {', '.join(unknown) or 'nothing'}")


@dataclass(frozen=True, eq=False, repr=False)
class Examples:
    """What the trees learn from: M candidates of Q questions, each question with exactly one hit.

    `x`: float32 [M, F]. `hit`: bool [M]. `question`: int64 [M], ascending.
    """

    x: np.ndarray
    hit: np.ndarray
    question: np.ndarray

    @classmethod
    def of(cls, first: FirstStage, histories: Sequences, targets: np.ndarray) -> Examples:
        """Candidates of each history with their features; questions whose target is none of them are left out."""
        targets = np.asarray(targets)
        if targets.shape != (len(histories),):
            raise ValueError(f"{len(histories)} histories need as many targets, got shape {targets.shape}")
        parts = []
        for rows, part in first.batches(histories):
            found = first.find(part)
            hit = found.tracks == targets[rows][found.rows]
            keep = np.isin(found.rows, found.rows[hit])
            kept = Candidates(found.rows[keep], found.tracks[keep], found.scores)
            parts.append((first.features(part, kept), hit[keep], kept.rows + rows.start))
        x, hit, question = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return cls(x, hit, question)

    def take(self, keep: np.ndarray) -> Examples:
        """Only the candidates where `keep` (bool [M]) is true."""
        return Examples(self.x[keep], self.hit[keep], self.question[keep])


def held_out(owner: np.ndarray, config: RerankConfig) -> np.ndarray:
    """Which rows belong to every `held_out`-th playlist, in random order; bool [M]. `owner`: the playlist of each row.

    Questions of one playlist share most of their history, so no playlist is on both sides. Raises ValueError if
    there are too few playlists.
    """
    playlists = np.unique(owner)
    if len(playlists) < 2 * config.held_out:
        raise ValueError(
            f"only {len(playlists)} validation playlists have their targets among the candidates: "
            "too few for a second stage"
        )
    order = np.random.default_rng(config.seed).permutation(playlists)
    return np.isin(owner, order[:: config.held_out])


def grow(examples: Examples, owner: np.ndarray, config: RerankConfig) -> lightgbm.Booster:
    """LambdaRank trees for these examples. `owner`: int [Q], which questions are about one playlist.

    A fifth of the playlists is held out first, to find how many trees there should be; then all are used. The
    gradients are those of NDCG, cut at 30 places.
    """
    import lightgbm

    params = {
        "objective": "lambdarank", "lambdarank_truncation_level": 30, "lambdarank_norm": False, "metric": "ndcg",
        "eval_at": [10], "learning_rate": config.rate, "num_leaves": config.leaves, "max_bin": 63,
        "min_data_in_leaf": config.least_in_leaf, "feature_fraction": config.feature_share, "seed": config.seed,
        "deterministic": True, "force_row_wise": True, "num_threads": torch.get_num_threads(), "verbosity": -1,
    }  # fmt: skip
    columns = [list(FEATURES).index(name) for name in config.only]

    def ready(part: Examples, **more) -> lightgbm.Dataset:
        _, sizes = np.unique(part.question, return_counts=True)
        return lightgbm.Dataset(
            part.x[:, columns], part.hit, group=sizes, feature_name=list(config.only), free_raw_data=True, **more
        )

    judging = held_out(owner[examples.question], config)
    grown = ready(examples.take(~judging))
    stop = lightgbm.early_stopping(config.patience, verbose=False)
    judges = [ready(examples.take(judging), reference=grown)]
    tried = lightgbm.train(params, grown, config.trees, valid_sets=judges, callbacks=[stop])
    return lightgbm.train(params, ready(examples), max(1, tried.best_iteration))


@dataclass(frozen=True, eq=False, repr=False)
class Reranker:
    """Candidates of a first stage in the order of the trees: a scorer like all others (see `evaluation`).

    Candidates come out above all other tracks, with scores from 0 up; the others follow below 0 in the order of the
    first stage's blend, and so do all tracks after a history without a known one. Taught in notebook 09.
    """

    first: FirstStage
    trees: lightgbm.Booster
    config: RerankConfig = RerankConfig()
    name: str = "two stages"

    @classmethod
    def fit(
        cls,
        first: FirstStage,
        histories: Sequences,
        targets: np.ndarray,
        owner: np.ndarray | None = None,
        config: RerankConfig = RerankConfig(),
        name: str = "two stages",
    ) -> Reranker:
        """Learn to order the candidates of `first` from playlists that none of its scorers has seen.

        `histories`, `targets`: Q of them, as for `evaluate`: of *validation* playlists or, leaving one out, with
        targets that the scorers have not seen. `owner`: int [Q], which questions are about one playlist (`cut`); these
        stay together when the number of trees is chosen. Raises ValueError if there is too little to learn from.
        Taught in notebook 09.
        """
        owner = np.arange(len(histories)) if owner is None else np.asarray(owner)
        if owner.shape != (len(histories),):
            raise ValueError(f"{len(histories)} histories need as many owners, got shape {owner.shape}")
        return cls(first, grow(Examples.of(first, histories, targets), owner, config), config, name)

    @property
    def n_items(self) -> int:
        """N, the number of known tracks."""
        return self.first.n_items

    def score(self, histories: Sequences) -> np.ndarray:
        """Scores of all tracks after each history, float32 [B, N + 1]; column 0 is 0. Taught in notebook 09."""
        scores = np.zeros((len(histories), self.n_items + 1), dtype=np.float32)
        columns = [list(FEATURES).index(name) for name in self.config.only]
        for rows, part in self.first.batches(histories):
            found = self.first.find(part)
            blend = found.scores[3]
            out = scores[rows]  # a view
            out[:, 1:] = blend[:, 1:] - blend[:, 1:].max(axis=1, keepdims=True) - 1
            # After nothing that is known the first stage has the most played tracks first: nothing to put right there.
            asked = np.isin(found.rows, part.owner[part.items <= self.n_items])
            found = Candidates(found.rows[asked], found.tracks[asked], found.scores)
            if len(found.rows):
                x = self.first.features(part, found)
                worth = self.trees.predict(x[:, columns], num_threads=1)
                # Trees give equal values to candidates that fall into the same leaves: the blend parts those. The step
                # is as small as float32 can tell apart in what trees say.
                worth -= 2e-6 * x[:, list(FEATURES).index("blend_rank")]
                lowest = np.full(len(part), np.inf)
                np.minimum.at(lowest, found.rows, worth)
                out[found.rows, found.tracks] = worth - lowest[found.rows]
        return scores

    def gains(self) -> dict[str, float]:
        """Each feature's share of what all splits of the trees gained, the largest first."""
        gain = self.trees.feature_importance("gain")
        order = np.argsort(-gain, kind="stable")
        return {self.config.only[i]: float(gain[i] / max(gain.sum(), 1e-9)) for i in order}

    def save(self, directory: str | os.PathLike) -> None:
        """Write the second stage beside the model: trees as LightGBM's text, counts in safetensors, settings in JSON.

        The model is not written. None of the files can run code when it is loaded. Each is written beside and then
        renamed; the settings come last and hold the sums of the others, so that files of two runs are never mixed.
        """
        directory = Path(directory)
        model, similar, chain = self.first.blend.scorers
        trees = self.trees.model_to_string().encode()
        arrays = {"artist_of": self.first.artist_of, "album_of": self.first.album_of, "plays": similar.plays}
        for name, matrix in (("similarity", similar.similarity), ("counts", chain.counts)):
            arrays[f"{name}.data"] = matrix.data.astype(np.float32)
            arrays[f"{name}.indices"] = matrix.indices.astype(np.int32)
            arrays[f"{name}.indptr"] = matrix.indptr.astype(np.int64)
        counts = to_safetensors(arrays)
        about = {
            "format": FORMAT,
            "kind": "reranker",
            "n_items": self.n_items,
            "model": _model_sum(model),
            "sums": {TREES: _sum(trees), COUNTS: _sum(counts)},
            "take": self.first.take,
            "blend": {"weights": self.first.blend.weights, "logits": self.first.blend.logits},
            "knn": {"n_last": similar.n_last, "decay": similar.decay, "name": similar.name},
            "markov": {
                "n_last": chain.n_last, "decay": chain.decay, "damping": chain.damping, "name": chain.name,
            },
            "config": asdict(self.config),
            "name": self.name,
        }  # fmt: skip
        write_bytes(directory / TREES, trees)
        write_bytes(directory / COUNTS, counts)
        about["sum"] = _sum(json.dumps(about).encode())
        write_bytes(directory / RERANKER, (json.dumps(about, indent=1) + "\n").encode())

    @classmethod
    def load(cls, directory: str | os.PathLike, model) -> Reranker:
        """The second stage saved in `directory`, on top of `model`, the one that it was trained with.

        Raises CheckpointError, in one sentence, if a file is missing, damaged or of another run.
        """
        import lightgbm

        directory = Path(directory)
        about = _settings(directory / RERANKER)
        if about.get("kind") != "reranker" or about.get("format") != FORMAT:
            raise CheckpointError(
                f"{directory / RERANKER}: is not the settings of a second stage for this version; train it again."
            )
        if about.pop("sum", None) != _sum(json.dumps(about).encode()):
            raise CheckpointError(
                f"{directory / RERANKER}: was changed by hand or is damaged; train the second stage again."
            )
        if about["n_items"] != model.n_items or about["model"] != _model_sum(model):
            raise CheckpointError(f"{directory}: the second stage was trained with another model; train it again.")
        content = {name: _read(directory / name) for name in (TREES, COUNTS)}
        for name in content:
            # LightGBM may end the whole process over a damaged file, so it is shown none.
            if _sum(content[name]) != about["sums"][name]:
                raise CheckpointError(
                    f"{directory / name}: is damaged or of another run; train the second stage again."
                )
        try:
            arrays = from_safetensors(content[COUNTS])
            similar = ItemKNN(_matrix(arrays, "similarity"), arrays["plays"], **about["knn"])
            chain = Markov(_matrix(arrays, "counts"), arrays["plays"], **about["markov"])
            blend = Blend((model, similar, chain), **{key: tuple(part) for key, part in about["blend"].items()})
            first = FirstStage(blend, arrays["artist_of"], arrays["album_of"], tuple(about["take"]))
            trees = lightgbm.Booster(model_str=content[TREES].decode())
            return cls(first, trees, RerankConfig(**about["config"]), about["name"])
        except (KeyError, TypeError, ValueError, AttributeError, lightgbm.basic.LightGBMError) as error:
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(
                f"{directory / RERANKER}: does not fit the files beside it ({reason}); train the second stage again."
            ) from error


def has_reranker(directory: str | os.PathLike) -> bool:
    """Whether a second stage lies in this model directory."""
    return (Path(directory) / RERANKER).exists()


def train_reranker(
    directory: str | os.PathLike,
    model,
    data: Dataset,
    baselines: list,
    config: RerankConfig = RerankConfig(),
    again: bool = False,
) -> Reranker:
    """Train the second stage of a model on the validation playlists, and leave it beside the model in `directory`.

    `baselines`: as `fit_baselines` gives them, fitted on the training playlists; the last is a blend of an ItemKNN and
    a Markov chain. All three are blended anew: the result's `first.blend` is the first stage alone. A second stage that
    is there for the same model and settings is kept, unless `again`. Raises ValueError if there are too few validation
    playlists.
    """
    if not again:
        try:
            there = Reranker.load(directory, model)
            if there.config == config:
                return there
        except CheckpointError:
            pass  # none yet, or of another model
    blend, _ = blend_of_all(model, baselines, *leave_last_out(data.valid))
    histories, targets, owner = cut(data.valid, config.questions, config.seed)
    reranker = Reranker.fit(FirstStage(blend, data.artist_of, data.album_of), histories, targets, owner, config)
    reranker.save(directory)
    return reranker


def _matrix(arrays: dict[str, np.ndarray], name: str) -> sparse.csr_array:
    size = len(arrays["plays"])
    parts = tuple(arrays[f"{name}.{part}"] for part in ("data", "indices", "indptr"))
    return sparse.csr_array(parts, shape=(size, size))


def _settings(path: Path) -> dict:
    try:
        about = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON ({error}); train the second stage again.") from error
    if not isinstance(about, dict):
        raise CheckpointError(f"{path}: holds no settings; train the second stage again.")
    return about


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); train the second stage again.") from error


def _sum(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _model_sum(model) -> str:
    """A sum over a model's weights, by which it is known again; of a scorer without weights its name."""
    if not hasattr(model, "state_dict"):
        return model.name
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()

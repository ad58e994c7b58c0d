"""SASRec, self-attentive sequential recommendation (Kang & McAuley, ICDM 2018), from top to bottom.

Symbols, in maths and in code: B playlists in a batch, L positions, D width, H heads, N tracks. Track ids are 1…N, 0 is
padding. Playlists are padded on the right: under a causal mask no real position can see what follows it, so padding
needs no mask of its own, no row of the attention is ever fully masked, and how much padding there is changes nothing.

Differs from the paper: LayerNorm stands before each sub-layer and the residual goes around both, as the paper's text
says (its code normalises the query only and adds the normalised input); one more LayerNorm comes at the end, as in its
code; positions are counted from the start of the window, not from its end. Taught in notebook 03.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sasrec_utils.features import TrackFeatures
from sasrec_utils.pointer import Pointed, Pointer
from sasrec_utils.sequences import MOST_WORDS, Sequences, pad

__all__ = ["Attention", "Block", "SASRec", "SASRecConfig"]

LEAST = {"n_items": 1, "dim": 1, "blocks": 1, "heads": 1, "max_len": 1, "n_artists": 0, "n_albums": 0,
         "n_new": 0, "n_numbers": 0, "n_words": 0}  # fmt: skip
MOST = {"dim": 16_384, "blocks": 100, "max_len": 100_000}  # a settings file with more is broken, or meant to hang us
HIDDEN_TITLES = 0.1  # of titles, while training


@dataclass(frozen=True)
class SASRecConfig:
    """The shape of a SASRec. The defaults are the paper's: absolute positions, track ids only, tied output.

    `positions`: "absolute" (a vector for each place, the paper), "rotary" (queries and keys turned by their place) or
    "relative" (each head learns a weight for each distance, and one for attending to nothing). `n_artists`, `n_albums`
    above 0 add an embedding of the track's artist and album to the track's own, at the input and at the output.
    `pointer` adds a `Pointer` to the artists (and albums) of the history; scores are then log-probabilities of tracks
    that the history does not have. Raises ValueError for a shape that cannot be. Taught in notebook 03.

    What is known beside ids (`features`, notebook 08): `categories`, by name how many values each has, and `n_numbers`
    columns of numbers are added to a track's vector like artists and albums. The last `n_new` of the N tracks are
    newcomers, which training does not know: instead of a vector of their own they share one, which training learns
    from `id_dropout` of the tracks, hidden behind it at random. With `n_words` above 0 the title of a playlist stands
    in front of its tracks, in one of the L places.
    """

    n_items: int  # N
    dim: int = 64  # D
    blocks: int = 2
    heads: int = 2  # H
    max_len: int = 50  # L: how many of the newest tracks the model sees
    dropout: float = 0.2
    positions: str = "absolute"
    tied: bool = True  # scores from the input embeddings; False: each track has another vector for its score
    n_artists: int = 0
    n_albums: int = 0
    pointer: bool = False
    categories: dict[str, int] = field(default_factory=dict)
    n_numbers: int = 0
    n_new: int = 0
    id_dropout: float = 0.1  # only with newcomers
    n_words: int = 0

    def __post_init__(self) -> None:
        for name, least in LEAST.items():
            value, most = getattr(self, name), MOST.get(name, math.inf)
            if not isinstance(value, int | np.integer) or isinstance(value, bool) or not least <= value <= most:
                bound = f" and at most {most:,}" if name in MOST else ""
                raise ValueError(f"{name} must be a whole number of at least {least}{bound}, got {value!r}")
        if self.positions not in ("absolute", "rotary", "relative"):
            raise ValueError(f"positions must be absolute, rotary or relative, got {self.positions!r}")
        if self.dim % self.heads:
            raise ValueError(f"a width of {self.dim} cannot be shared by {self.heads} heads of equal width")
        if self.positions == "rotary" and self.dim // self.heads % 2:
            raise ValueError(f"rotary positions need heads of even width, {self.dim} / {self.heads} is odd")
        if not isinstance(self.dropout, int | float) or not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and less than 1, got {self.dropout}")
        if self.pointer and not (self.n_artists or self.n_albums):
            raise ValueError("a pointer needs artists or albums to point at: n_artists or n_albums above 0")
        if not isinstance(self.categories, dict) or not all(
            isinstance(name, str) and name.isidentifier() and isinstance(size, int) and size > 0
            for name, size in self.categories.items()
        ):
            raise ValueError(f"categories must say of each name how many values it has, got {self.categories!r}")
        if not isinstance(self.id_dropout, int | float) or not 0 <= self.id_dropout < 1:
            raise ValueError(f"id_dropout must be at least 0 and less than 1, got {self.id_dropout}")
        if self.n_new >= self.n_items:
            raise ValueError(f"{self.n_new} newcomers among {self.n_items} tracks leave none to learn from")
        if self.n_words and self.max_len < 2:
            raise ValueError("a title takes one place: max_len must be at least 2")

    @property
    def n_known(self) -> int:
        """How many tracks training knows: N without the newcomers."""
        return self.n_items - self.n_new

    @property
    def groups(self) -> dict[str, int]:
        """All categories of a track by name, artist and album first, those that the model has, with their sizes."""
        own = {"artist": self.n_artists, "album": self.n_albums}
        return {name: size for name, size in own.items() if size} | {f"is_{n}": k for n, k in self.categories.items()}


class Dropout(nn.Module):
    """`nn.Dropout` that needs one random byte for a number: three times as fast on a CPU.

    Set to 0 with probability p, to the nearest 1/256 (but never 1), and the rest scaled up so that the mean stays
    (paper, section 3.3). Taught in notebook 03 §11.
    """

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or not self.training or self.p == 0:
            return F.dropout(x, self.p, self.training)
        keep = max(1, round(256 * (1 - self.p)))
        if keep == 256:  # a byte is at most 255, and compared with one, 256 would be taken for 0
            return x
        words = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)  # eight bytes each
        random = words.view(torch.uint8)[: x.numel()].view(x.shape)
        return x * ((random < keep) * (256 / keep))


class Attention(nn.Module):
    """Causal self-attention with H heads: softmax(Q Kᵀ / √(D/H) + position term) V (paper, section 3.2, equation 2).

    With relative positions the position term is a learned weight for each distance, and a query may also attend to
    nothing: a key and a value of zeros, with a learned weight of its own. A head that looks for "the artist four tracks
    ago" then has an answer where there is none. Taught in notebook 03 §4–§8.
    """

    def __init__(self, config: SASRecConfig):
        super().__init__()
        self.heads = config.heads
        self.positions = config.positions
        self.qkv = nn.Linear(config.dim, 3 * config.dim)
        self.out = nn.Linear(config.dim, config.dim)
        if config.positions == "relative":
            self.distance = nn.Parameter(torch.zeros(config.heads, config.max_len + 1))  # 0…L-1 back, and nothing
        if config.positions == "rotary":  # RoFormer (Su et al. 2021), equation 34
            speed = 10_000 ** (-torch.arange(0, config.dim // config.heads, 2) / (config.dim // config.heads))
            angle = torch.arange(config.max_len)[:, None] * speed
            self.register_buffer("cos", angle.cos(), persistent=False)  # [L, D/H/2]
            self.register_buffer("sin", angle.sin(), persistent=False)

    def forward(self, x: Tensor, return_attention: bool = False) -> tuple[Tensor, Tensor | None]:
        B, L, D = x.shape
        q, k, v = self.qkv(x).view(B, L, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)  # each [B, H, L, D/H]
        bias = None
        if self.positions == "rotary":
            q, k = self._turn(q), self._turn(k)
        if self.positions == "relative":
            bias = self._distance_bias(L)  # [H, L, L+1]; -inf = may not attend
            k, v = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1))  # nothing, after the last key: [B, H, L+1, D/H]
        if not return_attention:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, is_causal=bias is None)
            attn = None
        else:  # the same in small steps, because the fused form does not hand out its weights
            if bias is None:
                allowed = torch.ones(L, L, dtype=torch.bool, device=x.device).tril()  # True = may attend
                bias = torch.zeros(L, L, device=x.device).masked_fill(~allowed, -torch.inf)
            attn = (q @ k.transpose(-1, -2) / math.sqrt(D // self.heads) + bias).softmax(-1)
            y = attn @ v
            attn = attn[..., :L]  # [B, H, L, L], row = query, column = key; what a row lacks to 1 went to nothing
        return self.out(y.transpose(1, 2).reshape(B, L, D)), attn  # heads side by side: [B, H, L, D/H] → [B, L, D]

    def _distance_bias(self, L: int) -> Tensor:
        """[H, L, L+1]: the weight of the distance from query i back to key j, -inf in the future, and of nothing."""
        place = torch.arange(L, device=self.distance.device)
        back = place[:, None] - place[None, :]
        bias = self.distance[:, back.clamp(min=0)].masked_fill(back < 0, -torch.inf)
        return torch.cat([bias, self.distance[:, -1, None, None].expand(-1, L, 1)], -1)

    def _turn(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, -1)
        cos, sin = self.cos[: x.shape[-2]], self.sin[: x.shape[-2]]
        return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


class Block(nn.Module):
    """Attention, then a point-wise feed-forward net; LayerNorm before, dropout and residual after (sections 3.2–3.3).

    Taught in notebook 03 §9–§10.
    """

    def __init__(self, config: SASRecConfig):
        super().__init__()
        self.norm_attention, self.norm_feed = nn.LayerNorm(config.dim), nn.LayerNorm(config.dim)
        self.attention = Attention(config)
        self.feed_in, self.feed_out = nn.Linear(config.dim, config.dim), nn.Linear(config.dim, config.dim)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, return_attention: bool = False) -> tuple[Tensor, Tensor | None]:
        y, attn = self.attention(self.norm_attention(x), return_attention)
        x = x + self.dropout(y)
        y = self.feed_out(self.dropout(F.relu(self.feed_in(self.norm_feed(x)))))
        return x + self.dropout(y), attn


class SASRec(nn.Module):
    """Track ids in, for each position a vector whose products with the track table score the next track.

    `artist_of`, `album_of`: int [N+1], the artist and album id of each model id (entry 0 is 0), needed when the config
    has `n_artists` or `n_albums`. `features`: of the same tracks, needed for `categories` and `n_numbers`. `seed` fixes
    the initial weights. A scorer as evaluation understands it: `name`, `n_items`, `score`. Taught in notebook 03
    §12–§13.
    """

    name = "sasrec"

    def __init__(
        self,
        config: SASRecConfig,
        artist_of: np.ndarray | None = None,
        album_of: np.ndarray | None = None,
        seed: int = 0,
        features: TrackFeatures | None = None,
    ):
        super().__init__()
        self.config = config
        self._kept_table: Tensor | None = None
        with torch.random.fork_rng(devices=[]):  # the random numbers of whoever asks for a model stay as they were
            torch.random.default_generator.manual_seed(seed)
            self._build({"artist": artist_of, "album": album_of}, features or TrackFeatures({}, np.zeros((0, 0))))
            self._initialise()

    def _build(self, ids_of: dict[str, np.ndarray | None], features: TrackFeatures) -> None:
        config = self.config
        N, D = config.n_items, config.dim
        own = N + 1 if not config.n_new else config.n_known + 2  # the newcomers' shared vector comes last
        self.item_emb = nn.Embedding(own, D, padding_idx=0)
        self.features = nn.ModuleDict()
        ids_of = ids_of | {f"is_{name}": ids for name, ids in features.categories.items()}
        for name, size in config.groups.items():
            ids = ids_of.get(name)
            if ids is None or len(ids) != N + 1 or not 0 <= np.min(ids) <= np.max(ids) <= size:
                raise ValueError(f"a model with {size} {name}s needs {name}_of: {N + 1} ids from 0 to {size}")
            self.features[name] = nn.Embedding(size + 1, D, padding_idx=0)
            self.register_buffer(f"{name}_of", torch.as_tensor(self._learned(np.array(ids), size), dtype=torch.long))
        if config.positions == "absolute":
            self.pos_emb = nn.Embedding(config.max_len, D)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(D)
        self.dropout = Dropout(config.dropout)
        if config.pointer:
            sizes = [size for size in (config.n_artists, config.n_albums) if size]
            self.pointer = Pointer(N, D, config.max_len, sizes)
            self.pointer.count(torch.ones(N + 1), self.groups)
        if not config.tied:
            self.output = nn.Embedding(own, D, padding_idx=0)
            sizes = {name: embedding.num_embeddings for name, embedding in self.features.items()}
            self.output_features = nn.ModuleDict({n: nn.Embedding(size, D, padding_idx=0) for n, size in sizes.items()})
        self._build_numbers(features)
        if config.n_words:
            self.word_emb = nn.EmbeddingBag(config.n_words + 1, D, mode="mean", padding_idx=0)
            self.begin_emb = nn.Parameter(torch.empty(D))  # what stands in front of the tracks under every title
        if config.n_new:
            self.register_buffer("lift", torch.zeros(()))  # added to a newcomer's score, see `training`

    def _build_numbers(self, features: TrackFeatures) -> None:
        config = self.config
        if not config.n_numbers:
            return
        wanted = (config.n_items + 1, 2 * config.n_numbers)
        if features.numbers.shape != wanted:
            raise ValueError(f"a model with {config.n_numbers} numbers of tracks needs {wanted}: each and its flag")
        self.register_buffer("numbers", torch.as_tensor(np.array(features.numbers), dtype=torch.float32))
        self.number_emb = nn.Linear(wanted[1], config.dim, bias=False)
        if not config.tied:
            self.output_numbers = nn.Linear(wanted[1], config.dim, bias=False)

    def _learned(self, ids: np.ndarray, size: int) -> np.ndarray:
        """The values of a category, 0 where only newcomers have it: of a value without training nothing is known."""
        if not self.config.n_new:
            return ids
        there = np.zeros(size + 1, bool)
        there[ids[: self.config.n_known + 1]] = True
        return np.where(there[ids], ids, 0)

    @torch.no_grad()
    def _initialise(self) -> None:
        for name, parameter in self.named_parameters():
            if "emb" in name or name.startswith(("features", "output")):
                parameter.normal_(std=0.02)
            elif parameter.ndim == 2 and "distance" not in name:
                nn.init.xavier_uniform_(parameter)
            elif name.endswith("bias"):
                parameter.zero_()
        if self.config.pointer:
            # "Generate" begins with the better part, against as many places as there are at most.
            self.pointer.generate.bias.fill_(math.log(4 * self.config.max_len))
        if self.config.positions == "absolute":
            # Small waves of many lengths, not noise: "two steps back" is then the same rotation at every place from
            # the first step on, instead of something to be learned anew for each place.
            L, D = self.pos_emb.weight.shape
            speed = torch.logspace(math.log10(2.0), math.log10(math.pi / max(L, 2)), -(-D // 2))
            angle = torch.arange(L)[:, None] * speed
            self.pos_emb.weight.copy_(0.1 * torch.cat([angle.cos(), angle.sin()], 1)[:, :D])
        for embedding in self.modules():
            if isinstance(embedding, nn.Embedding | nn.EmbeddingBag) and embedding.padding_idx == 0:
                embedding.weight[0] = 0  # the padding row stays zero: its gradient is never anything else

    @property
    def n_items(self) -> int:
        return self.config.n_items

    @property
    def groups(self) -> list[Tensor]:
        """The artist and the album of each model id, those of them that the model has; int64 [N+1] each."""
        return [getattr(self, f"{name}_of") for name in ("artist", "album") if name in self.features]

    @property
    def window(self) -> int:
        """How many of the newest tracks the model sees: L, or one less if a title takes a place."""
        return self.config.max_len - bool(self.config.n_words)

    def embed(self, ids: Tensor) -> Tensor:
        """Input embedding of tracks, [..., D]: their own, plus what their artists, albums and other features add."""
        return self._add_features(self.item_emb(self._own_ids(ids)), self.features, ids)

    def score_embed(self, ids: Tensor) -> Tensor:
        """The vectors that score these tracks, [..., D]: their rows of `table()`."""
        if self.config.tied:
            return self.embed(ids)
        return self._add_features(self.output(self._own_ids(ids)), self.output_features, ids)

    def table(self) -> Tensor:
        """[N+1, D]: the vectors that score the tracks; row 0 is padding. While training only those of the tracks that
        training knows: newcomers are never the next track there, and would only be pushed away."""
        if self._kept_table is not None:
            return self._kept_table
        own, features = (self.item_emb, self.features) if self.config.tied else (self.output, self.output_features)
        if not self.config.n_new:
            return self._add_features(own.weight, features, slice(None))
        rows = torch.arange((self.config.n_known if self.training else self.n_items) + 1, device=own.weight.device)
        return self._add_features(own(self._own_ids(rows)), features, slice(len(rows)))

    def _own_ids(self, ids: Tensor) -> Tensor:
        """The row of each track in the tables of tracks: its own, or that of all newcomers. While training some known
        tracks, drawn at random, have that one too (Volkovs et al. 2017, "DropoutNet")."""
        if not self.config.n_new:
            return ids
        newcomer = self.config.n_known + 1
        if self.training and self.config.id_dropout:
            hidden = (torch.rand(ids.shape, device=ids.device) < self.config.id_dropout) & (ids > 0)
            ids = ids.masked_fill(hidden, newcomer)
        return ids.clamp(max=newcomer)

    def _add_features(self, x: Tensor, features: nn.ModuleDict, ids: Tensor | slice) -> Tensor:
        for name, embedding in features.items():
            x = x + embedding(getattr(self, f"{name}_of")[ids])
        if self.config.n_numbers:
            layer = self.number_emb if features is self.features else self.output_numbers
            x = x + layer(self.numbers[ids])
        return x

    def keep_table(self) -> None:
        """Make `table()` once, for serving. It is given up as soon as the weights may change: by `train`, by loading
        other weights, by a move to another device or number type."""
        self.eval()  # a table for training may lack newcomers
        self._kept_table = None
        # Stored by columns: the product of one hidden state with it is seven times as fast.
        self._kept_table = self.table().detach().T.contiguous().T

    def train(self, mode: bool = True) -> SASRec:
        if mode:
            self._kept_table = None
        return super().train(mode)

    def load_state_dict(self, *args, **kwargs):
        self._kept_table = None
        return super().load_state_dict(*args, **kwargs)

    def _apply(self, *args, **kwargs):  # what to(), double() and cuda() come down to
        self._kept_table = None
        return super()._apply(*args, **kwargs)

    def forward(
        self, ids: Tensor, return_attention: bool = False, titles: Tensor | None = None
    ) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Hidden states [B, L, D] of `ids` int [B, L], padded on the right with 0; those at padding mean nothing.

        A model that reads titles expects a 0 in front, in the place of the title; `titles`: int [B, T], ids of words,
        0 = padding, None for no titles. With `return_attention` also the weights of each block, a list of [B, H, L, L]
        (row = query, column = key); rows sum to 1, with relative positions to at most 1.
        """
        L = ids.shape[1]
        if L > self.config.max_len:
            raise ValueError(f"{L} positions are more than the model's {self.config.max_len}: give the newest ones")
        x = self.embed(ids)
        if self.config.n_words:
            x = torch.cat([self._read(ids, titles)[:, None], x[:, 1:]], 1)
        if self.config.positions == "absolute":
            x = x + self.pos_emb.weight[:L]
        x = self.dropout(x)
        attention = []
        for block in self.blocks:
            x, attn = block(x, return_attention)
            attention.append(attn)
        x = self.norm(x)
        return (x, attention) if return_attention else x

    def _read(self, ids: Tensor, titles: Tensor | None) -> Tensor:
        """What the titles say, [B, D]. While training one in ten is hidden: playlists without a title exist too."""
        if (ids[:, 0] > 0).any():
            raise ValueError("a model that reads titles needs a 0 in front of the tracks, in the place of the title")
        if titles is None:
            return self.begin_emb.expand(len(ids), -1)
        if self.training:
            titles = titles * (torch.rand(len(ids), 1, device=ids.device) >= HIDDEN_TITLES)
        return self.begin_emb + self.word_emb(titles)

    def count(self, plays: Tensor) -> None:
        """Tell the pointer, if there is one, how often each track was played in training, [N+1]."""
        if self.config.pointer:
            self.pointer.count(plays, self.groups)

    @torch.no_grad()
    def start_from(self, vectors: np.ndarray) -> None:
        """Give the track tables, input and output, these first values, [N+1, D]; where a row is 0 they stay."""
        some = torch.from_numpy(vectors.any(1).nonzero()[0])
        for table in [self.item_emb] + ([] if self.config.tied else [self.output]):
            table.weight[some] = torch.from_numpy(vectors)[some].to(table.weight)
        self._kept_table = None

    def pointed(self, hidden: Tensor, ids: Tensor, targets: Tensor) -> tuple[Tensor, Tensor] | None:
        """What `unseen_softmax_loss` asks of the pointer, or None: log p(generate) and P(target), both [B, L]."""
        if not self.config.pointer:
            return None
        found = self.pointer(hidden, ids, self.groups)
        return found.generate, self.pointer.of_targets(found, ids, targets, self.groups)

    @torch.inference_mode()
    def score(self, histories: Sequences) -> np.ndarray:
        """Scores of all tracks after each history, float32 [B, N+1]; column 0 is 0.

        `histories` in model ids; ids above N are skipped, the newest `max_len` others are used. A history without any
        known track is scored by popularity (model ids are in order of it), or by what the model makes of its title if
        it reads titles (`histories.titles`).
        """
        was_training = self.training
        if was_training:  # asked first, because a switch visits every part of the model, and each request would pay
            self.eval()
        known = histories.keep(histories.items <= self.n_items)
        ids, titles = torch.from_numpy(pad(known, self.window)).to(self.item_emb.weight.device), None
        if self.config.n_words:
            ids = F.pad(ids, (1, 0))
            if known.titles is not None:
                titles = torch.from_numpy(pad(known.titles, MOST_WORDS)).to(ids.device)
        last = (ids > 0).sum(1).sub(0 if self.config.n_words else 1).clamp(min=0)
        row, hidden = torch.arange(len(ids), device=ids.device), self(ids, titles=titles)
        if self.config.pointer:
            pointed = Pointed(*(part[row, last] for part in self.pointer(hidden, ids, self.groups)))
        hidden = hidden[row, last]  # [B, D], at the last real track
        scores = hidden @ self.table().T
        if self.config.n_new:
            scores[:, self.config.n_known + 1 :] += self.lift
        if self.config.pointer:
            scores = self._with_pointer(scores, pointed, ids)
        scores[:, 0] = 0
        scores = scores.float().cpu().numpy()
        if not self.config.n_words:
            scores[known.lengths == 0] = -np.arange(self.n_items + 1)
        if was_training:
            super().train()  # not our own `train`, which would give up a kept table: no weight has changed
        return scores

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """A context in which the weights stay as they are: `table()` is made once for all calls of `score` in it."""
        if self._kept_table is not None:
            yield
            return
        was_training = self.training
        self.eval()  # a table for training may lack newcomers
        with torch.no_grad():
            self._kept_table = self.table()
        super().train(was_training)  # not our own `train`, which gives the table up
        try:
            yield
        finally:
            self._kept_table = None

    def _with_pointer(self, scores: Tensor, pointed: Pointed, ids: Tensor) -> Tensor:
        """log P(track) [B, N+1] of the mixture (see `Pointer`), from the scores of the softmax. Seen tracks are no
        candidates: what they get says only how they would compare."""
        scores[:, 0] = -torch.inf
        log_z = scores.scatter(1, ids, -torch.inf).logsumexp(1)
        generated = scores + (pointed.generate - log_z)[:, None]
        return torch.logaddexp(generated, self.pointer.of_all(pointed, ids, self.groups).log())

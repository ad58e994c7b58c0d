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
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sasrec_utils.sequences import Sequences, pad

__all__ = ["Attention", "Block", "SASRec", "SASRecConfig"]


@dataclass(frozen=True)
class SASRecConfig:
    """The shape of a SASRec. The defaults are the paper's: absolute positions, track ids only, tied output.

    `positions`: "absolute" (a vector for each place, the paper), "rotary" (queries and keys turned by their place) or
    "relative" (each head learns a weight for each distance, and one for attending to nothing). `n_artists`, `n_albums` > 0 add an embedding of
    the track's artist and album to the track's own, at the input and at the output. Raises ValueError for
    a shape that cannot be. Taught in notebook 03.
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

    def __post_init__(self) -> None:
        for name in ("n_items", "dim", "blocks", "heads", "max_len"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.positions not in ("absolute", "rotary", "relative"):
            raise ValueError(f"positions must be absolute, rotary or relative, got {self.positions!r}")
        if self.dim % self.heads:
            raise ValueError(f"a width of {self.dim} cannot be shared by {self.heads} heads of equal width")
        if self.positions == "rotary" and self.dim // self.heads % 2:
            raise ValueError(f"rotary positions need heads of even width, {self.dim} / {self.heads} is odd")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and less than 1, got {self.dropout}")


class Dropout(nn.Module):
    """`nn.Dropout` that needs one random byte for a number: three times as fast on a CPU.

    Set to 0 with probability p, to the nearest 1/256, and the rest scaled up so that the mean stays (paper, section
    3.3). Taught in notebook 03 §11.
    """

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or not self.training or self.p == 0:
            return F.dropout(x, self.p, self.training)
        keep = max(1, round(256 * (1 - self.p)))
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
        """[H, L, L+1]: the weight of the distance from query i back to key j, -inf in the future; last column: nothing."""
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
    has `n_artists` or `n_albums`. `seed` fixes the initial weights. A scorer as evaluation understands it: `name`,
    `n_items`, `score`. Taught in notebook 03 §12–§13.
    """

    name = "sasrec"

    def __init__(
        self,
        config: SASRecConfig,
        artist_of: np.ndarray | None = None,
        album_of: np.ndarray | None = None,
        seed: int = 0,
    ):
        super().__init__()
        torch.manual_seed(seed)
        self.config = config
        N, D = config.n_items, config.dim
        self.item_emb = nn.Embedding(N + 1, D, padding_idx=0)
        self.features = nn.ModuleDict()
        for name, size, ids in (("artist", config.n_artists, artist_of), ("album", config.n_albums, album_of)):
            if size:
                if ids is None or len(ids) != N + 1 or not 0 <= np.min(ids) <= np.max(ids) <= size:
                    raise ValueError(f"a model with {size} {name}s needs {name}_of: {N + 1} ids from 0 to {size}")
                self.features[name] = nn.Embedding(size + 1, D, padding_idx=0)
                self.register_buffer(f"{name}_of", torch.as_tensor(np.array(ids), dtype=torch.long))
        if config.positions == "absolute":
            self.pos_emb = nn.Embedding(config.max_len, D)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(D)
        self.dropout = Dropout(config.dropout)
        if not config.tied:
            self.output = nn.Embedding(N + 1, D, padding_idx=0)
            sizes = {name: embedding.num_embeddings for name, embedding in self.features.items()}
            self.output_features = nn.ModuleDict({n: nn.Embedding(size, D, padding_idx=0) for n, size in sizes.items()})
        self._kept_table: Tensor | None = None
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        for name, parameter in self.named_parameters():
            if "emb" in name or name.startswith(("features", "output")):
                parameter.normal_(std=0.02)
            elif parameter.ndim == 2 and "distance" not in name:
                nn.init.xavier_uniform_(parameter)
            elif name.endswith("bias"):
                parameter.zero_()
        if self.config.positions == "absolute":
            # Small waves of many lengths, not noise: "two steps back" is then the same rotation at every place from
            # the first step on, instead of something to be learned anew for each place.
            L, D = self.pos_emb.weight.shape
            speed = torch.logspace(math.log10(2.0), math.log10(math.pi / max(L, 2)), -(-D // 2))
            angle = torch.arange(L)[:, None] * speed
            self.pos_emb.weight.copy_(0.1 * torch.cat([angle.cos(), angle.sin()], 1)[:, :D])
        for embedding in self.modules():
            if isinstance(embedding, nn.Embedding) and embedding.padding_idx == 0:
                embedding.weight[0] = 0  # the padding row stays zero: its gradient is never anything else

    @property
    def n_items(self) -> int:
        return self.config.n_items

    def embed(self, ids: Tensor) -> Tensor:
        """Input embedding of tracks, [..., D]: the track's own, plus its artist's and album's where the model has them."""
        return self._add_features(self.item_emb(ids), self.features, ids)

    def score_embed(self, ids: Tensor) -> Tensor:
        """The vectors that score these tracks, [..., D]: their rows of `table()`."""
        if self.config.tied:
            return self.embed(ids)
        return self._add_features(self.output(ids), self.output_features, ids)

    def table(self) -> Tensor:
        """[N+1, D]: the vectors that score the tracks; row 0 is padding."""
        if self._kept_table is not None:
            return self._kept_table
        if self.config.tied:
            return self._add_features(self.item_emb.weight, self.features, slice(None))
        return self._add_features(self.output.weight, self.output_features, slice(None))

    def _add_features(self, x: Tensor, features: nn.ModuleDict, ids: Tensor | slice) -> Tensor:
        for name, embedding in features.items():
            x = x + embedding(getattr(self, f"{name}_of")[ids])
        return x

    def train(self, mode: bool = True) -> SASRec:
        """As of any module. Training lets go of a kept table, which would stay as it was while the weights move."""
        if mode:
            self._kept_table = None
        return super().train(mode)

    def keep_table(self) -> None:
        """Make `table()` once, for serving, until the model is trained again: the weights must not change meanwhile."""
        self._kept_table = None
        # Stored by columns: the product of one hidden state with it is seven times as fast.
        self._kept_table = self.table().detach().T.contiguous().T

    def forward(self, ids: Tensor, return_attention: bool = False) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Hidden states [B, L, D] of `ids` int [B, L], padded on the right with 0; what stands at padding means nothing.

        With `return_attention` also the weights of each block, a list of [B, H, L, L] (row = query, column = key); rows
        sum to 1, with relative positions to at most 1.
        """
        L = ids.shape[1]
        if L > self.config.max_len:
            raise ValueError(f"{L} positions are more than the model's {self.config.max_len}: give the newest ones")
        x = self.embed(ids)
        if self.config.positions == "absolute":
            x = x + self.pos_emb.weight[:L]
        x = self.dropout(x)
        attention = []
        for block in self.blocks:
            x, attn = block(x, return_attention)
            attention.append(attn)
        x = self.norm(x)
        return (x, attention) if return_attention else x

    @torch.inference_mode()
    def score(self, histories: Sequences) -> np.ndarray:
        """Scores of all tracks after each history, float32 [B, N+1]; column 0 is 0.

        `histories` in model ids; ids above N are skipped, the newest `max_len` others are used. A history without any
        known track is scored by popularity: model ids are in order of it.
        """
        was_training = self.training
        if was_training:  # a walk over all parts, which a served model is spared
            self.eval()
        known = histories.keep(histories.items <= self.n_items)
        ids = torch.from_numpy(pad(known, self.config.max_len)).to(self.item_emb.weight.device)
        last = (ids > 0).sum(1).sub(1).clamp(min=0)
        hidden = self(ids)[torch.arange(len(ids), device=ids.device), last]  # [B, D], at the last real track
        scores = hidden @ self.table().T
        scores[:, 0] = 0
        scores = scores.float().cpu().numpy()
        scores[known.lengths == 0] = -np.arange(self.n_items + 1)
        if was_training:
            self.train()
        return scores

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """A context in which the weights stay as they are: `table()` is made once for all calls of `score` in it."""
        if self._kept_table is not None:
            yield
            return
        with torch.no_grad():
            self._kept_table = self.table()
        try:
            yield
        finally:
            self._kept_table = None

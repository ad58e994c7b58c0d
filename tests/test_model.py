"""SASRec against a plain loop and PyTorch's own encoder, and every known way to get it subtly wrong."""

from __future__ import annotations

import cmath
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sasrec_utils import losses
from sasrec_utils.evaluation import top_k
from sasrec_utils.model import Block, Dropout, SASRec, SASRecConfig
from sasrec_utils.objective import Objective
from sasrec_utils.sequences import Sequences, batches, leave_last_out, pad
from sasrec_utils.training import LOSSES, TrainConfig, fit, load

N, ARTISTS, ALBUMS, MAX_LEN = 40, 7, 11, 12
POSITIONS = ("absolute", "rotary", "relative")
SHAPES = [(positions, features) for positions in POSITIONS for features in (False, True)]
every_shape = pytest.mark.parametrize(("positions", "features"), SHAPES)
every_position = pytest.mark.parametrize("positions", POSITIONS)
quick = settings(deadline=None, max_examples=25)


def make(positions="absolute", features=False, seed=0, lively=True, **changes) -> SASRec:
    """A small model in eval mode. Fresh weights are so small that a mistake would hardly show: `lively` shakes them."""
    rng = np.random.default_rng(5)
    artist_of, album_of = rng.integers(0, ARTISTS + 1, N + 1), rng.integers(0, ALBUMS + 1, N + 1)
    artist_of[0] = album_of[0] = 0
    sizes = {"n_artists": ARTISTS, "n_albums": ALBUMS} if features else {}
    config = SASRecConfig(N, dim=16, heads=2, max_len=MAX_LEN, dropout=0.0, positions=positions, **sizes)
    model = SASRec(replace(config, **changes), artist_of, album_of, seed=seed).eval()
    if lively:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
            for row in padding_rows(model):
                row.zero_()
    return model


def padding_rows(model: SASRec) -> list[torch.Tensor]:
    tables = [model.item_emb, *model.features.values()] + ([] if model.config.tied else [model.output])
    return [table.weight[0] for table in tables]


def random_ids(seed, rows=5, length=MAX_LEN) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(1, N + 1, (rows, length)))


def random_playlists(seed, users=20, longest=2 * MAX_LEN, unknown=0) -> Sequences:
    """Ragged, with repeats, empty ones and, if asked for, tracks that the model does not know."""
    rng = np.random.default_rng(seed)
    return Sequences.from_lists([rng.integers(1, N + unknown + 1, rng.integers(0, longest)) for _ in range(users)])


# No look into the future, no trace of padding


@every_shape
@torch.inference_mode()
def test_what_comes_later_changes_nothing_bit_for_bit(positions, features):
    model = make(positions, features)
    ids, others = random_ids(1), random_ids(2)
    hidden, attention = model(ids, return_attention=True)
    fused = model(ids)
    for t in range(MAX_LEN - 1):
        changed = torch.cat([ids[:, : t + 1], others[:, t + 1 :]], 1)
        assert torch.equal(model(changed)[:, : t + 1], fused[:, : t + 1])
        assert torch.equal((model(changed) @ model.table().T)[:, : t + 1], (fused @ model.table().T)[:, : t + 1])
        again, weights = model(changed, return_attention=True)
        assert torch.equal(again[:, : t + 1], hidden[:, : t + 1])
        assert all(torch.equal(a[:, :, : t + 1], b[:, :, : t + 1]) for a, b in zip(weights, attention, strict=True))
    changed = torch.cat([ids[:, :-1], others[:, -1:]], 1)
    assert not torch.allclose(model(changed)[:, -1], fused[:, -1])  # the present does matter
    changed = torch.cat([others[:, :1], ids[:, 1:]], 1)
    assert not torch.allclose(model(changed)[:, -1], fused[:, -1])  # and so does the past


@every_shape
@torch.inference_mode()
def test_more_padding_changes_no_real_position(positions, features):
    model = make(positions, features)
    ids = random_ids(3)
    for length in (1, 5, MAX_LEN - 1):
        bare = model(ids[:, :length])
        for more in range(1, MAX_LEN - length + 1):
            padded = torch.cat([ids[:, :length], torch.zeros(len(ids), more, dtype=torch.long)], 1)
            assert torch.allclose(model(padded)[:, :length], bare, rtol=0, atol=1e-5)


@every_shape
def test_a_batch_is_its_histories_one_by_one(positions, features):
    model = make(positions, features)
    histories = random_playlists(4, unknown=3)
    together = model.score(histories)
    alone = np.concatenate([model.score(histories.take([u])) for u in range(len(histories))])
    assert np.allclose(together, alone, rtol=0, atol=1e-4)  # scores are of the order of 10
    order = np.random.default_rng(0).permutation(len(histories))
    assert np.allclose(model.score(histories.take(order)), together[order], rtol=0, atol=1e-4)


@every_shape
@torch.inference_mode()
def test_the_last_real_track_decides(positions, features):
    """A ragged batch is read at each history's own last track, not at its padding and not at the batch's last place."""
    model = make(positions, features)
    rows = [[3], [7, 1, 9, 30], [5] * 9, [2, 11]]
    scores = model.score(Sequences.from_lists(rows))
    for row, mine in zip(rows, scores, strict=True):
        last = model(torch.tensor([row]))[0, -1] @ model.table().T
        assert np.allclose(mine[1:], last[1:].numpy(), rtol=0, atol=1e-4)
        other = model.score(Sequences.from_lists([[*row[:-1], row[-1] % N + 1]]))
        assert not np.allclose(mine, other, atol=1e-2)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@every_shape
def test_an_empty_and_a_one_track_history_give_finite_gradients(positions, features, dropout):
    model = make(positions, features, dropout=dropout).train()
    ids = torch.tensor([[0, 0, 0, 0], [9, 0, 0, 0], [1, 2, 3, 4]])
    for path in (False, True):
        model.zero_grad()
        hidden = model(ids, return_attention=path)
        hidden = hidden[0] if path else hidden
        assert hidden.isfinite().all()
        (hidden @ model.table().T).logsumexp(-1).sum().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    scores = model.score(Sequences.from_lists([[], [9], [1, 2, 3, 4], [N + 1]]))
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("features", [True, False])
def test_padding_rows_are_zero_and_stay_zero(loss, tied, features):
    model = make("absolute", features, tied=tied, lively=False, dropout=0.1)
    assert not any(row.any() for row in padding_rows(model))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    plans = [TrainConfig(loss=loss, negatives=4)]
    plans += [replace(plans[0], unseen_only=True)] if loss == "softmax" else []
    for plan in plans:
        objective = Objective(model.train(), plan)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for batch in batches(random_playlists(6, unknown=0), MAX_LEN, 8, np.random.default_rng(0)):
            loss_value = objective(torch.from_numpy(batch.ids), torch.from_numpy(batch.targets))
            optimizer.zero_grad()
            loss_value.backward()
            optimizer.step()
    assert not any(row.any() for row in padding_rows(model))
    assert not model.table()[0].any()
    unmoved = [name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])]
    assert not unmoved


# The same numbers as other ways to compute them


@every_shape
@torch.inference_mode()
def test_the_attention_handed_out_is_the_attention_used(positions, features):
    model = make(positions, features)
    ids = torch.from_numpy(pad(random_playlists(7), MAX_LEN))
    hidden, attention = model(ids, return_attention=True)
    assert torch.allclose(hidden, model(ids), rtol=0, atol=1e-5)
    L = ids.shape[1]
    future = torch.ones(L, L, dtype=torch.bool).triu(1)
    assert len(attention) == model.config.blocks
    for weights in attention:
        assert weights.shape == (len(ids), model.config.heads, L, L)
        if positions == "relative":  # the rest went to nothing
            assert (weights.sum(-1) > 0).all() and (weights.sum(-1) < 1).all()
        else:
            assert torch.allclose(weights.sum(-1), torch.ones(()), atol=1e-5)
        assert (weights[..., future] == 0).all()
        assert (weights[..., ~future] > 0).all()


@pytest.mark.parametrize("features", [False, True])
@torch.inference_mode()
def test_absolute_positions_are_pytorchs_own_encoder(features):
    model = make("absolute", features)
    c = model.config
    layer = nn.TransformerEncoderLayer(c.dim, c.heads, c.dim, 0.0, "relu", batch_first=True, norm_first=True)
    encoder = nn.TransformerEncoder(layer, c.blocks, norm=nn.LayerNorm(c.dim), enable_nested_tensor=False).eval()
    for mine, its in zip(model.blocks, encoder.layers, strict=True):
        its.load_state_dict({
            "self_attn.in_proj_weight": mine.attention.qkv.weight, "self_attn.in_proj_bias": mine.attention.qkv.bias,
            "self_attn.out_proj.weight": mine.attention.out.weight, "self_attn.out_proj.bias": mine.attention.out.bias,
            "linear1.weight": mine.feed_in.weight, "linear1.bias": mine.feed_in.bias,
            "linear2.weight": mine.feed_out.weight, "linear2.bias": mine.feed_out.bias,
            "norm1.weight": mine.norm_attention.weight, "norm1.bias": mine.norm_attention.bias,
            "norm2.weight": mine.norm_feed.weight, "norm2.bias": mine.norm_feed.bias,
        })  # fmt: skip
    encoder.norm.load_state_dict(model.norm.state_dict())
    for length in (1, 7, MAX_LEN):
        ids = random_ids(8, length=length)
        x = model.item_emb.weight[ids] + model.pos_emb.weight[torch.arange(length)]
        if features:
            x = x + model.features["artist"].weight[model.artist_of[ids]]
            x = x + model.features["album"].weight[model.album_of[ids]]
        blocked = torch.ones(length, length, dtype=torch.bool).triu(1)  # here True means: may NOT attend
        assert torch.allclose(model(ids), encoder(x, mask=blocked), rtol=0, atol=1e-5)


def by_hand(model: SASRec, ids: list[int]) -> np.ndarray:
    """Hidden states of one playlist, [L, D]: loops over positions and heads in float64, as the equations are read."""
    weights = {name: value.double().numpy() for name, value in model.state_dict().items()}
    c = model.config
    width = c.dim // c.heads

    def linear(name, x):
        return weights[f"{name}.weight"] @ x + weights[f"{name}.bias"]

    def norm(name, x):
        return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def logit(name, q, k, i, j, head):
        """How much position i wants position j: the three kinds of positions differ here and nowhere else but below."""
        if c.positions == "rotary":  # a pair of entries is a complex number that its place turns
            half = width // 2
            product = 0
            for m in range(half):
                speed = 10_000 ** (-2 * m / width)
                turned_q = complex(q[m], q[half + m]) * cmath.exp(1j * i * speed)
                turned_k = complex(k[m], k[half + m]) * cmath.exp(1j * j * speed)
                product += (turned_q * turned_k.conjugate()).real
            return product / math.sqrt(width)
        distance = weights[f"{name}.distance"][head, i - j] if c.positions == "relative" else 0.0
        return q @ k / math.sqrt(width) + distance

    xs = [weights["item_emb.weight"][i].copy() for i in ids]
    for t, i in enumerate(ids):
        for feature in model.features:
            xs[t] += weights[f"features.{feature}.weight"][weights[f"{feature}_of"][i].astype(int)]
        if c.positions == "absolute":
            xs[t] += weights["pos_emb.weight"][t]
    for block in range(c.blocks):
        name = f"blocks.{block}"
        qkv = [linear(f"{name}.attention.qkv", norm(f"{name}.norm_attention", x)) for x in xs]
        after = []
        for i, x in enumerate(xs):
            heads = []
            for head in range(c.heads):
                part = slice(head * width, (head + 1) * width)
                q, k, v = ([row[n * c.dim : (n + 1) * c.dim][part] for row in qkv] for n in range(3))
                logits = np.array([logit(f"{name}.attention", q[i], k[j], i, j, head) for j in range(i + 1)])
                share, nothing = np.exp(logits), 0.0
                if c.positions == "relative":  # a query may also attend to nothing, at a price of its own
                    nothing = np.exp(weights[f"{name}.attention.distance"][head, -1])
                heads.append((share / (share.sum() + nothing)) @ np.array(v[: i + 1]))
            y = x + linear(f"{name}.attention.out", np.concatenate(heads))
            after.append(
                y + linear(f"{name}.feed_out", np.maximum(0, linear(f"{name}.feed_in", norm(f"{name}.norm_feed", y))))
            )
        xs = after
    return np.array([norm("norm", x) for x in xs])


@every_shape
@torch.inference_mode()
def test_a_plain_loop_gives_the_same_numbers(positions, features):
    model = make(positions, features)
    for row in ([4], [8, 8, 21], random_ids(9, rows=1)[0].tolist()):
        assert np.allclose(model(torch.tensor([row]))[0].numpy(), by_hand(model, row), rtol=0, atol=2e-5)


# What positions mean


@torch.inference_mode()
def test_only_distance_counts_for_rotary_and_relative_positions():
    """The weights among the last four places keep their proportions when eight others are put before them."""
    for positions in POSITIONS:
        model = make(positions)
        attention = model.blocks[0].attention
        x = torch.randn(2, MAX_LEN, model.config.dim, generator=torch.Generator().manual_seed(1))
        if positions == "absolute":
            x = x + model.pos_emb.weight
        late = attention(x, return_attention=True)[1][:, :, -4:, -4:]
        tail = x[:, -4:]
        if positions == "absolute":
            tail = tail - model.pos_emb.weight[-4:] + model.pos_emb.weight[:4]
        early = attention(tail, return_attention=True)[1]
        late, early = (weights / weights.sum(-1, keepdim=True) for weights in (late, early))
        assert torch.allclose(late, early, atol=1e-5) == (positions != "absolute"), positions


@torch.inference_mode()
def test_a_track_said_again_and_again_stands_everywhere_at_the_same_place():
    ids = torch.full((1, MAX_LEN), 3)
    for positions in POSITIONS:
        model = make(positions)
        if positions == "relative":  # how much goes to nothing depends on how much else there is
            for block in model.blocks:
                block.attention.distance[:, -1] = -1e4
        hidden = model(ids)[0]
        assert torch.allclose(hidden, hidden[:1].expand_as(hidden), atol=1e-5) == (positions != "absolute"), positions


@every_position
@torch.inference_mode()
def test_order_matters(positions):
    model = make(positions)
    forth, back = (model.score(Sequences.from_lists([row])) for row in ([1, 2, 3, 4], [3, 2, 1, 4]))
    assert not np.allclose(forth, back, atol=1e-3)


@every_shape
@torch.inference_mode()
def test_a_position_means_the_same_in_training_and_in_serving(positions, features):
    """The newest window of each training playlist scores its last target exactly as serving scores its history."""
    model = make(positions, features)
    seqs = random_playlists(10, users=30)
    seqs = seqs.take(seqs.lengths >= 2)
    histories, targets = leave_last_out(seqs)
    served = {
        (h[-MAX_LEN:].tobytes(), int(y)): s for h, y, s in zip(histories, targets, model.score(histories), strict=True)
    }
    met = 0
    for batch in batches(seqs, MAX_LEN, 8, np.random.default_rng(0)):
        scores = (model(torch.from_numpy(batch.ids)) @ model.table().T).numpy()
        for row, ids in enumerate(batch.ids):
            last = np.count_nonzero(ids) - 1
            key = ids[: last + 1].astype(np.int32).tobytes(), int(batch.targets[row, last])
            if key in served:
                assert np.allclose(scores[row, last, 1:], served.pop(key)[1:], rtol=0, atol=1e-4)
                met += 1
    assert met == len(seqs) and not served


@every_shape
def test_the_newest_tracks_are_kept(positions, features):
    model = make(positions, features)
    rows = [random_ids(s, rows=1, length=3 * MAX_LEN)[0].tolist() for s in range(5)]
    scores = model.score(Sequences.from_lists(rows))
    assert np.array_equal(scores, model.score(Sequences.from_lists([row[-MAX_LEN:] for row in rows])))
    assert not np.allclose(scores, model.score(Sequences.from_lists([row[:MAX_LEN] for row in rows])), atol=1e-2)
    # Tracks that the model does not know take none of the places.
    gaps = [[x for pair in zip(row, [N + 5] * len(row), strict=True) for x in pair] for row in rows]
    assert np.array_equal(scores, model.score(Sequences.from_lists(gaps)))


# Scores


@quick
@given(st.lists(st.lists(st.integers(1, N + 6), max_size=20), max_size=6), st.sampled_from(POSITIONS))
def test_unknown_tracks_are_as_if_not_there(rows, positions):
    model = make(positions, blocks=1)
    scores = model.score(Sequences.from_lists(rows))
    assert scores.shape == (len(rows), N + 1) and scores.dtype == np.float32
    assert np.isfinite(scores).all() and not scores[:, 0].any()
    known = [[x for x in row if x <= N] for row in rows]
    assert np.array_equal(scores, model.score(Sequences.from_lists(known)))
    far = [[x if x <= N else 2_000_000_000 for x in row] for row in rows]
    assert np.array_equal(scores, model.score(Sequences.from_lists(far)))


def test_without_a_history_the_popular_tracks_come_first():
    scores = make().score(Sequences.from_lists([[], [N + 1, N + 2], [4]]))
    best = top_k(scores, N)
    assert best[0].tolist() == best[1].tolist() == list(range(1, N + 1))
    assert best[2].tolist() != best[0].tolist()


@every_shape
@pytest.mark.parametrize("tied", [True, False])
def test_a_kept_table_scores_the_same(positions, features, tied):
    model = make(positions, features, tied=tied)
    histories = random_playlists(11)
    before = model.score(histories)
    model.keep_table()
    assert model.table() is model.table() and not model.table().requires_grad
    assert np.array_equal(model.score(histories), before)


@pytest.mark.parametrize("tied", [True, False])
def test_a_kept_table_is_given_up_when_the_weights_may_change(tied):
    """Else training goes on against a table that never moves, and loaded weights answer with the old ones."""
    histories = random_playlists(16)
    other = make(tied=tied, seed=3)
    model = make(tied=tied)
    model.keep_table()
    model.load_state_dict(other.state_dict())
    assert np.array_equal(model.score(histories), other.score(histories))

    with torch.no_grad():  # nothing tells the model of this, but whoever asks for a table asks for today's
        model.keep_table()
        model.item_emb.weight.add_(1.0)
        (model.item_emb if tied else model.output).weight.mul_(2.0)
        model.keep_table()
        kept = model.table()
        model.eval().load_state_dict(model.state_dict())
        assert torch.allclose(kept, model.table())

    model.keep_table()
    model.train()
    assert model.table().requires_grad
    Objective(model, TrainConfig(loss="softmax"))(random_ids(17)[:, :-1], random_ids(17)[:, 1:]).backward()
    table = model.item_emb if tied else model.output
    assert table.weight.grad[1:].abs().sum(1).gt(0).all()  # a softmax over all tracks moves every track

    model.eval()
    model.keep_table()
    model.double()
    assert model.table().dtype == torch.float64


@pytest.mark.parametrize("features", [False, True])
@pytest.mark.parametrize("tied", [True, False])
@torch.inference_mode()
def test_tracks_are_scored_by_their_row_of_the_table(features, tied):
    model = make(features=features, tied=tied)
    ids = random_ids(12)
    assert model.table().shape == (N + 1, model.config.dim)
    assert torch.allclose(model.score_embed(ids), model.table()[ids], atol=1e-6)
    assert torch.allclose(model.embed(ids), model.table()[ids], atol=1e-6) == tied
    if features:  # two tracks of one artist and album differ by their own vectors only
        own = model.embed(ids) - model.item_emb(ids)
        by_hand = (
            model.features["artist"].weight[model.artist_of[ids]] + model.features["album"].weight[model.album_of[ids]]
        )
        assert torch.allclose(own, by_hand, atol=1e-6)


def test_scoring_is_quiet_about_itself():
    """No dropout, no gradients, and the model is left in the mode it was in."""
    model = make(dropout=0.5).train()
    histories = random_playlists(13)
    assert np.array_equal(model.score(histories), model.score(histories))
    assert model.training
    assert not torch.equal(model(random_ids(14)), model(random_ids(14)))


@every_position
def test_one_seed_one_set_of_weights(positions):
    one, same, other = (make(positions, True, seed=s, lively=False).state_dict() for s in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["item_emb.weight"], other["item_emb.weight"])


def test_making_a_model_leaves_the_random_numbers_of_others_alone():
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    make(lively=False)
    assert torch.equal(torch.rand(3), expected)


@torch.inference_mode()
def test_two_steps_apart_is_the_same_turn_at_every_place():
    """Absolute positions start as waves: what two places have in common depends on how far apart they are alone."""
    waves = make(lively=False, max_len=50).pos_emb.weight
    alike = waves @ waves.T
    for distance in range(5):
        assert torch.allclose(alike.diagonal(distance), alike[0, distance], atol=1e-5)
    near, far = alike.diagonal(1).mean(), alike.diagonal(20).mean()
    assert alike.diagonal().mean() > near > far  # and neighbours are more alike than strangers


@pytest.mark.parametrize("tied", [True, False])
def test_tables_start_from_vectors_that_are_given(tied):
    model, before = make(tied=tied, lively=False), make(tied=tied, lively=False)
    vectors = np.random.default_rng(0).random((N + 1, 16), dtype=np.float32)
    vectors[[0, 7]] = 0  # nothing is known of these
    model.start_from(vectors)
    rows = np.setdiff1d(np.arange(N + 1), [0, 7])
    for mine, old in ((model.item_emb, before.item_emb), *([] if tied else [(model.output, before.output)])):
        assert np.array_equal(mine.weight.detach().numpy()[rows], vectors[rows])
        assert torch.equal(mine.weight[[0, 7]], old.weight[[0, 7]])


# Dropout


@pytest.mark.parametrize("p", [0.0, 0.001, 0.002, 0.1, 0.25, 0.5, 0.9, 0.99])
def test_dropout_keeps_the_share_and_the_mean(p):
    torch.manual_seed(0)
    x = torch.ones(1_000_003)  # no multiple of eight: random bytes come eight at a time
    y = Dropout(p).train()(x)
    kept = y != 0
    n = len(x)
    to_byte = 1 / 512  # the docstring's promise: p to the nearest 1/256
    assert abs(kept.float().mean() - (1 - p)) < to_byte + 4 * math.sqrt(p * (1 - p) / n) + 1e-6
    assert y[kept].unique().numel() == 1
    assert abs(y.mean() - 1) < 5 * math.sqrt(p / (1 - p) / n) * 2 + 1e-6
    assert torch.equal(Dropout(p).eval()(x), x)


def test_every_sub_layer_has_its_dropout():
    """Of zeros and ones: 1 comes out where nothing is dropped, and 0 or twice as much for each dropout on the way."""
    for loud, expected in (("attention.out", {0.0, 2.0}), ("feed_out", {0.0, 4.0})):  # one dropout, and two in a row
        block = Block(SASRecConfig(N, dim=16, heads=2, dropout=0.5)).train()
        with torch.no_grad():
            for name in ("attention.out", "feed_in", "feed_out"):
                block.get_submodule(name).weight.zero_()
                block.get_submodule(name).bias.zero_()
            if loud == "feed_out":  # hidden units of 1, handed on as they are
                block.feed_in.bias.fill_(1)
                block.feed_out.weight.copy_(torch.eye(16))
            else:
                block.attention.out.bias.fill_(1)
        assert set(block(torch.zeros(8, 5, 16))[0].unique().tolist()) == expected, loud
        assert set(block.eval()(torch.zeros(8, 5, 16))[0].unique().tolist()) == {1.0}, loud


@every_position
def test_the_input_has_its_dropout(positions):
    model = make(positions, dropout=0.5, blocks=1).train()
    seen = []
    model.blocks[0].register_forward_pre_hook(lambda block, args: seen.append(args[0]))
    model(random_ids(18))
    assert 0.3 < (seen[0] == 0).float().mean() < 0.7


@every_shape
def test_forward_makes_no_tensor_on_another_device(positions, features):
    """On the meta device, which computes shapes only, a tensor made on the CPU would not mix with the others."""
    model = make(positions, features).to("meta")
    ids = torch.zeros(3, MAX_LEN, dtype=torch.long, device="meta")
    hidden, attention = model(ids, return_attention=True)
    for tensor in (hidden, model(ids), model.table(), *attention):
        assert tensor.device.type == "meta"


# The pointer


def pointing(features=("artist", "album"), seed=0, **changes) -> SASRec:
    """A model whose pointer has a say, and whose artists were played unequally often."""
    sizes = {"n_artists": ARTISTS * ("artist" in features), "n_albums": ALBUMS * ("album" in features)}
    model = make("relative", seed=seed, pointer=True, **sizes, **changes)
    plays = torch.from_numpy(np.random.default_rng(seed).integers(0, 30, N + 1))
    model.pointer.count(plays, model.groups)
    return model


def mixture_by_hand(model: SASRec, history: list[int]) -> np.ndarray:
    """P(track) after a history, [N+1], as the equation is read: loops in float64."""
    ids = torch.tensor([history])
    weights = {name: value.double().numpy() for name, value in model.state_dict().items()}
    with torch.inference_mode():
        states = model(ids)[0].double().numpy()
    now, D = states[-1], model.config.dim
    logits = {"generate": weights["pointer.generate.weight"][0] @ now + weights["pointer.generate.bias"][0]}
    distance = weights["pointer.distance.weight"] @ now + weights["pointer.distance.bias"]
    pointed_at = {}
    for kind, group_of in enumerate(model.groups):
        query = (weights["pointer.query.weight"] @ now)[kind * D : (kind + 1) * D]
        for j, track in enumerate(history):
            group = int(group_of[track])
            tracks = [x for x in range(1, N + 1) if int(group_of[x]) == group and x not in history]
            if group and tracks:
                key = (weights["pointer.key.weight"] @ states[j])[kind * D : (kind + 1) * D]
                place = kind * MAX_LEN + len(history) - 1 - j
                logits[kind, j] = query @ key / math.sqrt(D) + distance[place]
                shares = weights["pointer.share"][kind][tracks]
                pointed_at[kind, j] = tracks, shares / shares.sum()
    total = sum(math.exp(value) for value in logits.values())
    scores = model.table().detach().double().numpy() @ now
    candidates = [x for x in range(1, N + 1) if x not in history]
    p = np.zeros(N + 1)
    p[candidates] = np.exp(scores[candidates]) / np.exp(scores[candidates]).sum() * math.exp(logits["generate"]) / total
    for place, (tracks, shares) in pointed_at.items():
        p[tracks] += math.exp(logits[place]) / total * shares
    return p


EVERY_TRACK_OF_ARTIST_1 = np.flatnonzero(make(features=True).artist_of.numpy() == 1).tolist()
HISTORIES = [[4], [8, 8, 21], [3, 30, 3, 12, 9, 9, 40], EVERY_TRACK_OF_ARTIST_1, random_ids(9, rows=1)[0].tolist()]


@pytest.mark.parametrize("features", [("artist",), ("album",), ("artist", "album")])
def test_the_mixture_is_the_equation_and_sums_to_1(features):
    model = pointing(features)
    scores = model.score(Sequences.from_lists(HISTORIES))
    for history, row in zip(HISTORIES, scores, strict=True):
        expected = mixture_by_hand(model, history)
        unseen = np.setdiff1d(np.arange(1, N + 1), history)
        assert expected.sum() == pytest.approx(1)
        assert np.allclose(row[unseen], np.log(expected[unseen]), rtol=0, atol=1e-4)
        assert np.exp(row[unseen].astype(float)).sum() == pytest.approx(1, abs=1e-4)
        assert np.isfinite(row).all()


def test_training_and_serving_give_a_track_the_same_probability():
    model = pointing()
    history = [3, 30, 3, 12, 9, 9, 40, 7, 25]
    targets = torch.tensor([[*history[1:], 11]])
    ids = torch.tensor([history])
    with torch.inference_mode():
        hidden = model(ids)
        pointed = model.pointer(hidden, ids, model.groups)
        of_targets = model.pointer.of_targets(pointed, ids, targets, model.groups)[0]
        scores = hidden[0] @ model.table().T
    for t, target in enumerate(targets[0].tolist()):
        seen = history[: t + 1]
        if target in seen:
            assert of_targets[t] == 0
            continue
        candidates = [x for x in range(1, N + 1) if x not in seen]
        softmax = (scores[t, target] - scores[t, candidates].logsumexp(0)).exp()
        trained = pointed.generate[0, t].exp() * softmax + of_targets[t]
        served = math.exp(model.score(Sequences.from_lists([seen]))[0, target])
        assert trained.item() == pytest.approx(served, rel=1e-4)
    assert (of_targets > 0).any()


@torch.inference_mode()
def test_the_pointer_sees_neither_the_future_nor_padding():
    model = pointing()
    ids, others = random_ids(1), random_ids(2)
    pointed = model.pointer(model(ids), ids, model.groups)
    for t in range(MAX_LEN - 1):
        changed = torch.cat([ids[:, : t + 1], others[:, t + 1 :]], 1)
        again = model.pointer(model(changed), changed, model.groups)
        assert torch.equal(again.generate[:, : t + 1], pointed.generate[:, : t + 1])
        assert torch.equal(again.places[:, : t + 1], pointed.places[:, : t + 1])
        assert (again.places[:, t, :, t + 1 :] == -torch.inf).all()
    short = pointing().pointer(model(ids[:, :5]), ids[:, :5], model.groups)
    padded = torch.cat([ids[:, :5], torch.zeros(len(ids), 4, dtype=torch.long)], 1)
    longer = model.pointer(model(padded), padded, model.groups)
    assert torch.allclose(longer.places[:, :5, :, :5].exp(), short.places.exp(), atol=1e-6)
    assert (longer.places[:, :, :, 5:] == -torch.inf).all()
    assert torch.allclose(longer.generate.exp() + longer.places.exp().sum((2, 3)), torch.ones(()), atol=1e-5)
    histories = random_playlists(4, unknown=3)
    together = model.score(histories)
    alone = np.concatenate([model.score(histories.take([u])) for u in range(len(histories))])
    assert np.allclose(together, alone, rtol=0, atol=1e-4)


def test_a_history_without_artists_leaves_everything_to_the_softmax():
    config = SASRecConfig(5, dim=4, heads=1, n_artists=2, pointer=True)
    model = SASRec(config, [0, 0, 0, 1, 2, 2])
    plain = SASRec(replace(config, pointer=False), [0, 0, 0, 1, 2, 2])
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("pointer")})
    row, softmax = (m.score(Sequences.from_lists([[1, 2]]))[0, 3:] for m in (model, plain))
    assert np.allclose(row - row[0], softmax - softmax[0], atol=1e-6)


def test_a_pointer_has_finite_gradients_everywhere():
    model = pointing().train()
    ids = torch.tensor([[0, 0, 0, 0], [9, 0, 0, 0], [1, 2, 3, 4], [*EVERY_TRACK_OF_ARTIST_1[:3], 5]])
    targets = torch.tensor([[0, 0, 0, 0], [3, 0, 0, 0], [2, 3, 4, 1], [7, 5, 6, 8]])
    pointed = model.pointer(model(ids), ids, model.groups)
    (pointed.generate + model.pointer.of_targets(pointed, ids, targets, model.groups)).sum().backward()
    for name, parameter in model.pointer.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.any(), name


@pytest.mark.parametrize("half", [False, True])
def test_the_loss_of_the_mixture_and_its_gradients(half, monkeypatch):
    """Against the equation written out, by autograd alone; in chunks that do not come out even."""
    monkeypatch.setattr(losses, "CHUNK_SCORES", 64 * (N + 1))
    torch.manual_seed(0)
    ids, targets = random_ids(20, rows=13), random_ids(21, rows=13)
    targets[3, 5:] = ids[3, 6:] = 0
    new = torch.ones(13, MAX_LEN, N + 1)  # candidates: not seen yet, or the target itself
    new[..., 0] = 0
    for b, t in np.ndindex(13, MAX_LEN):
        new[b, t, ids[b, : t + 1]] = 0
        new[b, t, targets[b, t]] = 1

    def plain(hidden, table, generate, pointer):
        softmax = (hidden @ table.T).masked_fill(new == 0, -torch.inf).softmax(-1)
        own = softmax.gather(2, targets[:, :, None])[..., 0]
        return -(generate.exp() * own + pointer)[targets > 0].log().mean()

    def ours(hidden, table, generate, pointer):
        return losses.unseen_softmax_loss(hidden, ids, targets, table, half, (generate, pointer))

    start = [
        torch.randn(13, MAX_LEN, 16),
        torch.randn(N + 1, 16),
        torch.rand(13, MAX_LEN).log(),
        torch.rand(13, MAX_LEN) * (torch.rand(13, MAX_LEN) < 0.7),  # where nothing points at the target: 0
    ]
    found = []
    for loss in (plain, ours):
        parts = [part.clone().requires_grad_() for part in start]
        value = loss(*parts)
        (3 * value).backward()
        parts[3].grad *= start[3] > 0  # where nothing points, there is nothing to learn
        found.append([value.detach(), *(part.grad for part in parts)])
    for expected, got in zip(*found, strict=True):
        off = (got - expected).abs().max() / expected.abs().max()
        assert off < (0.03 if half else 1e-5)


def test_training_moves_the_pointer_and_a_checkpoint_keeps_it(tmp_path):
    """With artists heard again two steps later, the pointer takes over; what is saved scores what was trained."""
    rng = np.random.default_rng(0)
    artist_of = np.concatenate([[0], np.arange(N) % ARTISTS + 1])
    playlists = []
    for _ in range(60):  # two artists in turn, their tracks in any order
        a, b = (rng.permutation(np.flatnonzero(artist_of == x)) for x in rng.choice(ARTISTS, 2, False) + 1)
        playlists.append(np.stack([a[:5], b[:5]], 1).ravel())
    seqs = Sequences.from_lists(playlists)
    config = SASRecConfig(N, dim=16, heads=2, max_len=MAX_LEN, positions="relative", n_artists=ARTISTS, pointer=True)
    model = SASRec(config, artist_of)
    plan = TrainConfig(epochs=6, batch_size=8, unseen_only=True, warmup_steps=5, lr=1e-2, table_lr=1.0)
    fit(model, seqs.take(np.arange(50)), seqs.take(np.arange(50, 60)), plan, tmp_path, progress=False)
    plays = torch.from_numpy(np.bincount(seqs.take(np.arange(50)).items, minlength=N + 1))
    share = model.pointer.share.clone()
    model.count(plays)
    assert torch.equal(model.pointer.share, share)  # of the training playlists, and of these alone
    ids = torch.from_numpy(pad(seqs, MAX_LEN))[:, :-1]
    pointed = model.pointer(model(ids), ids, model.groups)
    assert pointed.generate[:, 5:].exp().mean() < 0.5
    assert torch.equal(pointed.places[:, 5:, 0].argmax(-1) % 2, torch.arange(5, ids.shape[1]).expand(60, -1) % 2 ^ 1)
    histories = random_playlists(22)
    assert np.array_equal(load(tmp_path)[0].score(histories), model.score(histories))


def test_plays_decide_which_track_of_an_artist_is_meant():
    model = SASRec(SASRecConfig(5, dim=4, heads=1, n_artists=2, pointer=True), [0, 1, 1, 1, 2, 0])
    assert model.pointer.share[0].tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3, 1, 0])  # before anything is known
    model.pointer.count(torch.tensor([0, 6, 3, 0, 0, 9]), model.groups)
    assert model.pointer.share[0].tolist() == pytest.approx([0, 6.5 / 10.5, 3.5 / 10.5, 0.5 / 10.5, 1, 0])
    other = SASRec(SASRecConfig(5, dim=4, heads=1, n_artists=2, pointer=True), [0, 1, 1, 1, 2, 0], seed=1)
    other.load_state_dict(model.state_dict())
    history = Sequences.from_lists([[1, 4]])
    assert np.array_equal(other.score(history), model.score(history))


# Mistakes


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, 0) for name in ("n_items", "dim", "blocks", "heads", "max_len")),
        *(("blocks", 10**7), ("dim", 10**6), ("max_len", 10**7), ("n_artists", -1), ("n_albums", 0.5)),
        *(("blocks", 2.5), ("n_items", "9"), ("dim", True)),
        *(("dropout", 1.0), ("dropout", -0.1), ("dropout", float("nan")), ("dropout", "much")),
    ],
)
def test_a_number_that_cannot_be_is_refused(name, value):
    with pytest.raises(ValueError, match=name):
        SASRecConfig(**({"n_items": 10} | {name: value}))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"dim": 15, "heads": 2}, "heads"),
        ({"dim": 6, "heads": 2, "positions": "rotary"}, "even"),
        ({"positions": "learned"}, "absolute, rotary or relative"),
        ({"pointer": True}, "n_artists or n_albums"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(changes, word):
    with pytest.raises(ValueError, match=word):
        SASRecConfig(**({"n_items": 10} | changes))


def test_features_need_their_ids():
    config = SASRecConfig(3, dim=4, heads=1, n_artists=2)
    assert SASRec(config, [0, 1, 2, 2]).table().shape == (4, 4)
    for artist_of in (None, [0, 1, 2], [0, 1, 2, 3], [0, -1, 2, 1]):
        with pytest.raises(ValueError, match="artist_of: 4 ids from 0 to 2"):
            SASRec(config, artist_of)


def test_more_positions_than_the_model_has_are_refused():
    with pytest.raises(ValueError, match=rf"{MAX_LEN + 1} positions .* {MAX_LEN}: give the newest"):
        make()(random_ids(15, length=MAX_LEN + 1))

"""Training learns, stops, resumes and repeats itself, and says what is wrong with what it is given."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from sasrec_utils import training
from sasrec_utils.checkpoints import CheckpointError, load
from sasrec_utils.evaluation import ndcg_at, ranks, top_k
from sasrec_utils.losses import unseen_softmax_loss
from sasrec_utils.model import SASRec, SASRecConfig
from sasrec_utils.objective import Objective
from sasrec_utils.sequences import Sequences, batches, leave_last_out
from sasrec_utils.training import LOSSES, TrainConfig, fit, recipe
from sasrec_utils.vectors import count_vectors

N = 30
ARTIST_OF = np.r_[0, np.arange(N) % 4]  # one artist in four is unknown
PLAN = TrainConfig(epochs=4, batch_size=16, lr=3e-3, warmup_steps=5, accelerator="cpu")
POSITIONS = ("absolute", "rotary", "relative")


def cyclic(users, seed, longest=20) -> Sequences:
    """A world with one law: after track i comes i + 1, and after N comes 1."""
    rng = np.random.default_rng(seed)
    return Sequences.from_lists(
        [[(start + i) % N + 1 for i in range(rng.integers(3, longest))] for start in rng.integers(0, N, users)]
    )


TRAIN, VALID = cyclic(60, 0), cyclic(30, 1)


def fresh(seed=0, **changes) -> SASRec:
    shape = {"dim": 16, "blocks": 1, "heads": 2, "max_len": 16, "dropout": 0.2, "n_artists": 3} | changes
    return SASRec(SASRecConfig(N, **shape), ARTIST_OF if shape["n_artists"] else None, seed=seed)


def same_weights(a: SASRec, b: SASRec) -> bool:
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def without_times(history: pd.DataFrame) -> pd.DataFrame:
    return history.drop(columns=["seconds", "targets_per_second"])


# Learning


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("loss", LOSSES)
def test_it_learns_a_world_with_one_law(loss, positions):
    """Every loss with every kind of positions, and with the negatives that it takes by itself."""
    model = fresh(dim=32, dropout=0.0, n_artists=0, positions=positions)
    plan = TrainConfig(loss, 15, 32, 3e-3, warmup_steps=10, patience=15, accelerator="cpu")
    untrained = ndcg_at(ranks(model, *leave_last_out(VALID)), 10).mean()
    history = fit(model, cyclic(300, 2), VALID, plan, progress=False)
    assert untrained < 0.5 and history["valid_ndcg@10"].max() > 0.95
    assert history["train_loss"].iloc[-1] < 0.7 * history["train_loss"].iloc[0]
    # And beyond the data: a playlist longer than any of training, and longer than what the model sees.
    histories = Sequences.from_lists([range(1, 26), [28, 29, 30]])
    assert top_k(model.score(histories), 1, histories).tolist() == [[26], [1]]


def test_unseen_softmax_learns_too_and_need_not_push_down_what_is_seen():
    """Its candidates are those of the evaluation, so tracks already heard may keep a high score."""
    model = fresh(dim=32, dropout=0.0, n_artists=0)
    plan = TrainConfig(epochs=12, batch_size=32, lr=3e-3, warmup_steps=10, unseen_only=True, accelerator="cpu")
    history = fit(model, cyclic(300, 2), VALID, plan, progress=False)
    assert history["valid_ndcg@10"].max() > 0.95


def test_the_history_says_what_happened():
    model = fresh()
    history = fit(model, TRAIN, VALID, PLAN, progress=False)
    assert history["epoch"].tolist() == [1, 2, 3, 4]
    assert (history["step"].diff().dropna() == history["step"].iloc[0]).all()
    assert (history["valid_ndcg@10"] <= history["valid_recall@10"]).all()
    assert history[["train_loss", "valid_loss"]].gt(0).all(axis=None)
    assert history["lr"].iloc[-1] < history["lr"].iloc[1] <= PLAN.lr  # after the warm-up it falls
    # The losses are those of a model that has learned nothing yet: log N.
    assert math.isclose(
        training.validate(fresh(), VALID, *leave_last_out(VALID))["valid_loss"], math.log(N), rel_tol=0.05
    )


def test_the_best_epoch_wins_and_patience_ends_the_rest(monkeypatch, tmp_path):
    """NDCG by script: the best is epoch 2, epoch 4 is only as good, and nothing better follows for three epochs."""
    script, weights = iter([0.1, 0.5, 0.3, 0.5, 0.2, 0.9]), []

    def validate(model, *_):
        weights.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"valid_loss": 1.0, "valid_recall@10": 1.0, "valid_ndcg@10": next(script)}

    monkeypatch.setattr(training, "validate", validate)
    model = fresh()
    history = fit(model, TRAIN, VALID, replace(PLAN, epochs=6, patience=3), tmp_path, progress=False)
    assert history["epoch"].tolist() == [1, 2, 3, 4, 5]
    assert all(torch.equal(value, weights[1][name]) for name, value in model.state_dict().items())
    assert not all(torch.equal(value, weights[-1][name]) for name, value in model.state_dict().items())
    loaded, about = load(tmp_path)
    assert same_weights(loaded, model) and about["best_epoch"] == 2
    assert not model.training


def test_the_model_ends_with_the_weights_of_its_best_epoch():
    model = fresh()
    history = fit(model, TRAIN, VALID, replace(PLAN, lr=0.05, epochs=6), progress=False)
    assert history["valid_ndcg@10"].max() == ndcg_at(ranks(model, *leave_last_out(VALID)), 10).mean()


def test_tracks_the_model_does_not_know_are_left_out():
    """Inserted unknown tracks change nothing; unknown last tracks are targets that do not count."""

    def strewn(seqs):
        return Sequences.from_lists([[x for track in row for x in (N + 7, track)] for row in seqs])

    one, other = fresh(), fresh()
    first = fit(one, TRAIN, VALID, PLAN, progress=False)
    second = fit(other, strewn(TRAIN), strewn(VALID), PLAN, progress=False)
    assert same_weights(one, other)
    pd.testing.assert_frame_equal(without_times(first), without_times(second))


def test_progress_goes_to_stderr_and_only_if_wanted(capsys):
    fit(fresh(), TRAIN, VALID, replace(PLAN, epochs=1), progress=False)
    assert capsys.readouterr() == ("", "")
    fit(fresh(), TRAIN, VALID, replace(PLAN, epochs=1))
    out, err = capsys.readouterr()
    assert out == "" and "100%" in err and "NDCG@10" in err
    assert f"{sum(len(row) - 1 for row in TRAIN):,} targets" in err


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_precision_can_be_chosen(precision):
    model = fresh(dropout=0.0)
    history = fit(model, TRAIN, VALID, replace(PLAN, precision=precision), progress=False)
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]
    assert all(value.dtype != torch.bfloat16 for value in model.state_dict().values())


def by_hand(model, plan) -> list[float]:
    """What `fit` does, written out: an Adam, its rates, a schedule; the mean loss of each epoch."""
    groups = {"table": [], "distance": [], "dense": []}
    for name, parameter in model.named_parameters():
        is_table = name.startswith(("item_emb", "features", "output"))
        groups["table" if is_table else "distance" if "distance" in name else "dense"].append(parameter)
    times = {"table": plan.table_lr, "distance": plan.distance_lr, "dense": 1.0}
    groups = [{"params": groups[kind], "times": times[kind]} for kind in groups]
    adam = torch.optim.Adam(groups, betas=(0.9, 0.98), fused=True)
    per_epoch = sum(1 for _ in batches(TRAIN, model.config.max_len, plan.batch_size))
    losses, step = [], 0
    for epoch in range(1, plan.epochs + 1):
        torch.manual_seed((plan.seed << 16) + epoch)
        rng = np.random.default_rng([plan.seed, epoch])
        summed = seen = 0
        for ids, targets in batches(TRAIN, model.config.max_len, plan.batch_size, rng):
            fall = 0.5 * (1 + math.cos(math.pi * step / (plan.epochs * per_epoch)))
            climb = min(1.0, (step + 1) / min(plan.warmup_steps, plan.epochs * per_epoch // 10))
            for group in groups:
                share = climb * (plan.final_lr + (1 - plan.final_lr) * fall)
                adam.param_groups[groups.index(group)]["lr"] = plan.lr * share * group["times"]
            loss = unseen_softmax_loss(
                model.train()(torch.from_numpy(ids)), *map(torch.from_numpy, (ids, targets)), model.table()
            )
            adam.zero_grad()
            loss.backward()
            adam.step()
            step += 1
            summed, seen = summed + loss.item() * (targets > 0).sum(), seen + (targets > 0).sum()
        losses.append(summed / seen)
    return losses


def test_a_run_is_a_plain_loop():
    """The betas of Adam, the rate of each kind of weight, the schedule, the seeds of order and dropout."""
    plan = replace(PLAN, epochs=3, unseen_only=True, table_lr=3.0, distance_lr=7.0, final_lr=0.1, seed=3)
    plan = replace(plan, warmup_steps=3, batch_size=8)
    one, other = fresh(positions="relative", tied=False), fresh(positions="relative", tied=False)
    last = {}
    history = fit(one, TRAIN, VALID, plan, after_epoch=lambda _: last.update(copied(one)), progress=False)
    assert history["train_loss"].tolist() == pytest.approx(by_hand(other, plan), rel=1e-6)
    assert all(torch.allclose(last[name], value, atol=1e-6) for name, value in other.state_dict().items())


def copied(model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_a_kept_table_is_let_go_of_when_training_begins():
    one, other = fresh(), fresh()
    one.keep_table()
    histories = [fit(model, TRAIN, VALID, PLAN, progress=False) for model in (one, other)]
    pd.testing.assert_frame_equal(*map(without_times, histories))
    assert np.array_equal(one.score(VALID), other.score(VALID))


@pytest.mark.parametrize("unseen_only", [True, False])
def test_scores_in_bfloat16_are_used_when_asked_for(unseen_only):
    ids = torch.from_numpy(TRAIN[0][None, :].astype(np.int64))
    model = fresh(dropout=0.0)
    losses = {
        scores: Objective(model, TrainConfig(loss="softmax", unseen_only=unseen_only, scores=scores))(
            ids[:, :-1], ids[:, 1:]
        )
        for scores in ("float32", "bfloat16")
    }
    assert losses["bfloat16"] != losses["float32"] and abs(losses["bfloat16"] - losses["float32"]) < 0.01


def test_no_step_is_made_with_a_loss_that_is_not_finite():
    model = fresh()
    with torch.no_grad():
        model.blocks[0].feed_in.weight[0, 0] = torch.nan
    before = copied(model)
    with pytest.raises(ValueError, match="the loss became nan in epoch 1"):
        fit(model, TRAIN, VALID, PLAN, progress=False)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items() if "feed_in" not in name)


# Validation


def test_the_validation_loss_is_that_of_what_is_trained():
    for unseen_only in (True, False):
        model = fresh()
        history = fit(model, TRAIN, VALID, replace(PLAN, epochs=1, unseen_only=unseen_only), progress=False)
        mine, other = (
            training.validate(model, VALID, *leave_last_out(VALID), unseen)["valid_loss"]
            for unseen in (unseen_only, not unseen_only)
        )
        assert history["valid_loss"].iloc[-1] == mine != other


def test_the_table_is_made_once_for_a_validation(monkeypatch):
    model, calls = fresh(), []
    many = cyclic(700, 5)  # several batches
    expected = training.validate(model, many, *leave_last_out(many))
    add = SASRec._add_features
    monkeypatch.setattr(
        SASRec, "_add_features", lambda self, x, *args: calls.append(len(x) == N + 1) or add(self, x, *args)
    )
    assert training.validate(model, many, *leave_last_out(many)) == expected
    assert sum(calls) == 1
    assert model._kept_table is None


def test_validation_is_bounded_and_says_so(monkeypatch, capsys):
    """With a budget for 40 playlists and 40 positions: a loss near that of all, the same ones every time."""
    many = cyclic(600, 5)
    model = fresh()
    whole = training.validate(model, many, *leave_last_out(many))["valid_loss"]
    monkeypatch.setattr(training, "VALID_SCORES", 40 * (N + 1))
    scored, judged = [], []
    loss, ranks = training.softmax_loss, training.ranks
    monkeypatch.setattr(training, "softmax_loss", lambda h, *args: scored.append(len(h)) or loss(h, *args))
    monkeypatch.setattr(training, "ranks", lambda model, h, t: judged.append(len(h)) or ranks(model, h, t))
    part = [training.validate(model, many, *leave_last_out(many))["valid_loss"] for _ in range(2)]
    assert part[0] == part[1] != whole and abs(part[0] - whole) < 0.05
    assert 20 < sum(scored) / 2 < 60
    judged.clear()
    history = fit(model, TRAIN, many, replace(PLAN, epochs=2, loss="bce"))
    assert judged == [40, 40]
    assert "each epoch is judged on 40 of the 600 validation playlists" in capsys.readouterr().err
    assert len(history) == 2


# The same again


def test_one_seed_one_result():
    """Whatever was drawn before: order, dropout and negatives come from the seed alone."""
    for loss in ("softmax", "bce"):
        plan = replace(PLAN, loss=loss, epochs=2)
        models = []
        for _ in range(2):
            torch.rand(7)
            np.random.default_rng().random()
            models.append(fresh())
            fit(models[-1], TRAIN, VALID, plan, progress=False)
        assert same_weights(*models)
        other = fresh()
        fit(other, TRAIN, VALID, replace(plan, seed=1), progress=False)
        assert not same_weights(models[0], other)


@pytest.fixture(scope="module", params=[("absolute", "softmax"), ("relative", "bce")], ids=str)
def uninterrupted(request, tmp_path_factory):
    """A run that nothing disturbs: its settings, model, history and directory."""
    positions, loss = request.param
    directory = tmp_path_factory.mktemp("whole")
    model, plan = fresh(positions=positions), replace(PLAN, loss=loss)
    history = fit(model, TRAIN, VALID, plan, directory, progress=False, extra={"note": "mine"})
    return positions, plan, model, history, directory


def assert_same_end(uninterrupted, model, history, directory):
    _, _, whole, its_history, its_directory = uninterrupted
    assert same_weights(model, whole)
    pd.testing.assert_frame_equal(without_times(history), without_times(its_history), check_exact=True)
    for name in ("model.safetensors", "config.json"):
        assert (directory / name).read_bytes() == (its_directory / name).read_bytes()
    written = pd.read_csv(directory / "history.csv")
    pd.testing.assert_frame_equal(written, history, check_exact=False, rtol=1e-12)


class Stop(Exception):
    """Stands for whatever ends a run."""


@pytest.mark.parametrize("stop_at", [1, 3, 4])
def test_a_resumed_run_ends_as_if_it_had_never_stopped(uninterrupted, stop_at, monkeypatch, tmp_path):
    positions, plan, *_ = uninterrupted
    validate, calls = training.validate, []

    def broken(*args):
        calls.append(args)
        if len(calls) == stop_at:
            raise Stop
        return validate(*args)

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(training, "validate", broken)
        fit(fresh(positions=positions), TRAIN, VALID, plan, tmp_path, progress=False, extra={"note": "mine"})
    # Other initial weights must not matter once there is an epoch to go on from.
    model = fresh(positions=positions, seed=0 if stop_at == 1 else 5)
    history = fit(model, TRAIN, VALID, plan, tmp_path, resume=True, progress=False, extra={"note": "mine"})
    assert_same_end(uninterrupted, model, history, tmp_path)
    again = fit(model, TRAIN, VALID, plan, tmp_path, resume=True, progress=False)  # nothing is left to do
    pd.testing.assert_frame_equal(again, history)
    assert_same_end(uninterrupted, model, again, tmp_path)


@pytest.mark.parametrize("write", range(1, 9))
def test_a_run_killed_between_any_two_files_can_go_on(uninterrupted, write, monkeypatch, tmp_path):
    positions, plan, *_ = uninterrupted
    replace_file, calls = os.replace, []

    def broken(*args):
        calls.append(args)
        if len(calls) == write:
            raise Stop
        replace_file(*args)

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(os, "replace", broken)
        fit(fresh(positions=positions), TRAIN, VALID, plan, tmp_path, progress=False, extra={"note": "mine"})
    model = fresh(positions=positions)
    history = fit(model, TRAIN, VALID, plan, tmp_path, resume=True, progress=False, extra={"note": "mine"})
    assert_same_end(uninterrupted, model, history, tmp_path)


SCRIPT = f"""
import sys, time
sys.path[:0] = [{str(Path(__file__).parents[1])!r}, {str(Path(__file__).parent)!r}]
import test_training as t
from sasrec_utils import training
validate = training.validate
training.validate = lambda *args: time.sleep(0.5) or validate(*args)
if __name__ == "__main__":
    import torch
    torch.set_num_threads(int(sys.argv[4]))  # another number of threads would round differently
    t.fit(t.fresh(positions=sys.argv[2]), t.TRAIN, t.VALID, t.replace(t.PLAN, loss=sys.argv[3]), sys.argv[1],
          progress=False, extra={{"note": "mine"}})
"""


def test_a_killed_process_can_be_followed_by_another(uninterrupted, tmp_path):
    positions, plan, *_ = uninterrupted
    if positions != "relative":
        pytest.skip("one true kill is enough")
    arguments = [sys.executable, "-c", SCRIPT, str(tmp_path), positions, plan.loss, str(torch.get_num_threads())]
    process = subprocess.Popen(arguments)
    try:
        end = time.monotonic() + 100
        while not (tmp_path / "resume.safetensors").exists():
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    done = len(pd.read_csv(tmp_path / "history.csv"))
    assert 1 <= done < plan.epochs
    model = fresh(positions=positions, seed=3)
    history = fit(model, TRAIN, VALID, plan, tmp_path, resume=True, progress=False, extra={"note": "mine"})
    assert_same_end(uninterrupted, model, history, tmp_path)


def test_another_run_is_not_continued(uninterrupted, tmp_path):
    positions, plan, _, _, directory = uninterrupted
    shutil.copytree(directory, tmp_path, dirs_exist_ok=True)
    for model, other, word in (
        (fresh(positions=positions), replace(plan, lr=0.5), "lr"),
        (fresh(positions=positions, dim=8), plan, "dim"),
        (fresh(positions="rotary"), plan, "positions"),
    ):
        with pytest.raises(CheckpointError, match=rf"resume.safetensors: was trained with {word} = .*start anew"):
            fit(model, TRAIN, VALID, other, tmp_path, resume=True, progress=False)
    longer = Sequences.from_lists([*TRAIN, [1, 2]])
    for train, valid in ((longer, VALID), (TRAIN, TRAIN)):
        with pytest.raises(CheckpointError, match=r"resume.safetensors: was trained on other playlists; .*start anew"):
            fit(fresh(positions=positions), train, valid, plan, tmp_path, resume=True, progress=False)
    # Without resuming it starts anew, whatever lies there.
    model = fresh(positions=positions)
    history = fit(model, TRAIN, VALID, plan, tmp_path, progress=False, extra={"note": "mine"})
    assert_same_end(uninterrupted, model, history, tmp_path)


TWO = f"""
import os, sys
sys.path[:0] = [{str(Path(__file__).parents[1])!r}, {str(Path(__file__).parent)!r}]
import test_training as t
if __name__ == "__main__":
    import torch
    from sasrec_utils import objective, training
    torch.set_num_threads(1)
    validate = training.validate
    def noted(*args):
        with open(os.path.join(sys.argv[1], "rank" + os.environ["RANK"]), "a") as file:
            print(torch.initial_seed(), torch.rand(1).item(), file=file)
        return validate(*args)
    training.validate = noted
    for loss in ("unseen", "bce", "rows"):
        if loss == "rows":
            objective.draw_negatives = t.near
        model, out = t.fresh(dropout=0.0, n_artists=0), os.path.join(sys.argv[1], loss)
        t.fit(model, t.cyclic(33, 4, 10), t.VALID, t.two_plan(loss), out, progress=False)
"""


def two_plan(loss) -> TrainConfig:
    # 33 windows in batches of 8: the last batch has one window, and one of the two processes nothing to do.
    if loss == "rows":
        return replace(PLAN, batch_size=8, epochs=2, loss="gbce", negatives=3, tables="sparse")
    return replace(
        PLAN, batch_size=8, epochs=2, loss="softmax" if loss == "unseen" else loss, unseen_only=loss == "unseen"
    )


def near(ids, targets, n_items, k) -> torch.Tensor:
    """Negatives without chance: the tracks before the target."""
    return (targets[..., None] - 1 - torch.arange(1, k + 1)) % n_items + 1


@pytest.mark.skipif(sys.platform == "win32", reason="torchrun has no gloo rendezvous there")
def test_two_processes_are_one(tmp_path, monkeypatch):
    """The same batches, each dealt to two processes, give the same losses and weights up to rounding."""
    (tmp_path / "two.py").write_text(TWO)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(tmp_path / "two.py"), str(tmp_path)],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=150,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    monkeypatch.setattr("sasrec_utils.objective.draw_negatives", near)
    for loss in ("unseen", "rows"):
        one = fresh(dropout=0.0, n_artists=0)
        history = fit(one, cyclic(33, 4, 10), VALID, two_plan(loss), progress=False)
        both, _ = load(tmp_path / loss)
        its_history = pd.read_csv(tmp_path / loss / "history.csv")
        for column in ("train_loss", "valid_loss", "valid_ndcg@10"):
            assert np.allclose(history[column], its_history[column], rtol=1e-5)
        assert np.allclose(one.score(VALID), both.score(VALID), atol=1e-4)
        # A shift of all keys changes no softmax: the gradient of their bias is rounding noise, which Adam makes large.
        for name, value in one.state_dict().items():
            mine, its = value, both.state_dict()[name]
            if name.endswith("qkv.bias"):
                mine, its = (torch.cat([x[:16], x[32:]]) for x in (mine, its))
            assert torch.allclose(mine, its, atol=1e-4), name
    drawn = pd.read_csv(tmp_path / "bce" / "history.csv")
    assert np.isfinite(drawn[["train_loss", "valid_loss"]]).all(axis=None)
    # Each process has dropout and negatives of its own: no seed is used twice, in whatever process or epoch.
    seeds = [line.split()[0] for rank in "01" for line in (tmp_path / f"rank{rank}").read_text().splitlines()[:2]]
    assert len(set(seeds)) == len(seeds) == 4
    assert sorted(path.name for path in (tmp_path / "bce").iterdir()) == [
        "config.json",
        "history.csv",
        "model.safetensors",
        "resume.safetensors",
    ]


# Mistakes


WRONG = [
    *(("epochs", 0), ("batch_size", 0), ("negatives", 0), ("patience", 0), ("seed", -1), ("seed", 1 << 60)),
    *(("lr", wrong) for wrong in (0, -1.0, math.nan, math.inf)),
    *((rate, wrong) for rate in ("table_lr", "distance_lr") for wrong in (-1.0, 0.0, math.nan)),
    *(("final_lr", 5.0), ("final_lr", -0.1), ("warmup_steps", -1), ("scores", "float8")),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_settings_that_cannot_be_are_refused(name, value):
    with pytest.raises(ValueError, match=name):
        TrainConfig(**{name: value})


def test_an_unknown_loss_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="softmax, sampled_softmax, bce, gbce"):
        TrainConfig("nonsense")


def test_a_run_without_anything_to_learn_or_to_judge_by_is_refused():
    for train in ([], [[]], [[3], [4]], [[N + 1, 3, N + 2]]):
        with pytest.raises(ValueError, match="nothing to train on"):
            fit(fresh(), Sequences.from_lists(train), VALID, PLAN, progress=False)
    for valid in ([], [[]], [[3, N + 1]]):
        with pytest.raises(ValueError, match="no validation playlist"):
            fit(fresh(), TRAIN, Sequences.from_lists(valid), PLAN, progress=False)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_that_explodes_says_what_to_do(loss, tmp_path):
    with pytest.raises(ValueError, match=r"loss became (nan|inf) in epoch 1: use a learning rate below 1e\+30"):
        fit(fresh(), TRAIN, VALID, replace(PLAN, loss=loss, lr=1e30, negatives=4), tmp_path, progress=False)
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_a_device_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="accelerator 'cuda' cannot be used on this machine"):
        fit(fresh(), TRAIN, VALID, replace(PLAN, accelerator="cuda"), progress=False)


@pytest.mark.parametrize("changes", [
    {"accelerator": "tpu"}, {"accelerator": "cpu", "precision": "transformer-engine"}, {"accelerator": "abacus"},
    {"accelerator": "cpu", "precision": "a lot"},
])  # fmt: skip
def test_what_a_machine_cannot_do_is_one_sentence(changes):
    with pytest.raises(
        ValueError, match=r"accelerator '\w+' cannot be used on this machine with precision '"
    ) as caught:
        fit(fresh(), TRAIN, VALID, replace(PLAN, **changes), progress=False)
    assert "\n" not in str(caught.value) and all(value in str(caught.value) for value in changes.values())


def test_the_headline_says_what_the_softmax_is_computed_in(capsys):
    for scores, said in (("bfloat16", True), ("float32", False)):
        fit(fresh(), TRAIN, VALID, replace(PLAN, epochs=1, scores=scores))
        err = capsys.readouterr().err
        assert "in 32-true" in err and ("scores in bfloat16" in err) == said


def test_a_pointer_needs_the_loss_that_trains_it():
    shape = SASRecConfig(12, dim=8, heads=2, max_len=6, n_artists=3, pointer=True)
    model = SASRec(shape, np.arange(13) % 4)
    for plan in (PLAN, replace(PLAN, unseen_only=True, loss="gbce")):
        with pytest.raises(ValueError, match="a pointer learns by the softmax over unseen tracks"):
            Objective(model, plan)
    Objective(model, replace(PLAN, unseen_only=True))


def test_tables_shrink_and_nothing_else_does():
    """With a learning rate of next to nothing the gradient moves nothing, and what decays is seen alone."""
    model = fresh()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plan = replace(PLAN, epochs=1, lr=1e-9, table_lr=1.0, table_decay=1e7, warmup_steps=0, final_lr=1.0)
    fit(model, TRAIN, VALID, plan, progress=False)
    for name, value in model.state_dict().items():
        if name.startswith(("item_emb", "pos_emb", "features", "output")):
            assert value.norm() < 0.98 * before[name].norm(), name
        elif value.is_floating_point():
            assert torch.allclose(value, before[name], atol=1e-5), name


def test_tables_start_from_the_counts_of_the_training_playlists():
    model = fresh(tied=False)
    plan = replace(PLAN, epochs=1, lr=1e-9, table_lr=1.0, start="counts")
    fit(model, TRAIN, VALID, plan, progress=False)
    vectors = count_vectors(TRAIN.keep(TRAIN.items <= N), N, 16)
    for table in (model.item_emb, model.output):
        assert np.allclose(table.weight.detach().numpy()[vectors.any(1)], vectors[vectors.any(1)], atol=1e-5)


def test_a_short_run_warms_up_for_a_tenth_of_it():
    plan = replace(PLAN, warmup_steps=100, final_lr=1.0)
    rates = [training._schedule(step, 50, plan) for step in range(50)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0]) and set(rates[5:]) == {1.0}
    rates = [training._schedule(step, 5_000, plan) for step in range(5_000)]
    assert rates[49] == pytest.approx(0.5) and min(rates[99:]) == 1.0


def test_recipes_fit_their_catalogue():
    for shape in ("paper", "best"):
        model, plan = recipe(shape, 2_000, 170, 300)
        assert model.n_items == 2_000 and plan.loss == "softmax"
        assert (model.n_artists, model.n_albums) == ((170, 300) if shape == "best" else (0, 0))
        assert (model.positions == "absolute") == (shape == "paper")
        huge = recipe(shape, 2_262_292)[1]
        assert huge.loss == "sampled_softmax" and huge.own_negatives == 16
        assert replace(huge, loss="bce").own_negatives == 1  # each loss has its own number
    for shape in ("paper", "best"):
        assert not recipe(shape, 2_262_292, 300_000)[0].pointer
    assert not recipe("best", 20_000, n_rows=400_000)[0].pointer  # nothing to point at
    few, slowly = recipe("best", 20_000, 8_000, n_rows=400_000)
    assert few.pointer and not recipe("best", 2_000, 170)[0].pointer
    many, fast = recipe("best", 2_000, 170, n_rows=400_000)
    assert few.dropout > many.dropout and slowly.table_lr < fast.table_lr and slowly.start == "counts"
    assert (many, fast) == recipe("best", 2_000, 170)
    epochs = [recipe("best", 20_000, 8_000, n_rows=rows)[1].epochs for rows in (0, 40_000, 100_000, 400_000, 1_000_000)]
    assert epochs == [12, 12, 6, 3, 3]  # few playlists are seen more often
    with pytest.raises(ValueError, match="best or paper, got 'other'"):
        recipe("other", 10)


def test_after_each_epoch_someone_is_told_and_may_stop_the_run(tmp_path):
    seen = []
    history = fit(fresh(), TRAIN, VALID, replace(PLAN, epochs=2), after_epoch=seen.append, progress=False)
    assert [len(part) for part in seen] == [1, 2]
    assert seen[-1].equals(history)

    def stop(history):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(fresh(), TRAIN, VALID, replace(PLAN, epochs=2), tmp_path, after_epoch=stop, progress=False)
    model = fresh()
    resumed = fit(model, TRAIN, VALID, replace(PLAN, epochs=2), tmp_path, resume=True, progress=False)
    assert without_times(resumed).equals(without_times(history))


# Tables with sparse gradients

SPARSE = replace(PLAN, loss="sampled_softmax", unseen_only=True, tables="sparse")


def test_big_catalogues_get_sparse_tables_and_others_do_not():
    plan = TrainConfig(loss="sampled_softmax")
    assert plan.sparse(2_262_292) and not plan.sparse(100_000)
    assert replace(plan, tables="sparse").sparse(10) and not replace(plan, tables="dense").sparse(2_262_292)
    assert not TrainConfig(loss="softmax").sparse(2_262_292)  # its gradient is no other than dense
    with pytest.raises(ValueError, match="full softmax, which uses every row"):
        TrainConfig(loss="softmax", tables="sparse")
    with pytest.raises(ValueError, match="tables must be auto, dense or sparse"):
        TrainConfig(tables="some")


@pytest.mark.parametrize("tied", [True, False])
def test_sparse_tables_learn_what_dense_ones_learn(tied):
    found = {}
    for tables in ("dense", "sparse"):
        model = fresh(dim=32, dropout=0.0, n_artists=0, tied=tied)
        plan = replace(SPARSE, epochs=12, batch_size=32, tables=tables, patience=12)
        found[tables] = fit(model, cyclic(300, 2), VALID, plan, progress=False)["valid_ndcg@10"].max()
        assert not any(getattr(part, "sparse", False) for part in model.modules())  # as it came
    assert min(found.values()) > 0.95


def test_a_resumed_run_with_sparse_tables_ends_as_if_it_had_never_stopped(tmp_path):
    def stop(history):
        if len(history) == 2:
            raise Stop

    whole, model = fresh(tied=False), fresh(tied=False, seed=5)
    expected = fit(whole, TRAIN, VALID, SPARSE, progress=False)
    with pytest.raises(Stop):
        fit(fresh(tied=False), TRAIN, VALID, SPARSE, tmp_path, progress=False, after_epoch=stop)
    history = fit(model, TRAIN, VALID, SPARSE, tmp_path, resume=True, progress=False)
    assert same_weights(whole, model)
    pd.testing.assert_frame_equal(without_times(history), without_times(expected), check_exact=True)

"""The small SASRec with a switch for its mask: with it the future has no say, without it every position copies."""

import numpy as np
import torch

from sasrec_utils.course.faults import Switched, recall_at_every_position, train_plainly
from sasrec_utils.sequences import Sequences


def test_the_switch_decides_whether_the_future_has_a_say():
    ids, other = torch.tensor([[1, 2, 3, 0]]), torch.tensor([[1, 2, 4, 0]])
    for causal in (True, False):
        model = Switched(5, causal).eval()
        with torch.inference_mode():
            same = torch.equal(model(ids)[:, :2], model(other)[:, :2])
        assert same == causal


def test_without_a_mask_random_playlists_are_foretold_at_every_position_and_with_one_they_are_not():
    rng = np.random.default_rng(0)
    playlists = Sequences.from_lists([rng.permutation(40)[:12] + 1 for _ in range(400)])
    masked, unmasked = Switched(40, causal=True), Switched(40, causal=False)
    for model in (masked, unmasked):
        torch.manual_seed(0)
        train_plainly(model, playlists, 10)
    new = Sequences.from_lists([rng.permutation(40)[:12] + 1 for _ in range(50)])
    assert recall_at_every_position(masked, new) < 0.4
    assert recall_at_every_position(unmasked, new) > 0.6

"""The optimiser: AdamW, and at big catalogues a form of it that touches only the rows of a table that a step has used.

A step looks at some 200,000 tracks, however many there are. The gradient of a table of 2.26 million tracks is then
nearly all zeros, but as a dense tensor it has a table's size, and so have both of Adam's moments: at width 128 that is
3.5 GB beside each table of 1.2 GB, all of which every step passes over. Here the gradient holds the rows that were used
(`nn.Embedding(sparse=True)`), and of each row the optimiser keeps two numbers. Row-wise moments: as in DLRM (Naumov et
al. 2019) and torchrec.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sasrec_utils.model import SASRec
from sasrec_utils.objective import Objective

__all__ = ["RowAdamW", "is_table", "make_optimizer", "set_sparse", "table_names"]

BETAS = (0.9, 0.98)  # of Adam; the second as in the paper


def make_optimizer(objective: Objective, config) -> torch.optim.Optimizer:
    """The optimiser of an objective's model by a `training.TrainConfig`, which says whether its tables are sparse."""
    sparse = config.sparse(objective.model.n_items)
    set_sparse(objective, sparse)
    kind = RowAdamW if sparse else torch.optim.AdamW
    return kind(_parameter_groups(objective.model, config), lr=config.lr, betas=BETAS, fused=True)


def _parameter_groups(model: SASRec, config) -> list[dict]:
    """Parameters by how fast they learn.

    Adam moves every weight by about one learning rate a step, whatever it is for. Tables start near zero and have to
    grow to the size of the scores; a distance has to differ from the others by several units to stand out in a softmax.
    Both would be far behind the dense layers at the same rate.
    """
    rates = {"distance": config.distance_lr, "table": config.table_lr, "rows": config.table_lr, "dense": 1.0}
    sparse = table_names(model) if config.sparse(model.n_items) else []
    members: dict[str, list] = {kind: [] for kind in rates}
    for name, parameter in model.named_parameters():
        kind = "dense"
        if name in sparse:
            kind = "rows"
        elif name.startswith(("item_emb", "pos_emb", "features", "output", "word_emb", "number_emb")):
            kind = "table"
        elif name.endswith(("distance", "distance.bias")):
            kind = "distance"
        members[kind].append(parameter)
    decays = {"table": config.table_decay, "rows": config.table_decay}
    return [
        {"params": members[kind], "times": times, "weight_decay": decays.get(kind, 0.0), "rows": kind == "rows"}
        for kind, times in rates.items()
        if members[kind]
    ]


def is_table(module: nn.Module) -> bool:
    """Whether a part of a model is a table with a row for each track (artist, album), row 0 = padding."""
    return isinstance(module, nn.Embedding) and module.padding_idx == 0


def table_names(model: nn.Module) -> list[str]:
    """The names of the weights of all tables in `model`, as `named_parameters` has them."""
    return [f"{name}.weight" for name, module in model.named_modules() if is_table(module)]


def set_sparse(model: nn.Module, sparse: bool) -> None:
    """Whether the gradients of the model's tables hold only the rows that were used, which `RowAdamW` wants.

    `torch.nn.parallel`, around this very module, then leaves these tables alone.
    """
    for module in model.modules():
        if is_table(module):
            module.sparse = sparse
    ignored = table_names(model) if sparse else []
    nn.parallel.DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, ignored)


class RowAdamW(torch.optim.AdamW):
    """AdamW whose parameter groups with `rows=True` hold tables [N+1, D] with sparse gradients.

    Other groups: as `torch.optim.AdamW`. Of each row of a table it keeps the mean square of its gradient, v, which
    falls by β₂ at every step, whether the row is used or not, and moves the row by lr · g / √v. Adam moves a row that
    is used once in a while by about seven times the learning rate, spread over the steps that follow (Σ of its first
    moment over the root of its second); this does it at once, and a row that every step uses moves by about one
    learning rate, as with Adam. What it has not got is the first moment, which would be as large as the table.

    Weight decay reaches a row when it is used, for all steps since it was used last. In several processes
    (torch.distributed) each gives the rows that it used to all others.
    """

    def __init__(self, groups: list[dict], **settings):
        groups = [{"rows": False, **group} for group in groups]
        super().__init__(groups, **settings)
        self._step_supports_amp_scaling = False  # float16: gradients are scaled back before they come here

    @torch.no_grad()
    def step(self, closure=None):
        """One step. The gradients of tables are gone afterwards: the step of the other groups would not take them."""
        for group in self.param_groups:
            if group["rows"]:
                for table in group["params"]:
                    if table.grad is not None:
                        self._move_rows(table, group)
                        table.grad = None
        return super().step(closure)

    def _move_rows(self, table: Tensor, group: dict) -> None:
        state, beta = self.state[table], group["betas"][1]
        if not state:
            state["step"] = torch.zeros((), device=table.device)
            state["square"] = torch.zeros(len(table), device=table.device)
            state["last"] = torch.zeros(len(table), device=table.device)  # the step that used the row last
        state["step"] += 1
        grad = of_all_processes(table.grad).coalesce()
        rows, grad = grad.indices()[0], grad.values()
        idle = state["step"] - state["last"][rows]
        square = state["square"][rows] * beta**idle + (1 - beta) * grad.square().mean(1)
        state["square"][rows], state["last"][rows] = square, state["step"]
        size = (square / (1 - beta ** state["step"])).sqrt() + group["eps"]
        if group["weight_decay"]:
            table[rows] *= ((1 - group["lr"] * group["weight_decay"]) ** idle)[:, None]
        table.index_add_(0, rows, grad / size[:, None], alpha=-group["lr"])


def of_all_processes(grad: Tensor) -> Tensor:
    """The mean over all processes of a sparse gradient, the same in each of them; `grad` itself in a single one."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return grad
    world = torch.distributed.get_world_size()
    grad = grad.coalesce()  # what a process used twice travels once
    rows, values = grad.indices()[0], grad.values() / world
    counts = [torch.zeros(1, dtype=torch.int64, device=grad.device) for _ in range(world)]
    torch.distributed.all_gather(counts, torch.tensor([len(rows)], device=grad.device))
    most = max(int(count) for count in counts)
    rows = _gathered(rows, counts, most)
    return torch.sparse_coo_tensor(rows[None], _gathered(values, counts, most), grad.shape, check_invariants=False)


def _gathered(part: Tensor, counts: list[Tensor], most: int) -> Tensor:
    """The parts of all processes one after the other, each of a length of its own."""
    padded = part.new_zeros(most, *part.shape[1:])
    padded[: len(part)] = part
    parts = [torch.empty_like(padded) for _ in counts]
    torch.distributed.all_gather(parts, padded)
    return torch.cat([found[: int(count)] for found, count in zip(parts, counts, strict=True)])

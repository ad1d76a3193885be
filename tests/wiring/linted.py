"""The lint on every rank of a group: what a process of the tests does, and what it leaves behind."""

import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from vqtool.diagnostics import InputError, LintReport, lint
from vqtool.diagnostics.wiring import group
from vqtool.diagnostics.wiring.processes import lint_share
from wiring.base import SPREAD, D, K, SetUp, closest, maps, through, tokens, with_images, with_waves
from wiring.moving import EuclideanCodebook, VectorQuantization
from wiring.replicas import RANKS, REPLICA_BUGS, REPLICA_CLEAN


class Table(nn.Module):
    """Codes that learn by a gradient, as in taming-transformers; with nothing of another library."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(K, D)
        nn.init.normal_(self.embedding.weight, std=SPREAD)

    def forward(self, z):
        indices = closest(tokens(z), self.embedding.weight)
        q = maps(self.embedding(indices), z)
        loss = 0.25 * (q.detach() - z).square().mean() + (q - z.detach()).square().mean()
        return through(z, q), loss, (None, None, indices)


table = with_images(Table)
averages = with_waves(lambda: VectorQuantization(EuclideanCodebook()))


def wrapped(setup: SetUp, **how) -> SetUp:
    return setup._replace(model=DistributedDataParallel(setup.model, **how))


def divided(setup: SetUp) -> SetUp:
    return setup._replace(batch=setup.batch.chunk(RANKS)[dist.get_rank()])


def begun_apart() -> SetUp:
    """A model that nothing wraps, with parameters of this rank's own."""
    setup = divided(table())
    with torch.no_grad():
        for parameter in setup.model.parameters():
            parameter.mul_(1 + 0.1 * dist.get_rank())
    return setup


def by_methods() -> SetUp:
    """A loss that uses methods of the model, on one batch for all ranks."""
    setup = table()

    def loss(model, batch):
        q, losses, _ = model.quantize(model.encode(batch))
        return (model.decode(q) - batch).square().mean() + losses

    return setup._replace(loss=loss)


def failing() -> SetUp:
    """A loss that one rank cannot compute."""
    setup = wrapped(divided(table()))
    return setup._replace(loss=lambda model, batch: setup.loss(model, batch if dist.get_rank() == 0 else batch[:, :2]))


def part_of_the_time() -> SetUp:
    """A model whose quantizer one rank leaves out."""
    setup = divided(table())
    skip = lambda model, x: model.decode(model.encode(x)).square().mean()  # noqa: E731
    return setup._replace(loss=setup.loss if dist.get_rank() == 0 else skip)


TRIED = {name: bug.make for name, bug in REPLICA_BUGS.items()} | {
    **REPLICA_CLEAN,
    "wrapped": lambda: wrapped(divided(table())),
    "not wrapped": begun_apart,
    "one batch for all": lambda: wrapped(table()),
    "averages of its own": lambda: wrapped(divided(averages())),
}
FAILING = {"failing": failing, "part of the time": part_of_the_time}


def lint_all(rank: int, folder: Path) -> None:
    """Lint each set-up; leave what the reports say, and what was changed by them, in ``folder``."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=RANKS)
    told = {name: _linted(make()) for name, make in TRIED.items()}
    refused = {name: _refused(make()) for name, make in FAILING.items()}
    told["by methods"] = lint_share(by_methods(), rank, RANKS)
    group._PATIENCE = timedelta(seconds=2)
    if rank == 0:
        refused["alone"] = _refused(table())
    torch.save((told, refused), folder / f"rank{rank}.pt")
    dist.barrier()  # a rank that leaves while the group's threads are at work is aborted
    dist.destroy_process_group()


def _linted(setup: SetUp) -> tuple[LintReport, bool]:
    before = [value.clone() for value in setup.model.state_dict().values()]
    report = lint(*setup)
    same = all(torch.equal(a, b) for a, b in zip(before, setup.model.state_dict().values(), strict=True))
    return report, same


def _refused(setup: SetUp) -> tuple[str, float]:
    """The line that it is refused with, and after how many seconds."""
    begin = time.monotonic()
    try:
        lint(*setup)
    except InputError as error:
        return str(error), time.monotonic() - begin
    return "", 0.0

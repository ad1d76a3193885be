"""Faults that only several ranks show: the codes of each rank go a way of their own."""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from wiring.base import Bug, Codec, SetUp, autoencoding, set_up, waves
from wiring.moving import EuclideanCodebook, VectorQuantization

RANKS, CODEBOOK = 2, "quantizer._codebook"


class SharedAverages(EuclideanCodebook):
    """k-means of rank 0's latents for all, sums and counts over all ranks."""

    def __init__(self):
        super().__init__(threshold_ema_dead_code=0.0)

    def start_from(self, means, counts):
        super().start_from(means, counts)
        for buffer in (self.embed, self.cluster_size, self.embed_avg):
            dist.broadcast(buffer, 0)

    def learn(self, flat, onehot):
        self.average(gathered(flat), gathered(onehot))


class AveragesPerRank(SharedAverages):
    """The sums of no other rank are asked for, and the buffers are not broadcast."""

    def learn(self, flat, onehot):
        self.average(flat, onehot)


class KMeansPerRank(SharedAverages):
    """Sums and counts are shared, but they are added to a start of each rank's own."""

    def start_from(self, means, counts):
        EuclideanCodebook.start_from(self, means, counts)


def gathered(rows: torch.Tensor) -> torch.Tensor:
    parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


def on_ranks(codebook: type[SharedAverages]) -> Callable[[], SetUp]:
    """The set-up of the rank that calls it, with latents that no other rank has."""

    def build() -> DistributedDataParallel:
        return DistributedDataParallel(Codec(VectorQuantization(codebook())), broadcast_buffers=False)

    def make() -> SetUp:
        setup = set_up(build, waves, autoencoding)()
        return setup._replace(batch=setup.batch + dist.get_rank())

    return make


def apart(setup: SetUp) -> bool:
    """After two steps the ranks have other codes; both ranks have to ask."""
    for _ in range(2):
        setup.optimizer.zero_grad()
        setup.loss(setup.model, setup.batch).backward()
        setup.optimizer.step()
    codes = setup.model.module.quantizer.codebook
    mine, other = gathered(codes[None])
    return not torch.allclose(mine, other)


REPLICA_BUGS = {
    name: Bug(on_ranks(codebook), ("replicas",), CODEBOOK, source, apart, "shared averages")
    for name, codebook, source in (
        ("averages per rank", AveragesPerRank, "espnet/espnet PR#6284"),
        ("k-means per rank", KMeansPerRank, "lucidrains/vector-quantize-pytorch PR#17"),
    )
}

REPLICA_CLEAN = {"shared averages": on_ranks(SharedAverages)}


def ask(rank: int, folder: Path) -> None:
    """Which set-ups have the symptom on this rank; the answers are left in ``folder``."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=RANKS)
    bugs = {name: bug.symptom(bug.make()) for name, bug in REPLICA_BUGS.items()}
    clean = {name: apart(make()) for name, make in REPLICA_CLEAN.items()}
    torch.save((bugs, clean), folder / f"rank{rank}.pt")
    dist.barrier()  # a rank that leaves while the group's threads are at work is aborted
    dist.destroy_process_group()

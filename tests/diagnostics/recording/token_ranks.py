"""One rank of a watched training. Several are interrupted in the middle of a window; one goes straight on.

python token_ranks.py FOLDER RANKS RANK
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from vqtool.diagnostics import TokenMonitor, TraceSink

K, D = 12, 6


def main(folder: Path, size: int, rank: int) -> None:
    """Train ten steps on this rank's share of each batch; rank 0 leaves a trace in ``folder``."""
    torch.set_num_threads(1)
    if size > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=size)
    torch.manual_seed(0)
    embedding, head = nn.Embedding(K, D), nn.Linear(D, K)
    model = nn.Sequential(embedding, nn.Tanh(), head)
    wrapped = DistributedDataParallel(model) if size > 1 else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    sinks = [TraceSink(folder)] if rank == 0 else []

    def watch() -> TokenMonitor:
        return TokenMonitor(embedding, head, optimizer, sinks, codes=K, every=4)

    monitor = watch()
    for step, tokens in enumerate(torch.randint(1, K, (10, 4, 8), generator=torch.Generator().manual_seed(1))):
        if step == 6 and size > 1:
            state = monitor.state_dict()
            monitor.detach()
            monitor = watch()
            monitor.load_state_dict(state)
        own = tokens.chunk(size)[rank]
        nll = F.cross_entropy(wrapped(own.roll(1, dims=1)).transpose(1, 2), own, reduction="none")
        optimizer.zero_grad()
        nll.mean().backward()
        monitor.observe(own, nll)
        optimizer.step()
    monitor.close()
    if size > 1:
        dist.barrier()  # a rank that leaves while the group's threads are at work is aborted
        dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

"""One rank of a training whose boundary, movement and latents are watched, or all of it in one process.

python boundary_ranks.py FOLDER RANKS RANK
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
import torch.distributed as dist
from sequence_model import LEARNABLE, sequences, stranger
from torch.nn.parallel import DistributedDataParallel

from vqtool.diagnostics import CodebookMonitor, TraceSink

folder, ranks, rank = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(1)
model = stranger(**LEARNABLE)
if ranks > 1:
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=ranks)
    model = DistributedDataParallel(model)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
monitor = CodebookMonitor(model, optimizer, [TraceSink(folder / "run")] if rank == 0 else [], every=4)
for x in sequences(*[16] * 12):
    optimizer.zero_grad()
    model(x.chunk(ranks, dim=1)[rank]).backward()
    optimizer.step()
monitor.close()
if ranks > 1:
    dist.barrier()  # a rank that leaves while the group's threads are at work is aborted
    dist.destroy_process_group()

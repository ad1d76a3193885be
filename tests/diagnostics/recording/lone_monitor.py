"""One of two ranks of a training that only the first one watches.

python lone_monitor.py FOLDER RANK
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
import torch.distributed as dist
from sequence_model import sequences, stranger
from torch.nn.parallel import DistributedDataParallel

from vqtool.diagnostics import CodebookMonitor

folder, rank = Path(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
model = DistributedDataParallel(stranger())
optimizer = torch.optim.Adam(model.parameters())
if rank == 0:
    CodebookMonitor(model, optimizer, every=1)
for x in sequences(4, 4, 4):
    optimizer.zero_grad()
    model(x).backward()
    optimizer.step()

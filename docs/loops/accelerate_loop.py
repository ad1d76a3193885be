"""A loop with accelerate: ``python docs/loops/accelerate_loop.py runs/mine``, and ``--resume`` to go on."""

import sys

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import nn
from vector_quantize_pytorch import VectorQuantize

from vqtool.diagnostics import CodebookMonitor, TraceSink


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(12, 8), nn.Linear(8, 12)
        self.quantize = VectorQuantize(dim=8, codebook_size=64)

    def forward(self, x):
        quantized, _, commitment = self.quantize(self.encoder(x))
        return F.mse_loss(self.decoder(quantized), x) + commitment.sum()


def main(folder, resume=False):
    accelerator, model, steps = Accelerator(), Autoencoder(), 50
    model, optimizer = accelerator.prepare(model, torch.optim.Adam(model.parameters(), lr=1e-3))
    monitor = CodebookMonitor(model, optimizer, every=10)
    accelerator.register_for_checkpointing(monitor)
    if resume:
        accelerator.load_state(f"{folder}/state")
    if accelerator.is_main_process:
        monitor.sinks = [TraceSink(folder, resume_at=monitor.step if resume else None)]
    for step in range(monitor.step, steps):
        x = torch.randn(32, 16, 12, device=accelerator.device)
        optimizer.zero_grad()
        accelerator.backward(model(x))
        optimizer.step()
        if step + 1 == 30:
            accelerator.save_state(f"{folder}/state")
    monitor.close()


if __name__ == "__main__":
    main(sys.argv[1], resume="--resume" in sys.argv)

"""A loop of your own: ``python docs/loops/plain.py runs/plain``."""

import sys

import torch
import torch.nn.functional as F
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


def main(folder):
    model = Autoencoder()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    monitor = CodebookMonitor(model, optimizer, [TraceSink(folder)], every=10)
    for _ in range(50):
        loss = model(torch.randn(32, 16, 12))  # 32 images of 16 tokens
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    monitor.close()


if __name__ == "__main__":
    main(sys.argv[1])

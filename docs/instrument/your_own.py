"""A quantizer of your own, read by a Reader: ``python docs/instrument/your_own.py runs/mine``."""

import sys

import torch
import torch.nn.functional as F
from torch import nn

from vqtool.diagnostics import CodebookMonitor, Reader, TraceSink, find_codebooks, read_table


class Assign(nn.Module):
    """Latents (B, N, 8) in, the nearest code to each out; as it stands, or with a straight-through estimator."""

    def __init__(self, straight_through):
        super().__init__()
        self.straight_through, self.vectors = straight_through, nn.Parameter(torch.randn(64, 8))

    def forward(self, z):
        ids = torch.cdist(z.detach().flatten(0, 1), self.vectors.detach()).argmin(1).view(z.shape[:2])
        codes = self.vectors[ids]
        loss = F.mse_loss(codes, z.detach()) + 0.25 * F.mse_loss(z, codes.detach())
        if self.straight_through:
            codes = z + (codes - z).detach()
        return {"codes": codes, "ids": ids, "loss": loss}


READER = Reader(
    latents=lambda call: call.args[0],  # (..., D), in the space of the codes
    indices=lambda call: call.output["ids"],  # (...)
    codebook=lambda module: module.vectors,  # (K, D)
    quantized=lambda call: call.output["codes"],  # (..., D), for the boundary; may be left out
)


def train(folder, straight_through):
    torch.manual_seed(0)
    encoder, assign, decoder = nn.Linear(12, 8), Assign(straight_through), nn.Linear(8, 12)
    model = nn.ModuleDict({"encoder": encoder, "assign": assign, "decoder": decoder})
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    print(find_codebooks(model, read={"assign": READER}))
    monitor = CodebookMonitor(model, optimizer, [TraceSink(folder)], every=20, read={"assign": READER})
    for _ in range(20):
        x = torch.randn(32, 16, 12)
        assigned = assign(encoder(x))
        optimizer.zero_grad()
        (F.mse_loss(decoder(assigned["codes"]), x) + assigned["loss"]).backward()
        optimizer.step()
    monitor.close()
    last = read_table(f"{folder}/boundary/assign").iloc[-1]
    print(f"step {last.step}: estimator {last.estimator}, gain {abs(last.gain):.2f}, commitment {last.commitment:.2f}")


def main(folder):
    train(f"{folder}/as_it_stands", straight_through=False)
    train(f"{folder}/straight_through", straight_through=True)


if __name__ == "__main__":
    main(sys.argv[1])

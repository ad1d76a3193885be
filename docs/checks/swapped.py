"""A small autoencoder whose quantizer has two common slips in three lines, and what the lint says of it."""

import torch
from torch import nn
from torch.nn.functional import mse_loss

from vqtool.diagnostics import lint


class Quantizer(nn.Module):
    def __init__(self, codes=64, dim=8, beta=0.25):
        super().__init__()
        self.beta = beta
        self.embedding = nn.Embedding(codes, dim)

    def forward(self, z):
        indices = torch.cdist(z, self.embedding.weight).argmin(1)
        q = self.embedding(indices)
        q = z + (q - z).detach()  # too early: the losses below are meant for the codes as they are
        loss = self.beta * mse_loss(q, z.detach()) + mse_loss(z, q.detach())  # beta on the wrong term
        return q, loss, indices


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(32, 32), nn.GELU(), nn.Linear(32, 8), nn.LayerNorm(8))
        self.quantizer = Quantizer()
        self.decoder = nn.Linear(8, 32)

    def forward(self, x):
        quantized, loss, _ = self.quantizer(self.encoder(x))
        return mse_loss(self.decoder(quantized), x) + loss


def make():
    torch.manual_seed(0)
    model = Autoencoder()
    return model, torch.randn(512, 32), lambda model, batch: model(batch), torch.optim.Adam(model.parameters(), lr=1e-3)


if __name__ == "__main__":
    print(lint(*make()))

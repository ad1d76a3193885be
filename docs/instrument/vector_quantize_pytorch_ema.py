"""lucidrains' VectorQuantize: ``python docs/instrument/vector_quantize_pytorch_ema.py runs/ema``."""

import sys

import torch
import torch.nn.functional as F
from torch import nn
from vector_quantize_pytorch import VectorQuantize

from vqtool.diagnostics import CodebookMonitor, CodebookTrace, TraceSink, find_codebooks, read_table, stats

CLUSTERS = 2 * torch.randn(100, 12, generator=torch.Generator().manual_seed(1))


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(12, 8), nn.Linear(8, 12)
        self.quantize = VectorQuantize(dim=8, codebook_size=256, commitment_weight=1.0)

    def forward(self, x):
        quantized, _, commitment = self.quantize(self.encoder(x))
        return F.mse_loss(self.decoder(quantized), x) + commitment.sum()


def main(folder):
    torch.manual_seed(0)
    model = Autoencoder()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    print(find_codebooks(model))

    monitor = CodebookMonitor(model, optimizer, [TraceSink(folder)], every=80)
    for _ in range(240):
        x = CLUSTERS[torch.randint(100, (32, 16))] + 0.1 * torch.randn(32, 16, 12)  # 32 sequences of 16 tokens
        loss = model(x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    monitor.close()

    trace = CodebookTrace.load(f"{folder}/trace/quantize")
    used, perplexity = stats.codes_used(trace.hits[-1]), stats.perplexity(trace.hits[-1])
    ceiling = stats.expected_codes_used(256, trace.hits[-1].sum())
    print(f"steps 161 to 240: {used} codes used, ceiling {ceiling:.0f}, perplexity {perplexity:.0f}")
    show(folder, "boundary", ["estimator", "gain", "commitment"])
    show(folder, "movement", ["attraction", "in_optimizer"])
    show(folder, "geometry", ["scale", "offset", "effective_rank", "cover", "dead_reach"])


def show(folder, table, columns):
    """The first and the last row of a table."""
    rows = read_table(f"{folder}/{table}/quantize", columns).iloc[[0, -1]]
    print(f"{table}:", rows.round(2).to_string(index=False), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1])

"""Which resets come to something? ``python docs/lives/revivals.py runs/revivals``."""

import sys

import torch
import torch.nn.functional as F
from torch import nn
from vector_quantize_pytorch import VectorQuantize

from vqtool.diagnostics import CodebookMonitor, Reader, TraceSink, read_life_histories, stats

CLUSTERS = 2 * torch.randn(100, 8, generator=torch.Generator().manual_seed(1))


class Overwritten(nn.Module):
    """Moving averages. Dead codes are put onto latents, and the averages overwrite them before they are looked up."""

    def __init__(self):
        super().__init__()
        self.codes = self.sums = 0.1 * torch.randn(128, 8)
        self.sizes = torch.ones(128)

    def forward(self, z):
        tokens = z.detach().flatten(0, 1)
        self.codes = self.sums / self.sizes[:, None]
        ids = torch.cdist(tokens, self.codes).argmin(1)
        chosen, hot = self.codes[ids].view_as(z), F.one_hot(ids, 128).float()
        self.sums = self.sums.lerp(hot.T @ tokens, 0.2)
        self.sizes = self.sizes.lerp(hot.sum(0), 0.2).clamp(min=1e-5)
        dead = self.sizes < 0.01
        self.codes = torch.where(dead[:, None], tokens[torch.randperm(len(tokens))[:128]], self.codes)
        return z + (chosen - z).detach(), ids.view(z.shape[:2]), F.mse_loss(z, chosen)


READER = Reader(lambda call: call.args[0], lambda call: call.output[1], lambda module: module.codes)


def train(folder, make_quantizer, **read):
    torch.manual_seed(0)
    quantize = make_quantizer()
    model = nn.ModuleDict({"encoder": nn.Linear(8, 8), "quantize": quantize, "decoder": nn.Linear(8, 8)})
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    monitor = CodebookMonitor(model, optimizer, [TraceSink(folder)], every=5, detail=None, **read)
    for _ in range(220):
        x = CLUSTERS[torch.randint(100, (32, 32))] + 0.1 * torch.randn(32, 32, 8)
        quantized, _, commitment = quantize(model["encoder"](x))
        optimizer.zero_grad()
        (F.mse_loss(model["decoder"](quantized), x) + commitment.sum()).backward()
        optimizer.step()
    monitor.close()
    histories = read_life_histories(f"{folder}/trace/quantize")
    print(folder.split("/")[-1], histories.events().groupby("event")["times"].sum().to_dict())
    for at in stats.alive_after(histories.durations("reset"), [5, 50, 200]):
        print(f"resets that live on after {at.after} steps: {at.share:.0%} of {at.lives} ({at.censored} censored)")


def main(folder):
    train(f"{folder}/lucidrains", lambda: VectorQuantize(8, 128, threshold_ema_dead_code=2))
    train(f"{folder}/overwritten", Overwritten, read={"quantize": READER})


if __name__ == "__main__":
    main(sys.argv[1])

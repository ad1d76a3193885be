"""The latents of a window: their number, centre and spread."""

from typing import Any

import torch

from ..probes import CodebookReading
from .rows import LatentsRow
from .sums import Sums


class Latents(Sums):
    """Adds up the moments of the latents between two records. Nothing here waits for the device until ``close``.

    Args:
        dim: D, the length of a latent.
        device: Where they are.
    """

    of_each_rank = ("tokens", "norm", "total", "squares")

    def __init__(self, dim: int, device: torch.device):
        self.tokens = torch.zeros((), dtype=torch.int64, device=device)
        self.norm = torch.zeros((), dtype=torch.float64, device=device)
        self.total = torch.zeros(dim, dtype=torch.float64, device=device)
        self.squares = torch.zeros(dim, dtype=torch.float64, device=device)

    def add(self, reading: CodebookReading) -> None:
        """Take in one forward."""
        latents = reading.kept(reading.latents)
        self.tokens += reading.counted.sum()
        self.norm += torch.linalg.vector_norm(latents, dim=1).sum()
        self.total += latents.sum(0)
        self.squares += latents.square().sum(0)

    def close(self, codebook: str, step: int, window: int | None, forwards: int | None, **reference: Any) -> LatentsRow:
        """The row of the window, over all ranks, and a fresh start. Here the host waits for the device."""
        tokens, norm, total, squares = self.over_ranks()
        counted = int(tokens)
        moments: dict[str, Any] = {}
        if counted and bool(norm.isfinite()):  # of latents that nobody compares with codes nothing is known
            mean, second = total / counted, squares / counted
            moments = {
                "mean_norm": float(norm / counted),
                "centre_norm": float(mean.norm()),
                "spread": float((second - mean.square()).clamp(min=0).sum().sqrt()),
                "mean": tuple(mean.tolist()),
                "second_moment": tuple(second.tolist()),
            }
        for total_ in (self.tokens, self.norm, self.total, self.squares):
            total_.zero_()
        return LatentsRow(
            codebook=codebook, step=step, window=window, forwards=forwards, tokens=counted, **moments, **reference
        )

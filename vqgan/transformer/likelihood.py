"""How well the transformer predicts the codes of a split, for each code at each position."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...diagnostics.ranks import sum_over_ranks
from .model import CodeTransformer
from .split import CodeSplit

#: Numbers that are held at once: logits, or features of the widest layer where they are more.
HELD = 1 << 24
TOP = (1, 5, 10)


class Likelihood:
    """Sums over tokens, on the device.

    Args:
        model: Its grid and vocabulary decide about the shapes.
        dead: (R,) int64, codes that never occur in the training data.
    """

    def __init__(self, model: CodeTransformer, dead: Tensor):
        self.model, self.dead = model, dead
        K, (h, w), device = model.vocabulary.codes, model.grid, dead.device
        self.shape = (h, w, K)
        self._hits = torch.zeros(h * w * K, dtype=torch.int64, device=device)
        self._nll = torch.zeros(h * w * K, dtype=torch.float64, device=device)
        self._right = torch.zeros(len(TOP), dtype=torch.int64, device=device)
        self._dead_mass = torch.zeros((), dtype=torch.float64, device=device)
        # Where in the flat (position, code) sums each place of the sequence begins.
        self._begin = model.order.to(device) * K

    def add(self, prefix: Tensor, codes: Tensor) -> None:
        """Take in codes (B, h, w) after prefixes (B, P)."""
        targets = self.model.sequence(codes)
        logits = self.model.logits(prefix, codes).float()
        scores = logits.log_softmax(-1)
        of_target = scores.gather(-1, targets[..., None])
        cells = (self._begin + targets).flatten()
        self._hits.index_add_(0, cells, torch.ones_like(cells))
        self._nll.index_add_(0, cells, -of_target.flatten().double())
        rank = (scores >= of_target).sum(-1)  # from 1; its equals come before it: of a uniform law nothing is right
        self._right += torch.stack([(rank <= k).sum() for k in TOP])
        self._dead_mass += scores[..., self.dead].exp().sum().double()

    def reduce(self) -> None:
        """Sum over ranks."""
        for total in (self._hits, self._nll, self._right, self._dead_mass):
            sum_over_ranks(total)

    @property
    def hits(self) -> NDArray[np.int64]:
        """(h, w, K) how often each code is the target at each position."""
        return self._hits.cpu().numpy().reshape(self.shape)

    @property
    def nll(self) -> NDArray[np.float64]:
        """(h, w, K) sums of its negative log-likelihood there, in nats."""
        return self._nll.cpu().numpy().reshape(self.shape)

    def figures(self) -> dict[str, float]:
        """Means over tokens: ``nll`` in nats, the share of targets among the k likeliest, the mass on dead codes."""
        tokens = int(self._hits.sum())
        right = {f"top{k}": count / tokens for k, count in zip(TOP, self._right.tolist(), strict=True)}
        return {"nll": float(self._nll.sum()) / tokens, **right, "dead_mass": float(self._dead_mass) / tokens}


@torch.no_grad()
def likelihood(model: CodeTransformer, split: CodeSplit, rows: NDArray[np.int64], dead: Tensor) -> Likelihood:
    """Over the given rows of a split, in evaluation mode and float32; the model's mode is put back at the end."""
    result, was_training = Likelihood(model, dead), model.training
    model.eval()
    widest = max(model.vocabulary.size, 4 * model.gpt.size.width)
    size = max(1, HELD // (model.grid[0] * model.grid[1] * widest))
    for start in range(0, len(rows), size):
        prefix, codes = split.batch(rows[start : start + size])
        result.add(prefix.to(dead.device), codes.to(dead.device))
    model.train(was_training)
    return result

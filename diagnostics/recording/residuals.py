"""How much the layers of a residual quantizer leave of what enters the first."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..probes import CodebookReading

#: Share of its energy by which what enters a layer may differ from what the one before left: rounding, no other space.
_SAME = 1e-4


class ResidualSums(NamedTuple):
    """Sums over the tokens of Q layers.

    Attributes:
        tokens: Tokens of each.
        left: |z_l - q_l|^2.
        off: |z_l - (z_(l-1) - q_(l-1))|^2; 0 of the first.
        size: |z_l|^2 + |z_(l-1) - q_(l-1)|^2; 0 of the first.
        squares: |z_0|^2.
        total: (D,) z_0.
    """

    tokens: list[float]
    left: list[float]
    off: list[float]
    size: list[float]
    squares: float
    total: list[float]


class Residuals:
    """How much each layer leaves, and whether that is what enters the next. Nothing here waits for the device.

    Args:
        layers: Their number.
    """

    def __init__(self, layers: int):
        self._tokens, self._left, self._off, self._size = ([torch.zeros(())] * layers for _ in range(4))
        self._squares, self._total = torch.zeros(()), torch.zeros(0)
        self._before: tuple[int, Tensor] | None = None

    def add(self, layer: int, reading: CodebookReading) -> None:
        """Take in one call of a layer."""
        z, rest = (reading.kept(rows.float()) for rows in (reading.latents, reading.latents - reading.codes))
        before, self._before = self._before, (layer, rest)
        _add(self._tokens, layer, reading.counted.sum())
        _add(self._left, layer, _energy(rest))
        if layer == 0:
            self._squares = self._squares.to(z.device) + _energy(z)
            total = z.sum(0, dtype=torch.float64)
            self._total = total if len(self._total) == 0 else self._total + total
        elif before is not None and before[0] == layer - 1 and before[1].shape == z.shape:
            _add(self._off, layer, _energy(z - before[1]))
            _add(self._size, layer, _energy(z) + _energy(before[1]))
        else:
            self._off[layer] = torch.tensor(torch.inf)

    def sums(self) -> ResidualSums:
        """All of them, on the host."""
        tokens, left, off, size = (
            [float(each) for each in sums] for sums in (self._tokens, self._left, self._off, self._size)
        )
        return ResidualSums(tokens, left, off, size, float(self._squares), self._total.tolist())


def left_over(several: Sequence[ResidualSums]) -> list[float]:
    """What each layer leaves, over the variance of what enters the first; NaN where the next takes other latents.

    Args:
        several: The sums of each rank.
    """
    tokens, left, off, size = (np.sum([getattr(one, name) for one in several], 0) for name in ResidualSums._fields[:4])
    unknown = np.full(len(tokens), np.nan)
    if not (off <= _SAME * size).all() or not tokens[0]:  # so NaN is refused too
        return unknown.tolist()
    mean = np.sum([one.total for one in several if one.total], 0) / tokens[0]
    variance = sum(one.squares for one in several) / tokens[0] - float(mean @ mean)
    there = tokens > 0 if variance > 0 else np.zeros(len(tokens), bool)
    return np.divide(left, tokens * variance, out=unknown, where=there).tolist()


def _add(sums: list[Tensor], layer: int, more: Tensor) -> None:
    sums[layer] = sums[layer].to(more.device) + more


def _energy(rows: Tensor) -> Tensor:
    return rows.square().sum(dtype=torch.float64)

"""Where in the grid codes occur, and how well they are predicted there."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .codes import Counts, read_columns

Map = NDArray[np.float64]


@dataclass(frozen=True)
class PositionUse:
    """Codes by position, sparse: one entry per position and code that occur together.

    Attributes:
        grid: (h, w).
        place: (E,) position of each entry, row * w + column.
        code: (E,) its code.
        data: (E,) how often the split has it.
        sampled: (E,) how often the samples have it.
        nll: (E,) mean NLL in nats over the split's occurrences, NaN without one.
    """

    grid: tuple[int, int]
    place: Counts
    code: Counts
    data: Counts
    sampled: Counts
    nll: Map

    @classmethod
    def load(cls, path: Path) -> "PositionUse":
        """Read ``positions-<split>.parquet``.

        Raises:
            InputError: It cannot be read, or is empty.
        """
        frame = read_columns(path, ["row", "column", "code", "data", "sampled", "nll"])
        row, column, code, data, sampled = (frame[name].to_numpy(np.int64) for name in frame.columns[:5])
        grid = (int(row.max(initial=0)) + 1, int(column.max(initial=0)) + 1)
        return cls(grid, row * grid[1] + column, code, data, sampled, frame["nll"].to_numpy(np.float64))

    def total(self, weights: NDArray) -> Map:
        """(h, w) sum of ``weights`` (E,) at every position."""
        h, w = self.grid
        return np.bincount(self.place, weights, h * w).astype(np.float64).reshape(h, w)

    def perplexity(self, counts: Counts) -> Map:
        """(h, w) perplexity of code use at every position, in codes; counts (E,) is ``data`` or ``sampled``."""
        n = self.total(counts)
        c_ln_c = self.total(counts * np.log(np.maximum(counts, 1)))
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.exp(np.log(n) - c_ln_c / n)

    def mean_nll(self) -> Map:
        """(h, w) mean NLL of the split's tokens at every position, in nats."""
        with np.errstate(invalid="ignore"):
            return self.total(np.nan_to_num(self.nll) * self.data) / self.total(self.data)

    def frequency(self, code: int, counts: Counts) -> Map:
        """(h, w) share of the images that have ``code`` at each position; counts (E,) is ``data`` or ``sampled``."""
        with np.errstate(invalid="ignore"):
            return self.total(counts * (self.code == code)) / self.total(counts)

    def images(self, counts: Counts) -> int:
        """Images behind ``counts``: each has one token at every position."""
        return int(self.total(counts).max())

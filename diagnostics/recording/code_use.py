"""What an evaluated split says of the codes of a transformer, counted, kept and read again.

``codes-SPLIT.parquet`` has one row per code, ``positions-SPLIT.parquet`` one per position and code that occurs there.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .. import stats
from ..errors import InputError
from ..stats.gap import chance_band
from .parquet import read_columns, write_table

if TYPE_CHECKING:
    import pandas as pd

Map = NDArray[np.float64]

Codes = NDArray[np.bool_]

Shares = NDArray[np.float64]

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class CodeUse:
    """Every code in the training tokens, in a split and in the samples.

    Attributes:
        train: (K,) how often it occurs in the training tokens.
        data: (K,) how often in the split's tokens.
        sampled: (K,) how often in the sampled tokens; all zero where nothing was sampled.
        nll: (K,) mean NLL in nats over its occurrences in the split, NaN without one.
    """

    train: Counts
    data: Counts
    sampled: Counts
    nll: Shares

    @classmethod
    def of(cls, train: Counts, data: Counts, sampled: Counts, nll: Map) -> "CodeUse":
        """From counts: ``train`` (K,), and by position ``data``, ``sampled`` and sums of the NLL ``nll`` (h, w, K)."""
        data_hits = data.sum((0, 1))
        return cls(train, data_hits, sampled.sum((0, 1)), _mean(nll.sum((0, 1)), data_hits))

    def frame(self) -> "pd.DataFrame":
        """``codes-<split>.parquet``: one row per code."""
        import pandas as pd

        code = np.arange(len(self.train), dtype=np.int32)
        counts = {"train": self.train, "data": self.data, "sampled": self.sampled}
        return pd.DataFrame({"code": code, **counts, "nll": self.nll.astype(np.float32)})

    def save(self, path: Path) -> None:
        """Write ``frame`` to ``path``, whole or not at all."""
        _write(self.frame(), path)

    @classmethod
    def load(cls, path: Path) -> "CodeUse":
        """Read ``codes-<split>.parquet``.

        Raises:
            InputError: It cannot be read, or does not hold one row per code.
        """
        table = read_columns(path, ["code", "train", "data", "sampled", "nll"])
        code, train, data, sampled = _counts(table, "code", "train", "data", "sampled")
        if not np.array_equal(code, np.arange(len(code))):
            raise InputError(f"cannot read {path}: it should hold one row per code, from 0")
        return cls(train, data, sampled, table["nll"].to_numpy().astype(np.float64))

    @property
    def tokens(self) -> int:
        """Tokens of the split."""
        return int(self.data.sum())

    @property
    def sampled_tokens(self) -> int:
        """Tokens that were sampled."""
        return int(self.sampled.sum())

    @cached_property
    def absent(self) -> Codes:
        """(K,) codes that never occur in training: the first stage lost them."""
        return stats.dead_codes(self.train)

    @cached_property
    def frequency_nll(self) -> Shares:
        """(K,) -ln p_k of the training tokens: the NLL of a model that knows a code by its frequency alone; or inf."""
        with np.errstate(divide="ignore"):
            return -np.log(stats.frequencies(self.train))

    @property
    def judged(self) -> Codes:
        """(K,) codes that occur in training and in the split."""
        return ~self.absent & (self.data > 0)

    @property
    def never_learned(self) -> Codes:
        """(K,) judged codes that are predicted no better than by their frequency alone."""
        return self.judged & (self.nll >= self.frequency_nll)

    @property
    def mean_nll(self) -> float:
        """Mean NLL over the tokens of the split, in nats."""
        there = self.data > 0
        return float(np.average(self.nll[there], weights=self.data[there])) if there.any() else float("nan")

    @property
    def gap(self) -> Shares:
        """(K,) |share in the data - share in the samples| / 2: what each code adds to the total variation."""
        return np.abs(stats.frequencies(self.data) - stats.frequencies(self.sampled)) / 2

    @property
    def outside_chance(self) -> Codes:
        """(K,) codes whose sampled count lies outside of what chance alone would do (``chance_band``)."""
        low, high = chance_band(self.data, self.tokens, self.sampled_tokens)
        return (self.sampled < low) | (self.sampled > high)


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
    def of(cls, data: Counts, sampled: Counts, nll: Map) -> "PositionUse":
        """From counts by position, all (h, w, K): ``data``, ``sampled`` and sums of the NLL ``nll``."""
        row, column, code = there = np.nonzero((data > 0) | (sampled > 0))
        h, w, _ = data.shape
        return cls((h, w), row * w + column, code, data[there], sampled[there], _mean(nll[there], data[there]))

    def frame(self) -> "pd.DataFrame":
        """``positions-<split>.parquet``: one row per position and code that occurs there."""
        import pandas as pd

        row, column = np.divmod(self.place, self.grid[1])
        where = {"row": row, "column": column, "code": self.code}
        return pd.DataFrame(
            {name: numbers.astype(np.int32) for name, numbers in where.items()}
            | {"data": self.data, "sampled": self.sampled, "nll": self.nll.astype(np.float32)}
        )

    def save(self, path: Path) -> None:
        """Write ``frame`` to ``path``, whole or not at all."""
        _write(self.frame(), path)

    @classmethod
    def load(cls, path: Path) -> "PositionUse":
        """Read ``positions-<split>.parquet``.

        Raises:
            InputError: It cannot be read, or is empty.
        """
        table = read_columns(path, ["row", "column", "code", "data", "sampled", "nll"])
        row, column, code, data, sampled = _counts(table, "row", "column", "code", "data", "sampled")
        grid = (int(row.max(initial=0)) + 1, int(column.max(initial=0)) + 1)
        return cls(grid, row * grid[1] + column, code, data, sampled, table["nll"].to_numpy().astype(np.float64))

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


def _mean(total: Map, hits: Counts) -> Shares:
    """Mean NLL, NaN without a hit; rounded as the files keep it, so that it says the same before and after them."""
    with np.errstate(invalid="ignore"):
        return (total / hits).astype(np.float32).astype(np.float64)


def _counts(table: pa.Table, *names: str) -> list[Counts]:
    return [table[name].to_numpy().astype(np.int64) for name in names]


def _write(frame: "pd.DataFrame", path: Path) -> None:
    # From pandas: what is NaN becomes null on disk, and pandas finds its types again.
    write_table(pa.Table.from_pandas(frame, preserve_index=False), path, compression="snappy")

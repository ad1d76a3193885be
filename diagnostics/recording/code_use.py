"""What an evaluated split says of the codes of a transformer.

``codes-SPLIT.parquet`` has one row per code, ``positions-SPLIT.parquet`` one per position and code that occurs there.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from .. import stats
from ..errors import InputError
from ..stats.gap import chance_band

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
    def load(cls, path: Path) -> "CodeUse":
        """Read ``codes-<split>.parquet``.

        Raises:
            InputError: It cannot be read, or does not hold one row per code.
        """
        frame = read_columns(path, ["code", "train", "data", "sampled", "nll"])
        if not np.array_equal(frame["code"], np.arange(len(frame))):
            raise InputError(f"cannot read {path}: it should hold one row per code, from 0")
        train, data, sampled = (frame[name].to_numpy(np.int64) for name in ("train", "data", "sampled"))
        return cls(train, data, sampled, frame["nll"].to_numpy(np.float64))

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


def read_columns(path: Path, columns: list[str]) -> pd.DataFrame:
    """Some columns of a Parquet file.

    Raises:
        InputError: It cannot be read, or lacks one of ``columns``.
    """
    try:
        lacking = [name for name in columns if name not in pq.read_schema(path).names]
        if lacking:
            raise InputError(f"cannot read {path}: it has no column {', '.join(lacking)}")
        return pq.read_table(path, columns=columns).to_pandas()
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"cannot read {path}: {str(error).splitlines()[0]}") from None

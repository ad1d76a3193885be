"""What an evaluated split says of every code of a transformer: which were learned, which are sampled as in the data."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray
from scipy.stats import nbinom

from ..diagnostics import stats
from ..diagnostics.errors import InputError

Counts = NDArray[np.int64]
Shares = NDArray[np.float64]
Codes = NDArray[np.bool_]


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


def chance_band(data: ArrayLike, tokens: int, sampled_tokens: int, level: float = 0.95) -> tuple[Shares, Shares]:
    """Limits of the sampled count of codes of which the data hold ``data``, when nothing but chance parts the two.

    Both counts are Poisson with one rate per token; given the first and Jeffreys' prior of the rate, the second is
    negative binomial with n = data + 1/2 and p = tokens / (tokens + sampled_tokens). Tokens are taken as independent.
    """
    successes, p = np.asarray(data) + 0.5, tokens / (tokens + sampled_tokens)
    tail = (1 - level) / 2
    return nbinom.ppf(tail, successes, p), nbinom.ppf(1 - tail, successes, p)

"""Implicit codebooks, whose codes are numbers: counted digit by digit, the largest by a sketch too."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..probes import CodebookReading
from ..ranks import sum_over_ranks
from .optimizer_steps import GradientState
from .records import CodebookRecord
from .rows import DigitsRow
from .sums import Sums

#: Codebooks with more codes have no record of every code: a window of one would not fit.
MOST_COUNTED = 1 << 18
_BUCKETS = 1 << 20


class DigitWindow(Sums):
    """Adds up what an implicit codebook of up to 2^62 codes does between two records, in 5 MB.

    Args:
        levels: Values of each digit, least significant first.
        device: Where its indices are.
    """

    of_each_rank = ("forwards", "tokens", "hits", "buckets")

    def __init__(self, levels: Sequence[int], device: torch.device):
        self.levels = tuple(levels)
        self.steps = 0
        self.forwards = torch.zeros((), dtype=torch.int64, device=device)
        self.tokens = torch.zeros((), dtype=torch.int64, device=device)
        self.hits = torch.zeros(sum(levels), dtype=torch.int64, device=device)
        self.buckets = torch.zeros(_BUCKETS, dtype=torch.int32, device=device)
        self.forwards_open = 0

    #: There is no table of codes to wait for.
    codes_read = True

    def add(self, reading: CodebookReading) -> None:
        """Take in one forward."""
        counted = reading.counted
        indices = reading.indices.clamp(min=0)
        self.forwards_open += 1
        self.forwards += 1
        self.tokens += counted.sum()
        one, start, rest = counted.to(torch.int64), 0, indices
        for values in self.levels:
            self.hits.index_add_(0, start + rest % values, one)
            start, rest = start + values, rest // values
        self.buckets.index_add_(0, _hashed(indices), one.to(torch.int32))

    def read_gradient(self, gradient: Tensor | None, state: GradientState) -> None:
        """Nothing: the codes have no gradient."""

    def close_step(self) -> None:
        """Close one optimizer step."""
        self.steps += 1
        self.forwards_open = 0

    skip_step = close_step

    def close(self, name: str, step: int) -> DigitsRow:
        """The row of the window, over all ranks, and a fresh start. Here the host waits for the device."""
        forwards, tokens, hits, buckets = (sum_over_ranks(getattr(self, n).clone()) for n in self.of_each_rank)
        empty = int((buckets == 0).sum())
        row = DigitsRow(
            codebook=name,
            step=step,
            window=self.steps,
            forwards=int(forwards),
            tokens=int(tokens),
            levels=self.levels,
            hits=tuple(hits.tolist()),
            codes_seen=_BUCKETS * math.log(_BUCKETS / empty) if empty else None,
            counted_exactly=False,
        )
        for total in (self.forwards, self.tokens, self.hits, self.buckets):
            total.zero_()
        self.steps = 0
        return row


def digits_row(record: CodebookRecord, levels: Sequence[int]) -> DigitsRow:
    """The row of a codebook of which every code was counted."""
    by_digit = record.hits.reshape(tuple(reversed(levels)))  # the most significant digit is the slowest axis
    axes = range(len(levels))
    hits: list[Any] = []
    for digit in axes:
        others = tuple(axis for axis in axes if axis != len(levels) - 1 - digit)
        hits += by_digit.sum(others).tolist()
    return DigitsRow(
        codebook=record.codebook,
        step=record.step,
        window=record.window,
        forwards=record.forwards,
        tokens=int(record.hits.sum()),
        levels=tuple(levels),
        hits=tuple(hits),
        codes_seen=float(np.count_nonzero(record.hits)),
        counted_exactly=True,
    )


def _hashed(indices: Tensor) -> Tensor:
    """(N,) bucket of each index: splitmix64's finaliser (Steele et al. 2014), in wrapping int64 arithmetic."""
    x = indices
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        x = (x ^ _shifted(x, shift)) * factor
    return (x ^ _shifted(x, 31)) & (_BUCKETS - 1)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Logical shift to the right: torch's keeps the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)

"""The last records of a codebook, pooled until its usage may be judged."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .. import stats
from .trace import CodebookTrace


@dataclass(frozen=True)
class Recent:
    """The last records of a trace, as many as it takes to judge usage and to call a code dead.

    Attributes:
        last: Optimizer step of the last record; 0 for a pass of a trained model.
        records: Records taken from the end.
        steps: Optimizer steps that they cover.
        hits: (K,) hits over all of them.
    """

    last: int
    records: int
    steps: int
    hits: NDArray[np.int64]

    @cached_property
    def usage(self) -> stats.Usage:
        """What these records say of usage; ``usage.enough``: whether it may be judged."""
        return stats.usage(self.hits, self.span)

    @property
    def unused(self) -> NDArray[np.bool_]:
        """(K,) codes without a hit in these records."""
        return stats.dead_codes(self.hits)

    @property
    def names(self) -> tuple[str, str]:
        """What codes without a hit and codes with one are called: "dead" only where usage may be judged."""
        return ("dead", "live") if self.usage.enough else ("without a hit", "with hits")

    @property
    def span(self) -> str:
        """What the records cover: "the last 3 records, 30 steps", or "the whole pass" of a trained model."""
        if not self.last:
            return "the whole pass"
        records = "the last record" if self.records == 1 else f"the last {self.records} records"
        return f"{records}, {self.steps:,} step{'s' * (self.steps != 1)}"

    @property
    def over(self) -> str:
        """``span`` with its tokens: "the last 3 records (30 steps, 512 tokens)"."""
        records, *steps = self.span.split(", ")
        tokens = f"{self.usage.tokens:,} token{'s' * (self.usage.tokens != 1)}"
        return f"{records} ({', '.join([*steps, tokens])})"

    def __str__(self) -> str:
        return self.over if self.usage.enough else f"{self.over[:-1]}, too few for a verdict)"


def recent(trace: CodebookTrace) -> Recent:
    """The fewest last records over which usage may be judged (``stats.pooled_records``), or all where it never may."""
    records = stats.pooled_records(trace.hits)
    return Recent(int(trace.steps[-1]), records, int(trace.window[-records:].sum()), trace.hits[-records:].sum(0))

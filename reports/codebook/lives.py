"""What the figures show of a codebook's trace, as numbers: its last records, usage in time, reduced grids."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...diagnostics import stats
from ...diagnostics.recording.trace import CodebookTrace
from ..page.heat import Heat
from ..page.numbers import bins
from ..page.words import counted


@dataclass(frozen=True)
class Recent:
    """The last records of a trace, as many as it takes to call a code dead.

    Attributes:
        last: Optimizer step of the last record; 0 for a pass of a trained model.
        records: Records taken from the end.
        steps: Optimizer steps that they cover.
        hits: (K,) hits over all of them.
        tokens_per_code: Tokens per code that a verdict takes.
    """

    last: int
    records: int
    steps: int
    hits: NDArray[np.int64]
    tokens_per_code: int

    @property
    def dead(self) -> NDArray[np.bool_]:
        """(K,) codes without a hit in these records."""
        return stats.dead_codes(self.hits)

    @property
    def tokens(self) -> int:
        """Tokens in these records."""
        return int(self.hits.sum())

    @property
    def enough(self) -> bool:
        """Whether the records hold the tokens that a verdict takes."""
        return self.tokens >= self.tokens_per_code * len(self.hits)

    @property
    def span(self) -> str:
        """What the records cover: "the last 3 records, 30 steps", or "the whole pass" of a trained model."""
        if not self.last:
            return "the whole pass"
        records = "the last record" if self.records == 1 else f"the last {self.records} records"
        return f"{records}, {counted(self.steps, 'step')}"

    def __str__(self) -> str:
        records, *steps = self.span.split(", ")
        few = [] if self.enough else [f"fewer than the {self.tokens_per_code} per code that a verdict takes"]
        return f"{records} ({', '.join([*steps, counted(self.tokens, 'token'), *few])})"


def recent(trace: CodebookTrace, tokens_per_code: int = stats.TOKENS_PER_CODE) -> Recent:
    """The fewest last records that hold ``tokens_per_code`` tokens per code, or all records where they never do."""
    tokens, codes = np.cumsum(trace.hits.sum(1)[::-1]), trace.hits.shape[1]
    records = min(int(np.searchsorted(tokens, tokens_per_code * codes)) + 1, len(tokens))
    return Recent(
        int(trace.steps[-1]), records, int(trace.window[-records:].sum()), trace.hits[-records:].sum(0), tokens_per_code
    )


def usage_in_time(trace: CodebookTrace) -> pd.DataFrame:
    """One row per record: step, window, tokens, and what the window's hits say.

    ``ceiling_window`` is what a uniform codebook would show for as many tokens (``stats.expected_codes_used``).
    """
    hits, codes = trace.hits, trace.hits.shape[1]
    tokens = hits.sum(1)
    return pd.DataFrame(
        {
            "step": trace.steps,
            "window": trace.window,
            "tokens": tokens,
            "codes_used_window": stats.codes_used(hits),
            # Record by record: the entropy of all records at once would take several float copies of the trace.
            "perplexity_window": [float(stats.perplexity(record)) for record in hits],
            "ceiling_window": [stats.expected_codes_used(codes, int(n)) for n in tokens],
        }
    )


def gradient(trace: CodebookTrace) -> tuple[str, NDArray[np.float32]]:
    """The gradient norms (T, K) of the codes and their name: "grad_norm", or "pull_norm" where there is no gradient."""
    if np.isfinite(trace.grad_norm).any():
        return "grad_norm", trace.grad_norm
    return "pull_norm", trace.pull_norm


def heat(trace: CodebookTrace, values: NDArray, order: NDArray[np.intp], rows: int = 288, columns: int = 400) -> Heat:
    """Reduce ``values`` (T, K) of a trace to at most ``rows`` x ``columns``, by the maximum, codes in ``order``.

    Time is reduced first: the grid of reordered codes is then small, whatever the trace.
    """
    time, codes = bins(len(values), columns), bins(values.shape[1], rows)
    in_time = np.fmax.reduceat(values, time[:-1], axis=0)
    grid = np.fmax.reduceat(in_time[:, order], codes[:-1], axis=1).T
    edges = np.concatenate([[trace.steps[0] - trace.window[0]], trace.steps[time[1:] - 1]])
    return Heat(grid.astype(np.float32), edges, codes, int(np.diff(time).max()))

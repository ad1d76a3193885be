"""What the figures show of a codebook's trace, as numbers: usage in time, reduced grids."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...diagnostics import stats
from ...diagnostics.recording.trace import CodebookTrace
from ..page.heat import Heat
from ..page.numbers import bins


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

"""What the figures show of a trace of tokens, as numbers."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...diagnostics.recording.trace import TokenTrace
from ..page.heat import Heat
from ..page.numbers import bins, quantile_bands


def by_frequency(train: NDArray[np.int64], targets: NDArray[np.int64]) -> NDArray[np.intp]:
    """The codes that were a target at all, the most frequent in ``train`` (K,) first; targets (T, K)."""
    order = np.argsort(-train, kind="stable")
    return order[targets.sum(0)[order] > 0]


def nll_heat(
    trace: TokenTrace, order: NDArray[np.intp], less: NDArray[np.float64], rows: int = 512, columns: int = 400
) -> Heat:
    """NLL of codes over time ``less`` (K,) that of each code, on at most ``rows`` x ``columns`` cells.

    A cell is the mean over all targets that it covers, NaN where there was none. Codes stand in ``order``. Time is
    reduced first, as in ``lives.heat``.
    """
    time, codes = bins(len(trace.steps), columns), bins(len(order), rows)
    total = np.where(trace.targets > 0, (trace.nll - less.astype(np.float32)) * trace.targets, 0)

    def reduced(values: NDArray) -> NDArray:
        in_time = np.add.reduceat(values, time[:-1], axis=0)
        return np.add.reduceat(in_time[:, order], codes[:-1], axis=1).T

    n = reduced(trace.targets)
    values = np.divide(reduced(total), n, out=np.full(n.shape, np.nan), where=n > 0)
    edges = np.concatenate([[trace.steps[0] - trace.window[0]], trace.steps[time[1:] - 1]])
    return Heat(values.astype(np.float32), edges, codes, int(np.diff(time).max()))


class Bands(NamedTuple):
    """5 %, median and 95 % in time, (3, T), of the codes that were a target and of those that never were."""

    targets: NDArray[np.float64]
    never: NDArray[np.float64]


def bands(values: NDArray[np.float32], known: NDArray[np.bool_], taken: NDArray[np.intp]) -> Bands:
    """Quantiles over the codes of ``values`` (T, K) at the records ``taken``: ``known`` (K,) codes, and the others."""
    chosen = values[taken]
    return Bands(quantile_bands(chosen, known), quantile_bands(chosen, ~known))

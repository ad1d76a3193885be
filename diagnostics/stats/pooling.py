"""How many records it takes to judge the usage of a codebook: the one definition of it."""

import numpy as np
from numpy.typing import NDArray

from .counts import TOKENS_PER_CODE
from .richness import COVERAGE_LIMIT, coverage


def pooled_starts(hits: NDArray[np.int64]) -> NDArray[np.intp]:
    """(T,) first record of the shortest window ending at each record over which usage may be judged; -1 where none is.

    Such a window holds ``TOKENS_PER_CODE`` tokens per code and has a coverage of ``COVERAGE_LIMIT``. The second takes
    few records more than the first: with 10 tokens per code it is met whatever they are, since f1 is at most K.

    Args:
        hits: (T, K) hits of the records.
    """
    tokens = hits.sum(1).cumsum()
    first = np.searchsorted(np.append(0, tokens), tokens - TOKENS_PER_CODE * hits.shape[1], side="right") - 1
    pool, start = np.zeros(hits.shape[1], np.int64), 0
    for last, record in enumerate(hits):  # record by record: no second array as large as the trace
        pool += record
        while start < first[last]:
            pool -= hits[start]
            start += 1
        if first[last] >= 0:
            first[last] = _covered(hits, pool, start)
    return first


def pooled_records(hits: NDArray[np.int64]) -> int:
    """The fewest last records over which usage may be judged, or all where there are none; hits (T, K)."""
    tokens = np.cumsum(hits.sum(1)[::-1])
    records = int(np.searchsorted(tokens, TOKENS_PER_CODE * hits.shape[1])) + 1
    if records > len(hits):
        return len(hits)
    start = _covered(hits, hits[-records:].sum(0), len(hits) - records)
    return len(hits) - max(0, start)


def _covered(hits: NDArray[np.int64], pool: NDArray[np.int64], start: int) -> int:
    """The last start, ``start`` or before it, from which the pool is covered; -1 where it never is."""
    if coverage(pool) >= COVERAGE_LIMIT:
        return start
    pool = pool.copy()
    for earlier in range(start - 1, -1, -1):
        pool += hits[earlier]
        if coverage(pool) >= COVERAGE_LIMIT:
            return earlier
    return -1

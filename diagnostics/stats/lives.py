"""When codes live, and the order that shows it: survivors on top."""

import numpy as np
from numpy.typing import NDArray


def last_hits(hits: NDArray[np.int64]) -> NDArray[np.int64]:
    """(K,) index of the last record in which each code had a hit, -1 for a code that never had one; hits (T, K)."""
    backwards = (hits > 0)[::-1]
    return np.where(backwards.any(0), len(hits) - 1 - backwards.argmax(0), -1)


def by_life(last: NDArray[np.int64], total: NDArray[np.int64]) -> NDArray[np.intp]:
    """(K,) codes by their last hit, the latest first, then by their total hits, the most first; both (K,)."""
    return np.lexsort((-total, -last))


def life_order(hits: NDArray[np.int64]) -> NDArray[np.intp]:
    """(K,) codes in the order of ``by_life``; hits (T, K)."""
    return by_life(last_hits(hits), hits.sum(0))

"""Arrays reduced to what figures show."""

import numpy as np
from numpy.typing import NDArray


def quantile_bands(
    values: NDArray[np.float32], codes: NDArray[np.bool_], quantiles: tuple[float, ...] = (0.05, 0.5, 0.95)
) -> NDArray[np.float64]:
    """(len(quantiles), T) quantiles over the chosen ``codes`` (K,) of ``values`` (T, K); NaN where none is chosen."""
    if not codes.any():
        return np.full((len(quantiles), len(values)), np.nan)
    return np.nanquantile(values[:, codes].astype(np.float64), quantiles, axis=1)


def mean_in_time(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """(K,) mean over the records that have a value; NaN for a code that has none; values (T, K)."""
    there = np.isfinite(values)
    total, n = np.where(there, values, 0.0).sum(0, dtype=np.float64), there.sum(0)
    return np.divide(total, n, out=np.full(values.shape[1], np.nan), where=n > 0)


def edges_for(*samples: NDArray, log: bool, most: int = 48) -> NDArray[np.float64]:
    """Common bin edges for several samples: equal steps, or equal factors over the positive values where ``log``."""
    values = np.concatenate([np.ravel(sample) for sample in samples]).astype(np.float64)
    values = values[np.isfinite(values) & ((values > 0) | (not log))]
    low, high = (values.min(), values.max()) if values.size else (0.1, 1.0)
    if log:
        return np.geomspace(low / 1.02, high * 1.02, most + 1)
    margin = 0.02 * (high - low) or 0.05 * abs(high) or 1.0
    return np.linspace(low - margin, high + margin, most + 1)


def log_histogram(values: NDArray, edges: NDArray) -> tuple[NDArray[np.intp], int]:
    """Counts of the positive values between ``edges``, and the number of zeros, which have no place there."""
    values = values[np.isfinite(values)]
    return np.histogram(values[values > 0], edges)[0], int((values == 0).sum())


def bins(n: int, most: int) -> NDArray[np.intp]:
    """First index of each of at most ``most`` equal bins over ``n`` items (the last may be short), and ``n`` itself."""
    return np.append(np.arange(0, n, -(-n // most)), n)

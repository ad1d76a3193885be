"""What ``metrics.jsonl`` holds, as series over the optimizer steps."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .words import counted


def series(rows: Sequence[Mapping[str, Any]], key: str) -> pd.Series:
    """The logged values of ``key`` over the steps at which it was logged as a number; the last one where twice."""
    points = {row["step"]: row[key] for row in rows if "step" in row and isinstance(row.get(key), int | float)}
    return pd.Series(points, dtype=float, name=key).sort_index()


def keys(rows: Sequence[Mapping[str, Any]], prefix: str) -> list[str]:
    """The logged keys that start with ``prefix`` and were a number at least once, in the order of first sight."""
    seen = dict.fromkeys(key for row in rows for key, value in row.items() if isinstance(value, int | float))
    return [key for key in seen if key.startswith(prefix)]


def points(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> int:
    """The most steps at which one of ``names`` was logged."""
    return max((len(series(rows, name)) for name in names), default=0)


def smooth(values: pd.Series) -> pd.Series:
    """Centred running mean over a fiftieth of the points."""
    return values.rolling(max(1, len(values) // 50), center=True, min_periods=1).mean()


def window_label(window: NDArray[np.int64]) -> str:
    """How a per-window figure names its window: "window of 10 steps", or the range where windows differ."""
    low, high = int(window.min()), int(window.max())
    if low == high:
        return f"window of {counted(low, 'step')}"
    return f"window of {low} to {high} steps"

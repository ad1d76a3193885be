"""The few numbers that stand for a record in a plot over time."""

from functools import singledispatch
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import stats
from .records import CodebookRecord, Record, TokenRecord

#: The columns of a second stage's tokens that are norms of the rows of a table.
TOKEN_NORMS = [name for name in TokenRecord.columns() if name.endswith("_norm")]


@singledispatch
def scalars(record: Record) -> dict[str, float]:
    """Numbers of a record by their full names, such as ``codebook/quantize/perplexity_window``; all of them finite."""
    raise TypeError(f"no scalars are known of a {type(record).__name__}")


@scalars.register
def _(record: CodebookRecord) -> dict[str, float]:
    K, tokens = len(record.hits), int(record.hits.sum())
    values = {
        "codes_used_window": stats.codes_used(record.hits),
        "codes_used_window_ceiling": stats.expected_codes_used(K, tokens),
        "coverage_window": stats.coverage(record.hits),
        "perplexity_window": stats.perplexity(record.hits),
        "perplexity_window_corrected": stats.corrected_entropy(record.hits).perplexity,
        "gini_window": stats.gini(record.hits),
        "tokens_window": tokens,
        "resets_window": np.nansum(record.resets) if np.isfinite(record.resets).any() else np.nan,
        "distortion_window": np.nansum(record.distortion * record.hits) / max(1, tokens),
    }
    for name in ("norm", "drift", "grad_norm", "pull_norm"):
        if len(some := finite(getattr(record, name))):
            values[f"{name}_mean"] = some.mean()
    return _named(f"codebook/{record.codebook}", values)


@scalars.register
def _(record: TokenRecord) -> dict[str, float]:
    tokens = record.targets.sum()
    values = {
        "tokens_window": tokens,
        "nll_window": np.nansum(record.nll * record.targets) / tokens if tokens else np.nan,
        "codes_targeted_window": stats.codes_used(record.targets),
    }
    groups = {"targets": record.targets > 0, "others": record.targets == 0}
    for name in TOKEN_NORMS:
        for group, codes in groups.items():
            if codes.any():
                values[f"{name}_{group}_mean"] = getattr(record, name)[codes].mean()
    return _named(record.codebook, values)


def _named(prefix: str, values: dict[str, Any]) -> dict[str, float]:
    return {f"{prefix}/{name}": float(value) for name, value in values.items() if np.isfinite(value)}


def finite(values: NDArray[Any]) -> NDArray[Any]:
    """Those of the values that are finite."""
    return values[np.isfinite(values)]

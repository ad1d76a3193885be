"""Records are pooled until usage may be judged, and never further."""

import numpy as np
import pytest

from vqtool.diagnostics import stats


def windows(seed):
    rng = np.random.default_rng(seed)
    hits = rng.poisson(0.7, (40, 30)) * (rng.random((40, 1)) < 0.8)
    if seed % 2:  # nearly all tokens on one code: coverage is what lacks
        hits[:, 1:] = rng.random((40, 29)) < 0.05
        hits[:, 0] = 60
    return hits


@pytest.mark.parametrize("seed", range(4))
def test_each_window_is_the_shortest_that_meets_both_limits(seed):
    hits = windows(seed)
    for last, start in enumerate(stats.pooled_starts(hits)):
        enough = [stats.usage(hits[first : last + 1].sum(0), "").enough for first in range(last + 1)]
        assert start == max(np.flatnonzero(enough), default=-1)
        assert stats.pooled_records(hits[: last + 1]) == (last + 1 - start if start >= 0 else last + 1)


def test_coverage_can_take_records_that_tokens_do_not():
    hits = np.zeros((3, 100), int)
    hits[:, 0] = 800
    hits[1, 1:] = hits[2, 1:] = 1
    assert stats.pooled_records(hits) == 2  # the last has 899 tokens and 99 codes that it saw once


def test_ten_tokens_per_code_always_end_the_search():
    hits = np.zeros((50, 100), int)
    hits[:, 0] = 100
    hits[np.arange(50), np.arange(50) + 50] = 1
    assert stats.pooled_records(hits) <= 10

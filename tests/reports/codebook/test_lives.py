from dataclasses import replace

import numpy as np
import pytest

from vqtool.diagnostics import stats
from vqtool.diagnostics.stats.lives import life_order
from vqtool.reports.codebook import lives


def test_usage_in_time_is_what_the_statistics_say_of_each_record(trace):
    frame = lives.usage_in_time(trace)
    assert frame["codes_used_window"].tolist() == [5] * 5 + [4] * 3 + [3] * 2
    np.testing.assert_allclose(frame["perplexity_window"], stats.perplexity(trace.hits), rtol=1e-12)
    np.testing.assert_allclose(frame["ceiling_window"].iloc[-1], stats.expected_codes_used(6, 17))


@pytest.mark.parametrize(("code", "record"), [(0, 0), (1234, 777), (4095, 999)])
def test_a_single_hit_of_a_single_code_in_a_single_record_stays_visible(trace, code, record):
    hits = np.zeros((1000, 4096), np.int64)
    hits[record, code] = 1
    long = replace(trace, steps=np.arange(1, 1001), window=np.ones(1000, np.int64), arrays={"hits": hits})
    order = life_order(hits)
    grid = lives.heat(long, hits, order)
    assert order[0] == code
    assert grid.values.sum() == 1
    row, column = np.argwhere(grid.values)[0]
    assert row == 0
    assert grid.steps[column] < record + 1 <= grid.steps[column + 1]


def test_no_cell_of_a_heatmap_is_smaller_than_what_it_covers(trace):
    hits = np.random.default_rng(0).poisson(0.3, (103, 71))
    long = replace(trace, steps=np.arange(1, 104), window=np.ones(103, np.int64), arrays={"hits": hits})
    order = life_order(hits)
    grid = lives.heat(long, hits, order, rows=9, columns=11)
    for row, (top, bottom) in enumerate(zip(grid.codes[:-1], grid.codes[1:], strict=True)):
        for column, (start, stop) in enumerate(zip(grid.steps[:-1], grid.steps[1:], strict=True)):
            assert grid.values[row, column] == hits[start:stop, order[top:bottom]].max()


def test_a_small_trace_is_shown_code_by_code_and_record_by_record(trace):
    grid = lives.heat(trace, trace.hits, np.arange(6))
    np.testing.assert_array_equal(grid.values, trace.hits.T)
    assert grid.steps.tolist() == list(range(0, 51, 5))
    assert grid.cell == ""


def test_what_was_not_recorded_does_not_hide_what_was(trace):
    values = np.full((10, 6), np.nan, np.float32)
    values[3, 2] = 0.5
    grid = lives.heat(trace, values, np.arange(6), rows=2, columns=2)
    assert grid.values[0, 0] == 0.5
    assert np.isnan(grid.values).sum() == 3


def test_a_codebook_without_gradient_is_shown_by_its_pull(trace):
    assert lives.gradient(trace)[0] == "grad_norm"
    name, values = lives.gradient(
        replace(trace, arrays=trace.arrays | {"grad_norm": np.full((10, 6), np.nan, np.float32)})
    )
    assert name == "pull_norm"
    assert values is trace.pull_norm

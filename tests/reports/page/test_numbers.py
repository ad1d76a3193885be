import numpy as np
import pytest

from vqtool.reports.page import numbers


def test_zeros_are_counted_apart_from_a_logarithmic_histogram():
    values = np.array([0.0, 0.0, 1e-3, 1e-2, np.nan])
    counts, zeros = numbers.log_histogram(values, numbers.edges_for(values, log=True))
    assert (counts.sum(), zeros) == (2, 2)


@pytest.mark.parametrize("log", [True, False])
@pytest.mark.parametrize("values", [[2.0], [0.0, 0.0], [1e-8, 5.0], [np.nan]])
def test_bin_edges_hold_every_value_that_they_can(values, log):
    edges = numbers.edges_for(np.array(values), log=log)
    assert (np.diff(edges) > 0).all()
    shown = [value for value in values if value > 0 or (value == 0 and not log)]
    assert all(edges[0] < value < edges[-1] for value in shown)


def test_quantile_bands_are_taken_over_the_chosen_codes_only():
    values = np.tile(np.arange(101, dtype=np.float32), (3, 2))
    low, median, high = numbers.quantile_bands(values, np.arange(202) < 101)
    assert (low[0], median[0], high[0]) == (5, 50, 95)
    assert np.isnan(numbers.quantile_bands(values, np.zeros(202, bool))).all()


def test_the_mean_over_records_leaves_out_those_without_a_value():
    values = np.array([[1.0, np.nan], [3.0, np.nan]], np.float32)
    np.testing.assert_array_equal(numbers.mean_in_time(values), [2.0, np.nan])

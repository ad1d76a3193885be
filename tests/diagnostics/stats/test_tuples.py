"""Tuples of codes are those of a loop, whatever their sizes, and nothing grows with the product of the layers."""

import tracemalloc
from collections import Counter

import numpy as np
import pytest

from vqtool.diagnostics import InputError, stats

SIZES = [(4,), (3, 5), (16, 16, 16), (1024,) * 8, (2**36, 7, 2**40), (1, 2, 1)]


def drawn(sizes, N=400, missing=0.1, seed=0):
    """Codes of few values, so that tuples repeat, some of them missing."""
    rng = np.random.default_rng(seed)
    values = [rng.integers(0, K, 3) for K in sizes]
    rows = np.stack([value[rng.integers(0, 3, N)] for value in values], 1)
    return np.where(rng.random(rows.shape) < missing, -1, rows)


def unpacked(tuples):
    layers = [tuples.layer(number) for number in range(len(tuples.codes))]
    return list(zip(*(layer.tolist() for layer in layers), strict=True))


@pytest.mark.parametrize("sizes", SIZES)
def test_distinct_tuples_and_how_often_they_came_are_those_of_a_loop(sizes):
    rows = drawn(sizes)
    tuples = stats.count_tuples(rows, sizes)
    counted = Counter(map(tuple, rows.tolist()))
    assert dict(zip(unpacked(tuples), tuples.counts.tolist(), strict=True)) == counted
    assert unpacked(tuples) == sorted(counted)


@pytest.mark.parametrize("sizes", SIZES)
def test_batches_merged_are_the_whole(sizes):
    rows = drawn(sizes)
    merged = stats.merge_tuples(stats.count_tuples(part, sizes) for part in np.split(rows, [0, 7, 230]))
    whole = stats.count_tuples(rows, sizes)
    np.testing.assert_array_equal(merged.words, whole.words)
    np.testing.assert_array_equal(merged.counts, whole.counts)


def test_hits_of_a_layer_are_over_all_items_that_have_a_code_there():
    rows = drawn((6, 9), missing=0.3)
    tuples = stats.count_tuples(rows, (6, 9))
    for layer, K in enumerate((6, 9)):
        there = rows[rows[:, layer] >= 0, layer]
        np.testing.assert_array_equal(tuples.hits(layer), np.bincount(there, minlength=K))


def test_collisions_are_those_of_a_loop_over_complete_items():
    rows = drawn((16, 16, 16), missing=0.2)
    complete = [row for row in map(tuple, rows.tolist()) if min(row) >= 0]
    counted = Counter(complete)
    found = stats.collisions(stats.count_tuples(rows, (16, 16, 16)))
    assert (found.tokens, found.incomplete) == (len(complete), 400 - len(complete))
    assert found.distinct == len(counted)
    assert found.largest == max(counted.values())
    assert found.rate == pytest.approx((len(complete) - len(counted)) / len(complete))
    assert found.shared == pytest.approx(sum(counted[row] > 1 for row in complete) / len(complete))


def test_two_items_of_ten_that_share_a_tuple_are_a_rate_of_one_tenth_and_a_share_of_two_tenths():
    rows = np.stack([np.arange(10), np.zeros(10, int)], 1)
    rows[9] = rows[8]
    found = stats.collisions(stats.count_tuples(rows, (10, 1)))
    assert (found.rate, found.shared, found.largest) == (pytest.approx(0.1), pytest.approx(0.2), 2)


def test_where_no_item_is_complete_no_rate_is_known():
    for rows in (np.zeros((0, 2), int), np.array([[1, -1], [-1, 0]])):
        found = stats.collisions(stats.count_tuples(rows, (2, 2)))
        assert found.tokens == found.distinct == found.largest == 0
        assert found.incomplete == len(rows)
        assert np.isnan(found.rate)
        assert np.isnan(found.shared)


def test_memory_grows_with_the_tuples_and_not_with_the_product_of_the_sizes():
    rows = drawn((2**30,) * 3, N=20_000)
    stats.collisions(stats.count_tuples([[0]], [1]))  # imports what it needs
    tracemalloc.start()
    tuples = stats.count_tuples(rows, (2**30,) * 3)
    stats.collisions(tuples)
    stats.conditional_entropies(tuples)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30 * rows.nbytes


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (np.zeros((3, 2)), "integers"),
        (np.zeros((3, 3), int), r"\(N, 2\)"),
        (np.zeros(3, int), r"\(N, 2\)"),
        (np.array([[0, 1], [0, 5]]), "layer 1 must be less than 5, and 5 is there"),
    ],
)
def test_what_are_no_tuples_of_codes_is_refused_in_one_line(rows, told):
    with pytest.raises(InputError, match=told) as error:
        stats.count_tuples(rows, (4, 5))
    assert "\n" not in str(error.value)

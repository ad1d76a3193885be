"""Statistics against slow loops and known distributions."""

import math

import numpy as np
import pytest

from vqtool.diagnostics import stats


def loop_entropy(hits):
    total = sum(hits)
    return -sum(n / total * math.log(n / total) for n in hits if n)


def loop_gini(hits):
    differences = sum(abs(a - b) for a in hits for b in hits)
    return differences / (2 * len(hits) * sum(hits))


@pytest.fixture
def hits():
    return np.random.default_rng(0).poisson(1.5, size=(5, 37))


def test_statistics_equal_the_loops_along_the_last_axis(hits):
    np.testing.assert_allclose(stats.entropy(hits), [loop_entropy(row) for row in hits.tolist()], rtol=1e-12)
    np.testing.assert_allclose(
        stats.perplexity(hits), [math.exp(loop_entropy(row)) for row in hits.tolist()], rtol=1e-12
    )
    np.testing.assert_allclose(stats.gini(hits), [loop_gini(row) for row in hits.tolist()], rtol=1e-12)
    assert stats.codes_used(hits).tolist() == [sum(n > 0 for n in row) for row in hits.tolist()]
    np.testing.assert_array_equal(stats.dead_codes(hits), hits == 0)


@pytest.mark.parametrize("K", [1, 2, 512])
def test_a_uniform_codebook_has_perplexity_k_and_gini_zero(K):
    hits = np.full(K, 7)
    assert stats.perplexity(hits) == pytest.approx(K)
    assert stats.gini(hits) == pytest.approx(0)


@pytest.mark.parametrize("K", [1, 2, 512])
def test_a_single_live_code_has_perplexity_one_and_the_largest_gini(K):
    hits = np.zeros(K, int)
    hits[K // 2] = 9
    assert stats.perplexity(hits) == pytest.approx(1)
    assert stats.gini(hits) == pytest.approx((K - 1) / K)


def test_half_a_dead_codebook_has_half_the_perplexity():
    assert stats.perplexity([3, 3, 3, 3, 0, 0, 0, 0]) == pytest.approx(4)


def test_the_perplexity_of_a_known_distribution_is_met_by_its_sample():
    p = 1 / np.arange(1, 101)
    p /= p.sum()
    hits = np.random.default_rng(1).multinomial(2_000_000, p)
    assert stats.perplexity(hits) == pytest.approx(math.exp(-(p * np.log(p)).sum()), rel=2e-3)


def test_two_disjoint_batches_add_up_before_the_perplexity_is_taken():
    first, second = np.array([4, 0]), np.array([0, 4])
    assert stats.perplexity(first + second) == pytest.approx(2)
    assert (stats.perplexity(first) + stats.perplexity(second)) / 2 == pytest.approx(1)


def test_without_tokens_there_is_no_perplexity():
    assert np.isnan(stats.perplexity([0, 0]))
    assert np.isnan(stats.gini([0, 0]))
    assert stats.codes_used([0, 0]) == 0
    assert stats.frequencies([0, 0]).tolist() == [0, 0]


def test_the_ceiling_is_what_uniform_draws_reach():
    rng = np.random.default_rng(2)
    reached = [len(np.unique(rng.integers(0, 256, 300))) for _ in range(2000)]
    assert stats.expected_codes_used(256, 300) == pytest.approx(np.mean(reached), abs=0.5)


def test_the_ceiling_of_a_65536_token_queue_at_16384_codes_is_98_percent():
    # LlamaGen reports 97.0 % usage over such a queue (FoundationVision/LlamaGen, issue 65).
    assert stats.expected_codes_used(16_384, 65_536) / 16_384 == pytest.approx(0.9817, abs=5e-5)


def test_total_variation_is_the_largest_difference_that_a_set_of_codes_has():
    a, b = np.array([5, 3, 0, 2]), np.array([1, 1, 1, 1])
    sets = [[bool(n >> k & 1) for k in range(4)] for n in range(16)]
    largest = max(a[chosen].sum() / 10 - b[chosen].sum() / 4 for chosen in sets)
    assert stats.total_variation(a, b) == pytest.approx(largest)


def test_total_variation_is_taken_along_the_last_axis_whatever_the_number_of_tokens(hits):
    np.testing.assert_allclose(stats.total_variation(hits, 3 * hits), np.zeros(5), atol=1e-12)
    pairs = list(zip(hits.tolist(), hits[::-1].tolist(), strict=True))
    loop = [sum(abs(x / sum(a) - y / sum(b)) for x, y in zip(a, b, strict=True)) / 2 for a, b in pairs]
    np.testing.assert_allclose(stats.total_variation(hits, hits[::-1]), loop, rtol=1e-12)
    assert stats.total_variation([1, 1, 0, 0], [0, 0, 7, 1]) == 1


def test_without_tokens_on_either_side_there_is_no_total_variation():
    assert np.isnan(stats.total_variation([0, 0], [1, 2]))
    np.testing.assert_array_equal(stats.total_variation([1, 2], [[0, 0], [1, 2]]), [np.nan, 0])

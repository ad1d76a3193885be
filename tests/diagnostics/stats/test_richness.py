"""Coverage and Chao1: definitions as loops, published values, known distributions."""

import numpy as np
import pytest

from vqtool.diagnostics import stats


@pytest.fixture
def hits():
    return np.random.default_rng(0).poisson(1.5, size=(5, 37))


def test_coverage_is_what_one_would_guess_of_each_token_left_out(hits):
    # Good-Turing is the share of tokens whose code would still be known without them.
    for row, found in zip(hits, stats.coverage(hits), strict=True):
        tokens = np.repeat(np.arange(len(row)), row)
        known = [tokens[i] in np.delete(tokens, i) for i in range(len(tokens))]
        assert found == pytest.approx(np.mean(known))


def test_coverage_is_the_probability_of_what_was_seen():
    rng = np.random.default_rng(1)
    p = 1 / np.arange(1, 1001)
    p /= p.sum()
    sampled = rng.multinomial(2000, p, size=200)
    seen = (p * (sampled > 0)).sum(1)
    assert stats.coverage(sampled).mean() == pytest.approx(seen.mean(), abs=0.002)


def test_chao1_is_its_formula(hits):
    for row, found in zip(hits.tolist(), stats.chao1(hits), strict=True):
        seen, once, twice, n = sum(x > 0 for x in row), row.count(1), row.count(2), sum(row)
        assert found == pytest.approx(min(seen + (n - 1) / n * once * (once - 1) / (2 * (twice + 1)), 37))
    assert stats.chao1([1, 1, 1, 1, 0]) == 5  # at most K


def test_chao1_is_the_number_of_codes_where_they_are_used_alike_and_less_where_some_are_rare():
    rng = np.random.default_rng(2)
    even, rare = np.full(4096, 1 / 4096), 1 / np.arange(1, 4097)
    assert stats.chao1(np.pad(rng.multinomial(4096, even, size=50), ((0, 0), (0, 4096)))).mean() == pytest.approx(
        4096, rel=0.01
    )
    assert stats.chao1(rng.multinomial(4096, rare / rare.sum(), size=50)).mean() < 3500


def test_without_tokens_there_is_no_coverage_and_no_code():
    np.testing.assert_array_equal(stats.coverage([[0, 0], [0, 3]]), [np.nan, 1])
    assert stats.chao1([0, 0]) == 0


def test_ten_tokens_per_code_are_covered_whatever_they_are():
    worst = np.ones(100, int)
    worst[0] = 10 * 100 - 99
    assert stats.coverage(worst) > stats.COVERAGE_LIMIT

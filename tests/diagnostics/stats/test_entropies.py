"""Corrected entropies against loops, published values and known distributions."""

import math

import numpy as np
import pytest

from vqtool.diagnostics import stats


def uniform(K):
    return np.full(K, 1 / K)


def zipf(K):
    return 1 / np.arange(1, K + 1) / (1 / np.arange(1, K + 1)).sum()


def loop_chao_shen(hits):
    n = sum(hits)
    once = min(hits.count(1), n - 1)
    share = [(1 - once / n) * x / n for x in hits if x]
    return -sum(p * math.log(p) / (1 - (1 - p) ** n) for p in share)


def loop_miller_madow(hits):
    n, seen = sum(hits), sum(x > 0 for x in hits)
    return -sum(x / n * math.log(x / n) for x in hits if x) + (seen - 1) / (2 * n)


def test_the_estimates_are_their_formulas():
    hits = np.random.default_rng(0).poisson(0.8, size=(6, 37))
    rows = hits.tolist()
    np.testing.assert_allclose(stats.chao_shen(hits).unclamped, [loop_chao_shen(row) for row in rows], rtol=1e-12)
    np.testing.assert_allclose(stats.miller_madow(hits).unclamped, [loop_miller_madow(row) for row in rows], rtol=1e-12)


@pytest.mark.parametrize(
    ("p", "tokens", "plug_in", "miller_madow", "chao_shen", "used", "chao1", "coverage"),
    [
        (uniform(512), 2048, 448, 506, 524, 503, 512, 0.98),
        (uniform(16_384), 2048, 1881, 3007, 16_496, 1924, 15_798, 0.12),
        (zipf(16_384), 65_536, 873, 941, 1092, 9890, 14_810, 0.93),
    ],
    ids=["uniform, 4 tokens a code", "uniform, 1/8", "zipf, 4"],
)
def test_few_tokens_pull_every_figure_its_own_way(p, tokens, plug_in, miller_madow, chao_shen, used, chao1, coverage):
    hits = np.random.default_rng(1).multinomial(tokens, p, size=60)
    assert stats.perplexity(hits).mean() == pytest.approx(plug_in, rel=0.01)
    assert np.exp(stats.miller_madow(hits).unclamped).mean() == pytest.approx(miller_madow, rel=0.01)
    assert np.exp(stats.chao_shen(hits).unclamped).mean() == pytest.approx(chao_shen, rel=0.03)
    assert stats.codes_used(hits).mean() == pytest.approx(used, rel=0.01)
    assert stats.chao1(hits).mean() == pytest.approx(chao1, rel=0.02)
    assert stats.coverage(hits).mean() == pytest.approx(coverage, abs=0.006)


def test_an_estimate_above_k_codes_is_clamped_and_says_so():
    even = stats.chao_shen([2, 1, 2, 1])
    assert even.nats == pytest.approx(math.log(4))
    assert even.unclamped > math.log(4)
    assert even.clamped
    assert not stats.chao_shen([9, 1, 0, 0]).clamped
    assert stats.miller_madow([5, 5]).perplexity == pytest.approx(2)


def test_the_correction_is_miller_madows_where_the_sample_is_covered_and_chao_shens_where_not():
    covered, sparse = [5, 9, 3, 2, 1], [1, 1, 1, 2, 0]
    assert stats.corrected_entropy([covered, sparse]).unclamped.tolist() == [
        stats.miller_madow(covered).unclamped,
        stats.chao_shen(sparse).unclamped,
    ]


def test_tokens_that_are_all_of_other_codes_and_no_tokens_at_all():
    assert np.isfinite(stats.chao_shen([1, 1, 1, 0]).nats)
    assert stats.chao_shen([1, 0]).nats >= 0
    for estimate in (stats.chao_shen, stats.miller_madow, stats.corrected_entropy):
        assert np.isnan(estimate([0, 0]).nats)
        assert estimate([7, 0]).nats == pytest.approx(0)

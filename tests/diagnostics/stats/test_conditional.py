"""Intervals hold the conditional entropies of known distributions, however few tokens there are and however alike."""

import math
from collections import Counter

import numpy as np
import pytest

from vqtool.diagnostics import stats
from vqtool.diagnostics.stats.conditional import PREDICTORS, _best_length, _Counts, _jackknife
from vqtool.diagnostics.stats.groups import GROUPS, deal

K = 32


def zipf():
    p = 1 / np.arange(1, K + 1)
    return p / p.sum()


def rows_of(p, rng):
    """(K, K) a permutation of ``p`` after each code."""
    return np.stack([rng.permutation(p) for _ in range(K)])


CASES = {
    "independent": lambda rng: (np.full(K, 1 / K), np.full((K, K), 1 / K)),
    "nested": lambda rng: (zipf(), rows_of(zipf(), rng)),
    "a function": lambda rng: (np.full(K, 1 / K), rows_of(np.eye(K)[0], rng)),
    "half of the codes": lambda rng: (zipf(), rows_of(np.repeat([2 / K, 0], K // 2), rng)),
    "four codes nine times of ten": lambda rng: (zipf(), rows_of(np.repeat([0.225, 0.1 / 28], [4, 28]), rng)),
}


def bits(p):
    return -sum(x * math.log2(x) for x in p if x > 0)


def draw(first, second, N, rng):
    """(N, 2) codes of two layers, the second after the first."""
    x = rng.choice(K, N, p=first)
    ends = second.cumsum(1)[x]
    return np.stack([x, (rng.random((N, 1)) * ends[:, -1:] > ends).sum(1)], 1)


def entropies(rows, groups=None, codes=None):
    groups = deal(len(rows)) if groups is None else groups
    return stats.conditional_entropies(stats.count_tuples(rows, codes or (K,) * rows.shape[1], groups))


@pytest.mark.parametrize("tokens", [30, 300, 3000])
@pytest.mark.parametrize("case", CASES)
def test_the_interval_holds_the_entropy_of_known_distributions(case, tokens):
    rng = np.random.default_rng(0)
    first, second = CASES[case](rng)
    truth = [bits(first), float(first @ [bits(row) for row in second])]
    held = np.zeros(2)
    for _ in range(60):
        found = entropies(draw(first, second, tokens, rng))
        held += [each.low - 1e-9 <= h <= each.high + 1e-9 for each, h in zip(found, truth, strict=True)]
    assert (held >= 54).all(), held


@pytest.mark.parametrize("tokens", [30, 300])
def test_the_interval_holds_where_tokens_of_an_image_are_copies_of_each_other(tokens):
    rng, T = np.random.default_rng(1), 16
    first, second = CASES["nested"](rng)
    truth = float(first @ [bits(row) for row in second])
    held = as_if_independent = 0
    for _ in range(60):
        rows = np.repeat(draw(first, second, tokens, rng), T, axis=0)
        found = entropies(rows, np.repeat(deal(tokens), T))[1]
        held += found.low <= truth <= found.high
        each_alone = entropies(rows)[1]
        as_if_independent += each_alone.low <= truth <= each_alone.high
    assert held >= 54
    assert as_if_independent <= 6  # what it is good for that images are the unit


@pytest.mark.parametrize("case", CASES)
def test_with_many_tokens_the_interval_is_narrow(case):
    rng = np.random.default_rng(2)
    first, second = CASES[case](rng)
    truth = float(first @ [bits(row) for row in second])
    found = entropies(draw(first, second, 100_000, rng))[1]
    assert found.high - found.low < 0.08
    assert found.plug_in <= truth + 0.01


def test_where_every_prefix_came_once_only_the_entropy_of_the_layer_alone_is_left():
    N, rng = 400, np.random.default_rng(3)
    rows = np.stack([np.arange(N), rng.integers(0, 4, N), np.zeros(N, int)], 1)
    _, second, third = entropies(rows, codes=(N, 16, 16))
    assert (second.plug_in, second.low, second.coverage, second.contexts) == (0, 0, 0, N)
    assert 2 < second.high < 2.4
    assert third.high < 0.3  # a layer that never changes tells nothing, whatever stands before it


def test_of_few_images_nothing_is_known_but_that_k_codes_hold_log2_k_bits():
    rows = np.random.default_rng(4).integers(0, K, (1000, 2))
    for found in entropies(rows, np.arange(1000) % 4):
        assert (found.low, found.high) == (0, 5)
        assert found.plug_in > 0


def test_of_images_that_are_not_told_apart_no_coverage_is_known():
    rows = np.random.default_rng(4).integers(0, K, (1000, 2))
    first, second = entropies(rows, 0)
    assert first.coverage == 1
    assert np.isnan(second.coverage)
    assert (second.low, second.high) == (0, 5)


def test_plug_in_tokens_and_coverage_are_those_of_a_loop_over_the_tokens_that_reach_the_layer():
    rng = np.random.default_rng(5)
    rows = rng.integers(0, 6, (500, 3)) // [1, 2, 1]
    rows[rng.random(500) < 0.3, 2] = -1
    rows[rng.random(500) < 0.2, 1] = -1  # one in the middle: the layer after it has no prefix either
    groups = rng.integers(0, GROUPS, 500)
    for layer, found in enumerate(entropies(rows, groups, (6, 3, 6))):
        reach = [
            (*row[: layer + 1], g) for row, g in zip(rows.tolist(), groups, strict=True) if min(row[: layer + 1]) >= 0
        ]
        whole, prefix = Counter(row[:-1] for row in reach), Counter(row[:-2] for row in reach)
        assert (found.tokens, found.contexts) == (len(reach), len(prefix))
        loop = bits([n / len(reach) for n in whole.values()]) - bits([n / len(reach) for n in prefix.values()])
        assert found.plug_in == pytest.approx(loop)
        seen = {p: {row[-1] for row in reach if row[:-2] == p} for p in prefix}
        elsewhere = sum(len(seen[row[:-2]]) > 1 for row in reach) if layer else len(reach)
        assert found.coverage == pytest.approx(elsewhere / len(reach))


def test_jackknife_and_code_length_are_those_of_a_loop_over_groups():
    rng = np.random.default_rng(6)
    rows, groups = draw(*CASES["nested"](rng), 200, rng), rng.integers(0, 6, 200)
    tuples = stats.count_tuples(rows, (K, K), groups)
    counts = _Counts(tuples, 1, tuples.runs(1))

    def plug_in(some):
        n, xy, x = len(some), Counter(map(tuple, some.tolist())), Counter(some[:, 0].tolist())
        return (bits([c / n for c in xy.values()]) - bits([c / n for c in x.values()])) * math.log(2)

    def likely(rest, x, y, discount, own):
        alone = (sum(rest[:, 1] == y) + 1) / (len(rest) + K)
        after = rest[rest[:, 0] == x, 1]
        here, kinds = sum(after == y), len(set(after.tolist()))
        return (max(here - discount, 0) + (discount * kinds + own) * alone) / (len(after) + own)

    whole, without = counts._plug_in()
    assert whole == pytest.approx(plug_in(rows))
    lengths = np.array([*counts._lengths()])
    for g in range(6):
        rest = rows[groups != g]
        assert without[g] == pytest.approx(plug_in(rest))
        for number, (discount, own) in enumerate(PREDICTORS):
            loop = -sum(math.log(likely(rest, x, y, discount, own)) for x, y in rows[groups == g].tolist())
            assert lengths[number, g] == pytest.approx(loop)
    sizes = np.bincount(groups, minlength=GROUPS)
    raised, _ = _jackknife(whole, without, counts.n_g)
    correction = sum((whole - without[g]) * (1 - sizes[g] / 200) for g in range(6))
    assert raised == pytest.approx(whole + 0.9 * correction)
    best = [min(range(len(lengths)), key=lambda p: lengths[p].sum() - lengths[p, g]) for g in range(6)]
    length, _ = _best_length(lengths, counts.n_g)
    assert length == pytest.approx(sum(lengths[best[g], g] for g in range(6)) / 200)


def test_a_predictor_gives_the_codes_that_may_follow_one_together():
    """What makes the upper end a bound: no code length is shorter than the entropy."""
    rng, codes = np.random.default_rng(7), (K, K)
    rest = draw(*CASES["nested"](rng), 100, rng)
    for x in (rest[0, 0], 31):
        total = np.zeros(len(PREDICTORS) + 1)
        for y in range(K):
            tuples = stats.count_tuples(np.vstack([rest, [x, y]]), codes, np.r_[np.zeros(100, int), 1])
            total += np.exp(-np.array([*_Counts(tuples, 1, tuples.runs(1))._lengths()])[:, 1])
        assert total == pytest.approx(1)


def test_a_layer_alone_is_told_over_all_its_tokens():
    rows = np.random.default_rng(8).integers(0, 6, (500, 2))
    rows[:200, 0] = -1
    first, second = stats.layer_entropies(stats.count_tuples(rows, (6, 6), deal(500)))
    assert (first.tokens, second.tokens) == (300, 500)
    assert (first.contexts, first.coverage) == (1, 1)
    assert second.plug_in == pytest.approx(float(stats.entropy(np.bincount(rows[:, 1]))) / math.log(2))
    assert second.low <= math.log2(6) <= second.high


def test_without_tokens_nothing_is_told():
    for found in entropies(-np.ones((3, 2), int)):
        assert np.isnan([found.plug_in, found.low, found.high, found.coverage]).all()
        assert found.tokens == found.contexts == 0

"""Survival, hazard and success rates against slow twins, known distributions and the worked example of SciPy."""

import math
import warnings
from itertools import pairwise
from statistics import NormalDist

import numpy as np
import pytest
from life_histories import kaplan_meier, nelson_aalen
from scipy.stats import binomtest

from vqtool.diagnostics import stats
from vqtool.diagnostics.stats import Durations


def lives(ages, ended=True):
    ages = np.asarray(ages)
    return Durations(ages, np.broadcast_to(ended, ages.shape))


NONE = lives(np.zeros(0, int))


def random_lives(seed):
    rng = np.random.default_rng(seed)
    n = rng.integers(1, 80)
    return Durations(5 * rng.integers(0, rng.integers(2, 30), n), rng.random(n) < rng.choice([0.0, 0.4, 0.9, 1.0]))


def followed(durations):
    return list(zip(durations.age.tolist(), durations.ended.tolist(), strict=True))


@pytest.mark.parametrize("seed", range(40))
def test_survival_is_the_product_formula_with_its_log_log_interval(seed):
    durations = random_lives(seed)
    curve, twin = stats.survival(durations), kaplan_meier(followed(durations))
    assert curve.age.tolist() == [age for age, _, _ in twin]
    np.testing.assert_allclose(curve.share, [share for _, share, _ in twin], rtol=0, atol=1e-12)
    z = NormalDist().inv_cdf(0.975)
    for low, high, (_, share, greenwood) in zip(curve.low, curve.high, twin, strict=True):
        if 1e-9 < share < 1 - 1e-9:
            factor = math.exp(z * math.sqrt(greenwood) / abs(math.log(share)))
            assert (low, high) == pytest.approx((share**factor, share ** (1 / factor)), rel=1e-9)
        else:
            assert math.isnan(low)
            assert math.isnan(high)


def test_the_fanbelts_of_the_textbook_survive_as_scipy_says():
    belts = Durations(np.array([77, 47, 81, 56, 80, 62, 60, 43, 71, 37]), np.arange(10) < 5)
    curve = stats.survival(belts)
    assert curve.age.tolist() == [37, 43, 47, 56, 60, 62, 71, 77, 80, 81]
    np.testing.assert_allclose(curve.share, [1, 1, 0.875, 0.75, 0.75, 0.75, 0.75, 0.5, 0.25, 0])
    assert curve.at_risk([0, 37, 38, 81, 82]).tolist() == [10, 10, 9, 1, 0]


def test_curves_are_drawn_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for durations in (NONE, lives([3]), lives([3], False), lives([0, 0]), random_lives(1)):
            stats.survival(durations)
            stats.alive_after(durations)
            stats.hazard(durations, [0, 5, 10])


def test_the_interval_holds_the_truth_in_95_percent_of_experiments():
    rng, held = np.random.default_rng(0), 0
    for _ in range(1000):
        life, seen = rng.exponential(300, 60), rng.uniform(50, 600, 60)
        (at,) = stats.alive_after(Durations(np.minimum(life, seen), life <= seen), [200])
        held += at.low <= math.exp(-200 / 300) <= at.high
    assert 925 <= held <= 980


def test_the_success_rate_says_how_many_lives_it_rests_on():
    durations = Durations(np.array([0, 50, 100, 100, 150, 400, 700]), np.array([1, 0, 1, 0, 1, 1, 0], bool))
    hundred, five, thousand = stats.alive_after(durations)
    assert (hundred.after, hundred.lives, hundred.censored) == (100, 7, 1)
    assert hundred.share == pytest.approx(6 / 7 * 4 / 5)
    assert (five.share, five.censored) == (pytest.approx(6 / 7 * 4 / 5 * 2 / 3 * 1 / 2), 2)
    assert five.low < five.share < five.high
    assert math.isnan(thousand.share)
    assert math.isnan(thousand.low)
    assert thousand.censored == 3


def test_a_life_that_ends_at_an_age_does_not_go_on_beyond_it():
    assert [at.share for at in stats.alive_after(lives([100, 300]), [99, 100, 101])] == [1, 0.5, 0.5]


def test_resets_that_are_overwritten_at_once_have_a_success_of_zero_after_any_number_of_steps():
    found = stats.alive_after(lives([0] * 40))
    assert [(at.share, at.low, at.lives, at.censored) for at in found] == [(0, 0, 40, 0)] * 3
    assert found[0].high == pytest.approx(binomtest(0, 40).proportion_ci().high)


def test_where_none_died_the_interval_still_has_a_lower_end():
    (at,) = stats.alive_after(lives([500] * 20, False), [100])
    assert (at.share, at.high) == (1, 1)
    assert at.low == pytest.approx(0.025 ** (1 / 20))


def test_no_lives_at_all_have_no_success_rate():
    (at,) = stats.alive_after(NONE, [100])
    assert (math.isnan(at.share), at.lives, at.censored) == (True, 0, 0)
    assert not len(stats.survival(NONE).age)


@pytest.mark.parametrize("seed", range(30))
def test_the_hazard_is_the_rise_of_the_nelson_aalen_estimate_over_each_bin(seed):
    durations, edges = random_lives(seed), [0, 10, 25, 60, 200]
    found, each = stats.hazard(durations, edges), followed(durations)
    for i, (low, high) in enumerate(pairwise(edges)):
        entered = sum(age > low or low == 0 for age, _ in each)
        assert found.at_risk[i] == entered
        assert found.deaths[i] == sum(ended and (low < age <= high or age == low == 0) for age, ended in each)
        rate = nelson_aalen(each, low, high) / (high - low) * 100
        assert found.rate[i] == pytest.approx(rate) if entered else math.isnan(found.rate[i])


def test_a_constant_hazard_is_found_at_every_age_whatever_is_censored():
    rng = np.random.default_rng(1)
    life, seen = rng.geometric(0.004, 100_000), rng.integers(1, 800, 100_000)
    found = stats.hazard(Durations(np.minimum(life, seen), life <= seen), [0, 100, 200, 400])
    np.testing.assert_allclose(found.rate, 0.4, rtol=0.05)
    assert (found.low < 0.4).all()
    assert (found.high > 0.4).all()


def test_the_interval_of_the_hazard_is_that_of_a_poisson_count():
    found = stats.hazard(Durations(np.array([50] * 4 + [100] * 1000), np.arange(1004) < 4), [0, 100])
    assert found.rate[0] == pytest.approx(4 / 1004)
    assert found.low[0] / found.rate[0] == pytest.approx(1.0899 / 4, rel=1e-4)  # Garwood 1936 for a count of 4
    assert found.high[0] / found.rate[0] == pytest.approx(10.2416 / 4, rel=1e-4)


def test_where_no_life_ended_the_hazard_is_zero_up_to_what_so_many_lives_could_hide():
    found = stats.hazard(lives([300] * 50, False), [0, 200, 400, 800])
    assert found.rate[:2].tolist() == [0, 0]
    assert found.high[0] == pytest.approx(3.6889 / 50 / 2, rel=1e-4)
    assert math.isnan(found.high[1])  # of the 50 none was followed through that bin
    assert np.isnan([found.rate[2], found.low[2], found.high[2]]).all()


def test_bins_of_age_double_up_to_the_oldest_life():
    assert stats.doubling_ages(lives([3, 45]), 10) == [0, 10, 20, 40, 80]
    assert stats.doubling_ages(lives([40]), 10) == [0, 10, 20, 40]
    assert stats.doubling_ages(NONE, 10) == [0, 10]


def test_pooled_lives_are_those_of_all_seeds():
    together = stats.pooled([lives([1, 2]), lives([3], False), NONE])
    assert followed(together) == [(1, True), (2, True), (3, False)]


def test_a_share_in_use_counts_those_that_began_too_late_as_censored():
    at = stats.in_use_after(np.array([True, False, True, True]), 100, 10)
    assert (at.after, at.share, at.lives, at.censored) == (100, 0.75, 10, 6)
    assert (at.low, at.high) == tuple(binomtest(3, 4).proportion_ci())
    none = stats.in_use_after(np.zeros(0, bool), 100, 10)
    assert (math.isnan(none.share), none.censored) == (True, 10)

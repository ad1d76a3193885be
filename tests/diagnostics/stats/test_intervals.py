"""Intervals over images: they hold the truth where it is known, and their parts are what they say."""

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import poisson

from vqtool.diagnostics import InputError, stats
from vqtool.diagnostics.stats.groups import GROUPS, ImageGroups, deal
from vqtool.diagnostics.stats.intervals import SAFE_CORRECTION, entropy_interval, support_interval

K, T = 512, 8
DISTRIBUTIONS = {
    "uniform": np.ones(K),
    "zipf": 1 / np.arange(1, K + 1),
    "half-dead": (np.arange(K) < K // 2).astype(float),
}


def drawn(p, images, rng, own=0.5, tokens=T):
    """Codes (images, tokens) of frequencies p; a share ``own`` of them comes from four codes of the image's own."""
    few = np.take_along_axis(rng.choice(len(p), (images, 4), p=p), rng.integers(0, 4, (images, tokens)), axis=1)
    return np.where(rng.random((images, tokens)) < own, few, rng.choice(len(p), (images, tokens), p=p))


@pytest.mark.parametrize("own", [0, 0.9])
@pytest.mark.parametrize("per_code", [1 / 8, 1, 4])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_both_intervals_hold_the_truth(name, per_code, own):
    # benchmarks/usage_coverage.py does the same at length
    p = DISTRIBUTIONS[name] / DISTRIBUTIONS[name].sum()
    nats, in_use = -(p[p > 0] * np.log(p[p > 0])).sum(), (p > 0).sum()
    rng, missed = np.random.default_rng(0), np.zeros(2)
    for trial in range(40):
        groups = ImageGroups.of_images(drawn(p, int(K * per_code / T), rng, own), K, seed=trial)
        for number, (interval, truth) in enumerate(
            ((entropy_interval(groups), nats), (support_interval(groups), in_use))
        ):
            missed[number] += not interval.low <= truth + 1e-9 or not truth - 1e-9 <= interval.high
    assert (missed <= 4).all()  # at 95 % held, more misses come about once in a hundred


def test_the_interval_narrows_around_the_truth_as_images_are_added():
    p = DISTRIBUTIONS["zipf"] / DISTRIBUTIONS["zipf"].sum()
    nats, rng = -(p * np.log(p)).sum(), np.random.default_rng(2)
    ends = [entropy_interval(ImageGroups.of_images(drawn(p, n, rng), K)) for n in (50, 400, 3200)]
    assert all(low <= nats <= high for low, high, _ in ends)
    widths = [high - low for low, high, _ in ends]
    assert all(later < 0.5 * earlier for earlier, later in pairwise(widths))
    assert ends[-1].bounded


def test_where_tokens_are_few_only_the_size_of_the_codebook_bounds_them():
    groups = ImageGroups.of_images(drawn(np.full(K, 1 / K), 8, np.random.default_rng(2), own=0), K)
    nats = entropy_interval(groups)
    assert (nats.high, nats.bounded) == (math.log(K), False)
    in_use = support_interval(groups)
    assert (in_use.high, in_use.bounded) == (K, False)


def test_a_token_that_its_image_repeats_tells_nothing_new():
    p = DISTRIBUTIONS["zipf"] / DISTRIBUTIONS["zipf"].sum()
    tokens = drawn(p, 100, np.random.default_rng(3))
    once, twice = (ImageGroups.of_images(np.repeat(tokens, times, axis=1), K) for times in (1, 2))
    assert entropy_interval(twice).low == pytest.approx(entropy_interval(once).low)
    assert entropy_interval(twice).high == pytest.approx(entropy_interval(once).high, abs=0.05)
    assert support_interval(twice) == support_interval(once)


def test_the_part_of_the_correction_that_is_added_never_exceeds_the_bias():
    # Poisson hits of one mean: the bias of the plug-in entropy beside what leaving out one group in 25 makes of it.
    def mean_of_xlnx(mean):
        x = np.arange(int(mean + 12 * mean**0.5 + 40))
        return (poisson.pmf(x, mean) * x * np.log(np.maximum(x, 1))).sum()

    kept = 1 - 1 / GROUPS
    shares = []
    for mean in np.geomspace(0.01, 100, 60):
        bias = mean_of_xlnx(mean) - mean * np.log(mean)
        without = mean_of_xlnx(mean * kept) / kept - mean * np.log(kept)
        correction = (GROUPS - 1) * (without - mean_of_xlnx(mean))
        shares.append(bias / correction)
    assert min(shares) >= SAFE_CORRECTION
    assert min(shares) < SAFE_CORRECTION + 0.01


def test_with_every_image_a_group_the_low_end_is_the_jackknife_as_a_loop():
    tokens = drawn(np.full(32, 1 / 32), 20, np.random.default_rng(4), tokens=8)
    groups = ImageGroups.of_images(tokens, 32)
    assert sorted(groups.sizes) == [0] * (GROUPS - 20) + [1] * 20

    def nats(some):
        return float(stats.entropy(np.bincount(some.ravel(), minlength=32)))

    whole, without = nats(tokens), [nats(np.delete(tokens, i, axis=0)) for i in range(20)]
    correction = 19 * (whole - np.mean(without))
    error = math.sqrt(19 / 20 * sum((one - np.mean(without)) ** 2 for one in without))
    assert entropy_interval(groups).low == pytest.approx(
        whole + SAFE_CORRECTION * correction - 2.0930 * error, abs=1e-4
    )


def test_groups_count_tokens_and_images_as_a_loop_does():
    tokens = drawn(np.full(16, 1 / 16), 70, np.random.default_rng(5), tokens=6)
    groups, dealt = ImageGroups.of_images(tokens, 16, seed=3), deal(70, 3)
    for group in range(GROUPS):
        own = tokens[dealt == group]
        assert groups.sizes[group] == len(own)
        assert groups.hits[group].tolist() == [(own == code).sum() for code in range(16)]
        assert groups.images[group].tolist() == [(own == code).any(1).sum() for code in range(16)]
    one_by_one = ImageGroups.empty(16)
    for image, group in zip(tokens, dealt, strict=True):
        one_by_one.add_unit(np.bincount(image, minlength=16), group)
    np.testing.assert_array_equal(one_by_one.hits, groups.hits)
    np.testing.assert_array_equal(one_by_one.images, groups.images)


def test_a_unit_without_tokens_is_none():
    groups = ImageGroups.empty(4)
    groups.add_unit(np.zeros(4, int), 0)
    assert groups.units == 0


def test_a_single_code_has_no_entropy_and_five_images_are_enough_to_say_so():
    groups = ImageGroups.of_images(np.zeros((5, 5), int), 8)
    assert entropy_interval(groups).low == pytest.approx(0)
    assert support_interval(groups) == (1, 8, False)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (np.zeros((3, 2)), r"codes of images must be integers \(images, T\), not float64 \(3, 2\)"),
        (np.zeros(3, int), r"not int64 \(3,\)"),
        (np.zeros((0, 4), int), r"not int64 \(0, 4\)"),
        (np.full((3, 2), 9), r"codes must lie in \[0, 8\), not in \[9, 9\]"),
        (np.full((3, 2), -1), r"not in \[-1, -1\]"),
    ],
)
def test_wrong_codes_are_told_in_one_line(tokens, message):
    with pytest.raises(InputError, match=message) as error:
        ImageGroups.of_images(tokens, 8)
    assert "\n" not in str(error.value)


def test_too_few_images_and_a_confidence_of_95_are_refused():
    few, enough = (ImageGroups.of_images(np.zeros((n, 3), int), 4) for n in (4, 5))
    for interval in (entropy_interval, support_interval):
        with pytest.raises(InputError, match="at least 5 of them, not 4"):
            interval(few)
        with pytest.raises(InputError, match="confidence 95 must be between 0 and 1"):
            interval(enough, confidence=95)

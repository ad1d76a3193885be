"""Total variation between two sets of images: its interval holds the truth where the truth is known."""

import numpy as np
import pytest

from vqtool.diagnostics import InputError, stats
from vqtool.diagnostics.stats.gap import total_variation_interval

K, T = 128, 32


def zipf(codes=K):
    p = 1 / (np.arange(codes) + 10)
    return p / p.sum()


def everywhere(p, distance):
    """Every code a little more or less frequent, in turns."""
    more = np.arange(len(p)) % 2 == 1
    return p + distance * (np.where(more, p / p[more].sum(), -p / p[~more].sum()))


def in_few_places(p, distance):
    """The most frequent codes give way to the rarest one."""
    lost = np.diff(np.minimum(np.cumsum(p), distance), prepend=0)
    q = np.maximum(p - lost, 0)
    q[-1] += distance
    return q


def images(p, count, rng, repeats=0.5, tokens=T):
    """Codes (count, tokens) of frequencies p; a share ``repeats`` of them comes from four codes of the image's own."""
    own = np.take_along_axis(rng.choice(len(p), (count, 4), p=p), rng.integers(0, 4, (count, tokens)), axis=1)
    return np.where(rng.random((count, tokens)) < repeats, own, rng.choice(len(p), (count, tokens), p=p))


@pytest.mark.parametrize(
    ("change", "distance"),
    [(everywhere, 0), (everywhere, 0.05), (everywhere, 0.2), (in_few_places, 0.05), (in_few_places, 0.2)],
)
@pytest.mark.parametrize(
    ("n", "repeats_a", "m", "repeats_b"),
    [(300, 0.5, 300, 0.5), (700, 0.2, 250, 0.8), (700, 0.8, 250, 0.2)],
    ids=["alike", "the smaller set repeats itself", "the larger set repeats itself"],
)
def test_the_interval_holds_the_truth(n, repeats_a, m, repeats_b, change, distance):
    rng = np.random.default_rng(0)
    p = zipf()
    q = change(p, distance)
    assert np.abs(p - q).sum() / 2 == pytest.approx(distance)
    missed = 0
    for _ in range(40):
        a, b = images(p, n, rng, repeats_a), images(q, m, rng, repeats_b)
        gap = total_variation_interval(a, b, K, resamples=20)
        missed += not gap.low <= distance <= gap.high
    assert missed <= 2


def test_the_interval_narrows_around_the_truth_as_images_are_added():
    rng = np.random.default_rng(1)
    p = zipf()
    widths = []
    for n in (200, 800, 3200):
        gap = total_variation_interval(images(p, n, rng), images(everywhere(p, 0.2), n, rng), K, resamples=20)
        assert gap.low <= 0.2 <= gap.high
        widths.append(gap.high - gap.low)
    assert widths[2] < 0.6 * widths[1] < 0.6 * 0.8 * widths[0]
    assert gap.low > 0.1


def test_equal_distributions_show_the_floor_and_an_interval_from_zero_to_below_it():
    rng = np.random.default_rng(2)
    p = zipf()
    gap = total_variation_interval(images(p, 500, rng), images(p, 500, rng), K)
    assert gap.estimate == pytest.approx(gap.floor, rel=0.15)
    assert gap.low == 0
    assert gap.high < 0.8 * gap.floor


def test_the_floor_is_what_two_samples_of_one_distribution_show_on_average():
    rng = np.random.default_rng(3)
    p = zipf()
    pairs = [(images(p, 300, rng), images(p, 150, rng)) for _ in range(60)]
    hits = [[np.bincount(tokens.ravel(), minlength=K) for tokens in pair] for pair in pairs]
    shown = [stats.total_variation(*pair) for pair in hits]
    floors = [total_variation_interval(a, b, K, resamples=20).floor for a, b in pairs]
    assert np.mean(floors) == pytest.approx(np.mean(shown), rel=0.02)


def test_images_are_resampled_not_tokens():
    rng = np.random.default_rng(4)
    p = zipf()
    alike = [images(p, 300, rng, repeats=1.0) for _ in range(2)]
    mixed = [rng.permuted(tokens.ravel()).reshape(tokens.shape) for tokens in alike]
    together, apart = (total_variation_interval(*pair, K, resamples=50) for pair in (alike, mixed))
    assert together.estimate == apart.estimate
    assert together.floor > 1.8 * apart.floor


def test_few_tokens_per_code_tell_little_and_the_interval_says_so():
    rng = np.random.default_rng(5)
    p = np.full(4096, 1 / 4096)
    q = everywhere(p, 0.48)
    gap = total_variation_interval(images(p, 300, rng), images(q, 300, rng), 4096, resamples=10)
    assert gap.floor > 0.3
    assert gap.low <= 0.48 <= gap.estimate <= gap.high


def test_the_ends_are_met_exactly():
    few = np.zeros((10, 4), int)
    assert total_variation_interval(few, few, 2) == (0, 0, 0, 0)
    apart = total_variation_interval(few, few + 1, 2)
    assert apart.estimate == apart.high == 1
    assert apart.low > 0.5


def test_a_seed_gives_the_same_interval_again():
    rng = np.random.default_rng(6)
    a, b = rng.integers(0, K, (2, 100, T))
    assert total_variation_interval(a, b, K, resamples=5) == total_variation_interval(a, b, K, resamples=5)
    assert total_variation_interval(a, b, K, resamples=5) != total_variation_interval(a, b, K, resamples=5, seed=1)


def test_more_confidence_is_a_wider_interval():
    rng = np.random.default_rng(7)
    a, b = images(zipf(), 500, rng), images(everywhere(zipf(), 0.3), 500, rng)
    narrow, wide = (total_variation_interval(a, b, K, confidence=c, resamples=20) for c in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize(
    ("a", "b", "settings", "message"),
    [
        (np.zeros((3, 2), int), np.full((3, 2), 9), {}, r"codes must lie in \[0, 8\), not in \[9, 9\]"),
        (np.zeros((3, 2), int), np.full((3, 2), -1), {}, r"not in \[-1, -1\]"),
        (np.zeros((3, 2)), np.zeros((3, 2), int), {}, "must be integers"),
        (np.zeros((1, 2), int), np.zeros((3, 2), int), {}, r"not int64 \(1, 2\)"),
        (np.zeros((3, 2), int), np.zeros((3, 5), int), {}, "images differ in size: 2 and 5 codes"),
        (np.zeros((3, 2), int), np.zeros((3, 2), int), {"confidence": 95}, "confidence 95 must be between 0 and 1"),
        (np.zeros((3, 2), int), np.zeros((3, 2), int), {"resamples": 0}, "resamples 0 at least 1"),
    ],
)
def test_wrong_input_is_told_in_one_line(a, b, settings, message):
    with pytest.raises(InputError, match=message) as error:
        total_variation_interval(a, b, 8, **settings)
    assert "\n" not in str(error.value)

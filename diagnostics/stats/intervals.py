"""Intervals over images for what is true of the distribution that codes come from, not of the sample alone.

Both ends start from inequalities that hold for every distribution and however tokens of one image depend on each other,
and are moved outwards by what images differ in: where tokens are few they are far apart. In 2,000 trials each, on
uniform, 1/rank and half-dead distributions with 1/8, 1 and 4 tokens per code, independent or up to 90 % repeated within
images, 95 % intervals held the truth in 97 to 100 %; ``docs/statistics.md`` has the table and the widths.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv, stdtrit

from ..errors import InputError
from .counts import entropy
from .groups import ImageGroups

#: Share of the jackknife's correction that never exceeds the bias of the plug-in entropy: for Poisson counts of one
#: mean, with a 25th left out, the bias is at least 0.903 of the correction (at a mean of 2.8 hits).
SAFE_CORRECTION = 0.9
#: Predictors of codes: the share of an image that is taken off each code, and the tokens that are added to each.
PREDICTORS = tuple((discount, added) for discount in (0, 0.25, 0.5, 0.75, 1) for added in (0.001, 0.1, 1, 10))


class Interval(NamedTuple):
    """An interval that holds the truth at least as often as its confidence says.

    Attributes:
        low: Lower end.
        high: Upper end.
        bounded: Whether the sample bounds it from above; if not, ``high`` is what K codes allow and no estimate.
    """

    low: float
    high: float
    bounded: bool


def entropy_interval(groups: ImageGroups, confidence: float = 0.95) -> Interval:
    """The entropy in nats of the distribution that the tokens come from.

    Lower end: the plug-in entropy is too low on average, by Jensen's inequality and for images of any kind. The
    delete-a-group jackknife over images (Busing, Meijer and van der Leeden 1999) estimates by how much; 0.9 of that is
    added. Upper end: by Gibbs' inequality no code length -mean ln q is shorter than the entropy on average when q was
    made from other images. Each group is coded by a q from all others, absolute discounting with uniform back-off; of
    ``PREDICTORS`` the one that codes the others' groups best. Each end then moves outwards by Student's quantile of its
    standard error over groups. The upper end is ln K where no predictor is better than even use.

    Raises:
        InputError: There are fewer than ``FEWEST`` images, or ``confidence`` is not between 0 and 1.
    """
    groups = groups.filled
    quantile = float(stdtrit(len(groups.sizes) - 1, _tail(confidence)))
    plug_in, jackknifed, error = _jackknife(groups)
    low = plug_in + SAFE_CORRECTION * (jackknifed - plug_in) - quantile * error
    length, margin = _code_length(groups)
    high, even = length + quantile * margin, math.log(groups.hits.shape[1])
    return Interval(max(0.0, low), min(high, even), high < even)


def support_interval(groups: ImageGroups, confidence: float = 0.95) -> Interval:
    """The number of codes that the distribution uses at all.

    Lower end: Chao's bound on the images that show a code instead of on tokens (Chao 1987, "Chao2"), with the exact
    Poisson limits of Garwood 1936 for the codes that one image and that two images show. Upper end: K, always; a code
    may be so rare that no sample shows it.

    Raises:
        InputError: There are fewer than ``FEWEST`` images, or ``confidence`` is not between 0 and 1.
    """
    groups = groups.filled
    shown, tail = groups.images.sum(0), _tail(confidence)
    once, twice = int((shown == 1).sum()), int((shown == 2).sum())
    fewest_once = gammaincinv(once, 1 - tail) if once else 0.0
    unseen = max(0.0, fewest_once * (fewest_once - 1)) / (2 * gammaincinv(twice + 1, tail))
    seen, codes = int((shown > 0).sum()), len(shown)
    return Interval(min(codes, math.floor(seen + (1 - 1 / groups.units) * unseen)), codes, False)


def _tail(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise InputError(f"confidence {confidence} must be between 0 and 1")
    return (1 + confidence) / 2


def _others(groups: ImageGroups) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """(K,) hits of each group, and hits and images of all others."""
    hits, images = groups.hits.sum(0), groups.images.sum(0)
    for own, shown in zip(groups.hits, groups.images, strict=True):
        yield own, hits - own, images - shown


def _jackknife(groups: ImageGroups) -> tuple[float, float, float]:
    """Plug-in entropy, its delete-a-group jackknife estimate, and the standard error of that."""
    whole = float(entropy(groups.hits.sum(0)))
    without = np.array([float(entropy(rest)) for _, rest, _ in _others(groups)])
    share = groups.sizes / groups.units
    jackknifed = len(share) * whole - ((1 - share) * without).sum()
    pseudo = whole / share - (1 / share - 1) * without
    return whole, jackknifed, math.sqrt(np.mean((pseudo - jackknifed) ** 2 / (1 / share - 1)))


def _code_length(groups: ImageGroups) -> tuple[float, float]:
    """Nats per token that groups take under predictors made from the others, and the standard error of that."""
    nats = np.array([_lengths(own, rest, images) for own, rest, images in _others(groups)]).T  # (predictors, G)
    best = (nats.sum(1, keepdims=True) - nats).argmin(0)  # for each group the one that does best on the others
    taken, tokens = nats[best, np.arange(len(best))], groups.hits.sum(1)
    length = taken.sum() / tokens.sum()
    spread = ((taken - length * tokens) ** 2).sum() * len(best) / (len(best) - 1)
    return float(length), math.sqrt(spread) / float(tokens.sum())


def _lengths(own: NDArray[np.int64], rest: NDArray[np.int64], images: NDArray[np.int64]) -> list[float]:
    """Nats that the tokens ``own`` (K,) take under each predictor made from the hits and images of the ``rest``."""
    here, codes, tokens = np.flatnonzero(own), len(own), rest.sum()
    per_image = rest / np.maximum(images, 1)
    lengths = []
    for discount, added in PREDICTORS:
        even = added + discount * per_image.sum() / codes
        likely = (rest[here] - discount * per_image[here] + even) / (tokens + added * codes)
        lengths.append(-float(own[here] @ np.log(likely)))
    return lengths

"""How long codes live: Kaplan-Meier survival, the share that is alive after so many steps, hazard by age.

All intervals take lives as independent. Lives of one code, or of codes that compete for the same latents, are not
quite: then the intervals are too short, and runs of other seeds say more.
"""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import CensoredData, binomtest, chi2, ecdf

#: Steps after which it is told what share of revived codes still lives.
AFTER = (100, 500, 1000)


class Durations(NamedTuple):
    """How long N lives were followed.

    Attributes:
        age: (N,) optimizer steps from the beginning of each to its end, or to where it was last known to go on.
        ended: (N,) whether it ended; the others are right-censored.
    """

    age: NDArray[np.integer]
    ended: NDArray[np.bool_]


def pooled(durations: Iterable[Durations]) -> Durations:
    """The lives of several codebooks or seeds together."""
    ages, ended = zip(*durations, strict=True)
    return Durations(np.concatenate(ages), np.concatenate(ended))


@dataclass(frozen=True)
class Survival:
    """The Kaplan-Meier estimate of the share of lives that go on beyond an age.

    Attributes:
        durations: The lives that it is of.
        age: (M,) the ages at which a life ended or was censored, rising.
        share: (M,) of lives that go on beyond each; before the first of them it is 1.
        low: (M,) lower end of the 95 % interval; NaN where ``share`` is 1 or 0, of which the formula says nothing.
        high: (M,) its upper end.
    """

    durations: Durations
    age: NDArray[np.int64]
    share: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    def at_risk(self, age: ArrayLike) -> NDArray[np.int64]:
        """How many lives were followed to ``age`` at least: the number at risk there."""
        return len(self.durations.age) - np.searchsorted(np.sort(self.durations.age), age)


def survival(durations: Durations, confidence: float = 0.95) -> Survival:
    """Survival of lives, some of which were still going on when last seen.

    Kaplan & Meier 1958 (J. Am. Stat. Assoc. 53:457), by ``scipy.stats.ecdf``, with the log-log interval ("exponential
    Greenwood", Kalbfleisch & Prentice 1980). Of no lives at all it has no ages.
    """
    if not len(durations.age):
        return Survival(durations, np.zeros(0, np.int64), *np.zeros((3, 0)))
    curve = ecdf(CensoredData(durations.age[durations.ended], right=durations.age[~durations.ended])).sf
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The confidence interval is undefined")  # it is NaN, as ``Survival`` says
        low, high = curve.confidence_interval(confidence, method="log-log")
    ends = (low.probabilities, high.probabilities)
    return Survival(durations, curve.quantiles.astype(np.int64), curve.probabilities, *ends)


class AliveAfter(NamedTuple):
    """What share of lives went on beyond an age, or of codes was in use at it.

    Attributes:
        after: The age in optimizer steps.
        share: The estimate; NaN where no life was followed so far and some might have gone on.
        low: Lower end of the 95 % interval.
        high: Its upper end.
        lives: Lives that were followed from their beginning.
        censored: How many of them were last seen before that age, still going on.
    """

    after: int
    share: float
    low: float
    high: float
    lives: int
    censored: int


def alive_after(durations: Durations, after: Sequence[int] = AFTER) -> list[AliveAfter]:
    """The share of lives that still go on after so many steps (Kaplan-Meier): of resets, the success of revivals.

    A life goes on without a break: a code that dies and comes back by itself counts as dead from its first death on.
    How many codes are in use, breaks or not, is told by ``in_use_after``.

    Where it is 0 or 1 and the formula of ``survival`` has no interval, that is the exact one of a binomial (Clopper &
    Pearson 1934) over the lives that were not censored before. A reset that is overwritten at the next step, so that
    the code gets no hit, is a life of 0: where all are, the share is 0 after any number of steps.
    """
    curve = survival(durations)
    return [_alive_after(curve, age) for age in after]


def _alive_after(curve: Survival, after: int) -> AliveAfter:
    lives = len(curve.durations.age)
    censored = int(((curve.durations.age < after) & ~curve.durations.ended).sum())
    place = int(np.searchsorted(curve.age, after, side="right")) - 1
    share, low, high = (1.0, np.nan, np.nan)
    if place >= 0:
        share, low, high = (float(values[place]) for values in (curve.share, curve.low, curve.high))
    if share > 0 and not curve.at_risk(after):
        share = low = high = np.nan
    elif share in (0, 1):
        whole = lives - censored
        low, high = binomtest(round(share * whole), whole).proportion_ci()
    return AliveAfter(int(after), share, low, high, lives, censored)


def in_use_after(in_use: NDArray[np.bool_], after: int, lives: int) -> AliveAfter:
    """The share of codes that are in use ``after`` steps after a life began, whether they had died meanwhile or not.

    Every life that began so long before the horizon is known to the end, so the share is a plain one, with the exact
    interval of a binomial (Clopper & Pearson 1934).

    Args:
        in_use: (N,) of the lives that began so long before the horizon, as ``LifeHistories.in_use`` says.
        after: Steps after the beginning.
        lives: Lives in all; what they are more than N began too late, and counts as censored.
    """
    if not len(in_use):
        return AliveAfter(after, np.nan, np.nan, np.nan, lives, lives)
    found = binomtest(int(in_use.sum()), len(in_use))
    low, high = found.proportion_ci()
    return AliveAfter(after, found.statistic, float(low), float(high), lives, lives - len(in_use))


class Hazard(NamedTuple):
    """How many lives end per code and 100 steps, by age. B bins: above one edge and up to the next, from 0 on with it.

    Attributes:
        edges: (B + 1,) ages between the bins, the first of them 0.
        at_risk: (B,) lives that were followed into each bin.
        deaths: (B,) lives that ended in it.
        rate: (B,) deaths per code and 100 steps: the rise of the Nelson-Aalen estimate (Aalen 1978, Ann. Stat. 6:701)
            over the bin. NaN where no life was followed into it.
        low: (B,) lower end of the 95 % interval, that of a Poisson count (Garwood 1936).
        high: (B,) its upper end; where no life ended, over the lives that were followed through the whole bin, and NaN
            where none was.
    """

    edges: NDArray[np.int64]
    at_risk: NDArray[np.int64]
    deaths: NDArray[np.int64]
    rate: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def hazard(durations: Durations, edges: Sequence[int]) -> Hazard:
    """The hazard of lives by age, in bins between ``edges`` (B + 1,), which begin with 0 and rise."""
    bounds, ages = np.asarray(edges, np.int64), np.sort(durations.age)
    age, deaths = np.unique(durations.age[durations.ended], return_counts=True)
    at_risk = len(ages) - np.searchsorted(ages, age)
    of_bin = np.searchsorted(bounds[1:], age)  # (low, high], and 0 in the first
    bins = len(bounds) - 1
    inside = of_bin < bins
    counts, rise = (
        np.bincount(of_bin[inside], values[inside], bins) for values in (deaths, deaths / np.maximum(at_risk, 1))
    )
    entered = len(ages) - np.searchsorted(ages, bounds[:-1], side="right")
    entered[:1] = len(ages)
    passed = len(ages) - np.searchsorted(ages, bounds[1:])
    hundreds = np.diff(bounds) / 100
    rate = np.where(entered > 0, rise / hundreds, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        one = np.where(counts > 0, rate / counts, 1 / (passed * hundreds))  # the rate that a single death stands for
    low = np.where(counts > 0, chi2.ppf(0.025, 2 * counts) / 2 * one, 0 * rate)
    high = np.where(np.isfinite(one), chi2.ppf(0.975, 2 * counts + 2) / 2 * one, np.nan)
    return Hazard(bounds, entered, counts.astype(np.int64), rate, low, high)


def doubling_ages(durations: Durations, first: int) -> list[int]:
    """Edges of bins of age that double in width: 0, ``first``, 2 ``first``, 4 ``first``, up to the oldest life."""
    edges, oldest = [0, first], durations.age.max(initial=0)
    while edges[-1] < oldest:
        edges.append(2 * edges[-1])
    return edges

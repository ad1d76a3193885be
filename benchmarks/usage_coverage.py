"""How often the intervals of ``stats.usage_of_images`` hold the truth, where the truth is known.

    python benchmarks/usage_coverage.py                 # 2,000 trials of each case, some minutes on all cores
    python benchmarks/usage_coverage.py --trials 50     # to see that it runs
    python benchmarks/usage_coverage.py --codes 512 --tokens 8

How to read it. A trial draws images from a distribution over K codes and asks for both 95 % intervals. Of its tokens a
share "own" comes out of four codes of the image's own, which are drawn from the same distribution: at 0 tokens are
independent. "held" is how often the interval held the truth, ends are means over the trials; "(K)": in so many trials
the upper end was not bounded by the sample. The last columns are what is done elsewhere: how often the percentile
bootstrap over images (100 resamples, a tenth of the trials) held the same truth. The claim comes last, met or not met;
the exit code is 0 either way.

Distributions:
    uniform     all codes alike
    zipf        code k in proportion to 1 / k
    half-dead   half of the codes have no probability, the others are alike
"""

import argparse
import itertools
import math
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from vqtool.diagnostics import stats

DISTRIBUTIONS = ("uniform", "zipf", "half-dead")
TOKENS_PER_CODE = (1 / 8, 1, 4)
OWN = (0, 0.5, 0.9)
HELD = 0.93
Interval = tuple[float, float]


def distribution(name: str, K: int) -> NDArray[np.float64]:
    weights = {
        "uniform": np.ones(K),
        "zipf": 1 / np.arange(1, K + 1),
        "half-dead": (np.arange(K) < K // 2).astype(float),
    }[name]
    return weights / weights.sum()


def draw(p: NDArray[np.float64], images: int, T: int, own: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """(images, T) codes; a share ``own`` of the tokens comes from four codes of the image's own."""
    fresh = rng.choice(len(p), (images, T), p=p)
    repeated = np.take_along_axis(rng.choice(len(p), (images, 4), p=p), rng.integers(0, 4, (images, T)), axis=1)
    return np.where(rng.random((images, T)) < own, repeated, fresh)


def percentiles(tokens: NDArray[np.int64], K: int, rng: np.random.Generator) -> tuple[Interval, Interval]:
    """Percentile bootstrap over images: codes used, perplexity."""
    n = len(tokens)
    hits = np.stack([np.bincount(tokens[rng.integers(0, n, n)].ravel(), minlength=K) for _ in range(100)])
    used, perplexity = (np.quantile(of(hits), (0.025, 0.975)) for of in (stats.codes_used, stats.perplexity))
    return (used[0], used[1]), (perplexity[0], perplexity[1])


def holds(interval: Interval, truth: float) -> bool:
    return interval[0] <= truth * (1 + 1e-9) and truth * (1 - 1e-9) <= interval[1]


def trials_of(p: NDArray[np.float64], images: int, T: int, own: float, trials: int) -> dict[str, float]:
    """Means over the trials of one case."""
    rng, K = np.random.default_rng(0), len(p)
    support, perplexity = int((p > 0).sum()), math.exp(-(p[p > 0] * np.log(p[p > 0])).sum())
    rows: list[dict[str, float]] = []
    for trial in range(trials):
        tokens = draw(p, images, T, own, rng)
        units = stats.usage_of_images(tokens, K, "", seed=trial).units
        assert units is not None
        assert units.in_use is not None
        assert units.perplexity is not None
        row = {
            "perplexity": perplexity,
            "perplexity_held": holds(units.perplexity[:2], perplexity),
            "perplexity_low": units.perplexity.low,
            "perplexity_high": units.perplexity.high,
            "open": not units.perplexity.bounded,
            "support": support,
            "support_held": holds(units.in_use[:2], support),
            "support_low": units.in_use.low,
            "plug_in": float(stats.perplexity(np.bincount(tokens.ravel(), minlength=K))),
        }
        if trial % 10 == 0:
            used, plug_in = percentiles(tokens, K, rng)
            row |= {"percentile_support": holds(used, support), "percentile_perplexity": holds(plug_in, perplexity)}
        rows.append(row)
    return {name: float(np.mean([row[name] for row in rows if name in row])) for name in rows[0]}


def table(K: int, T: int, trials: int) -> Iterator[dict[str, float]]:
    """The rows of all cases; prints each when it and those before it are done."""
    print(f"K = {K:,}, images of {T} tokens, {trials:,} trials of each case")
    print(
        "| distribution | own | tokens / K | images | perplexity | plug-in | 95 % interval | held "
        "| codes in use | at least | held | percentile bootstrap held: perplexity, codes in use |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    cases = [*itertools.product(OWN, DISTRIBUTIONS, TOKENS_PER_CODE)]
    counts = [round(K * per_code / T) for _, _, per_code in cases]
    distributions = [distribution(name, K) for _, name, _ in cases]
    with ProcessPoolExecutor() as pool:
        rows = pool.map(trials_of, distributions, counts, repeat(T), [own for own, _, _ in cases], repeat(trials))
        yield from map(tell, cases, counts, rows)


def tell(case: tuple[float, str, float], images: int, row: dict[str, float]) -> dict[str, float]:
    """Prints the line of a case."""
    own, name, per_code = case
    unbounded = f" ({row['open']:.0%} K)" if row["open"] else ""
    print(
        f"| {name} | {own:g} | {per_code:g} | {images} | {row['perplexity']:,.0f} | {row['plug_in']:,.0f} "
        f"| {row['perplexity_low']:,.0f} to {row['perplexity_high']:,.0f}{unbounded} "
        f"| {row['perplexity_held']:.1%} | {row['support']:,.0f} | {row['support_low']:,.0f} "
        f"| {row['support_held']:.1%} "
        f"| {row['percentile_perplexity']:.0%}, {row['percentile_support']:.0%} |",
        flush=True,
    )
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--codes", type=int, default=4096)
    parser.add_argument("--tokens", type=int, default=64, help="of an image")
    options = parser.parse_args()
    rows = [*table(options.codes, options.tokens, options.trials)]
    least = min(min(row["perplexity_held"], row["support_held"]) for row in rows)
    print(
        f"every interval holds the truth in at least {HELD:.0%}: {'met' if least >= HELD else 'not met'} ({least:.1%})"
    )


if __name__ == "__main__":
    main()

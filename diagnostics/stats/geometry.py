"""How latents and codes lie to each other, as pure functions on a sample of latents (n, D) and a codebook (K, D)."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.floating]
Metric = Literal["euclidean", "cosine", "dot product"]
METRICS: tuple[Metric, ...] = ("euclidean", "cosine", "dot product")


def spread(points: Points) -> float:
    """Root mean square distance from the mean."""
    return float(np.sqrt(np.square(points - points.mean(0)).sum(1).mean()))


def scale(latents: Points, codes: Points) -> float:
    """Median norm of the codes over the mean norm of the latents; far below 1: codes crowd at the origin."""
    return _ratio(float(np.median(np.linalg.norm(codes, axis=1))), float(np.linalg.norm(latents, axis=1).mean()))


def offset(latents: Points, codes: Points) -> float:
    """Distance between the means over the spread of the latents; above about 2 a few codes get all latents."""
    return _ratio(float(np.linalg.norm(latents.mean(0) - codes.mean(0))), spread(latents))


def effective_rank(points: Points) -> float:
    """Exp of the entropy of the normalised eigenvalues of the covariance, 1 to D (Roy and Vetterli 2007)."""
    values = np.square(np.linalg.svd(points - points.mean(0), compute_uv=False).astype(np.float64))
    total = values.sum()
    if total <= 0:
        return 0.0
    p = values[values > 0] / total
    return float(np.exp(-(p * np.log(p)).sum()))


def cover_number(latents: Points, radius: float = 0.3) -> int:
    """Balls of ``radius`` spreads, centred on latents, that cover the sample; greedy, in the order of the sample."""
    left, balls = np.asarray(latents, np.float32), 0
    reach = np.square(radius * spread(latents))
    while len(left):
        left = left[np.square(left - left[0]).sum(1) > reach]
        balls += 1
    return balls


def identical_share(latents: Points) -> float:
    """Share of the latents that are equal to another one, bit by bit."""
    _, counts = np.unique(latents, axis=0, return_counts=True)
    return float(counts[counts > 1].sum() / len(latents))


def duplicate_share(codes: Points, unit: float, tolerance: float = 1e-3, most: int = 1024) -> float:
    """Share of the codes that lie closer to another one than ``tolerance`` times ``unit``.

    Args:
        codes: (K, D).
        unit: The spread of the latents.
        tolerance: How close is the same.
        most: Codes, evenly spaced, whose neighbours are sought among all.
    """
    asked = np.unique(np.linspace(0, len(codes) - 1, min(most, len(codes))).astype(int))
    squares = squared_distances(codes[asked], codes)
    squares[np.arange(len(asked)), asked] = np.inf
    nearest = squares.argmin(1)
    # The expansion loses small distances: the one that counts is taken again.
    exact = np.square(codes[asked] - codes[nearest]).sum(1)
    return float((exact < np.square(tolerance * unit)).mean())


def squared_distances(latents: Points, codes: Points) -> Points:
    """(n, K) |z - e|^2 by expansion about the mean of the codes, which keeps the digits that an offset would take."""
    centre = codes.mean(0)
    z, e = latents - centre, codes - centre
    return np.maximum(np.square(z).sum(1)[:, None] - 2 * z @ e.T + np.square(e).sum(1), 0)


def costs(latents: Points, codes: Points, metric: Metric) -> Points:
    """(n, K) what an assignment by ``metric`` makes smallest."""
    if metric == "euclidean":
        return squared_distances(latents, codes)
    if metric == "cosine":
        latents, codes = _unit(latents), _unit(codes)
    return -latents @ codes.T


def nearest_share(latents: Points, codes: Points, indices: NDArray[np.integer], metric: Metric) -> float:
    """Share of the assignments (n,) that are nearest by ``metric``, in float64; ties are forgiven."""
    cost = costs(latents.astype(np.float64), codes.astype(np.float64), metric)
    return float((_taken(cost, indices) <= cost.min(1) + 1e-5 * np.abs(cost).mean()).mean())


def bfloat16_agreement(latents: Points, codes: Points, indices: NDArray[np.integer]) -> float:
    """Share of the assignments that the expansion of |z - e|^2 in bfloat16 would have made.

    Latents, codes and each of the three terms are rounded to bfloat16. A choice that is as near as the one that was
    made counts as the same.
    """
    z, e = to_bfloat16(latents), to_bfloat16(codes)
    terms = to_bfloat16(np.square(z).sum(1))[:, None], to_bfloat16(2 * z @ e.T), to_bfloat16(np.square(e).sum(1))
    choice = to_bfloat16(to_bfloat16(terms[0] - terms[1]) + terms[2]).argmin(1)
    chosen, made = (np.square(latents - codes[which].astype(np.float64)).sum(1) for which in (choice, indices))
    return float(((choice == indices) | np.isclose(chosen, made, rtol=1e-6, atol=0)).mean())


def to_bfloat16(values: Points) -> NDArray[np.float32]:
    """Float32 numbers rounded to the nearest of bfloat16, ties to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
    return rounded.view(np.float32)


def dead_reach(squares: Points, used: NDArray[np.bool_], error: float) -> float:
    """Median over unused codes of the distance to the nearest latent, in units of ``error``; NaN where all are used.

    Below 1 a dead code lies among the data and loses to its neighbours; far above 1 no latent comes near it.

    Args:
        squares: (n, K) |z - e|^2.
        used: (K,) codes with hits.
        error: Median distance of a latent to its own code.
    """
    if used.all():
        return float("nan")
    return _ratio(float(np.median(np.sqrt(squares[:, ~used].min(0)))), error)


def bias_share(latents: Points, assigned: Points, indices: NDArray[np.integer]) -> float:
    """Share of the mean |z - e|^2 that is the distance of the codes to the centroids of their latents.

    |z - e|^2 = |z - c|^2 + |c - e|^2 in the mean over a code's latents. The second part is corrected for what n
    latents scatter about their mean; codes with one latent tell nothing and are left out.
    """
    _, inverse, counts = np.unique(indices, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), latents.shape[1]))
    np.add.at(sums, inverse, latents)
    centroids = sums / counts[:, None]
    within = np.bincount(inverse, np.square(latents - centroids[inverse]).sum(1))
    error = np.bincount(inverse, np.square(latents - assigned).sum(1))
    several = counts > 1
    bias = (error - within)[several] - within[several] / (counts[several] - 1)
    return _ratio(float(bias.sum()), float(error[several].sum()))


def _taken(cost: Points, indices: NDArray[np.integer]) -> Points:
    return np.take_along_axis(cost, np.asarray(indices)[:, None], 1)[:, 0]


def _unit(points: Points) -> Points:
    return points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)


def _ratio(a: float, b: float) -> float:
    return a / b if b > 0 else float("nan")

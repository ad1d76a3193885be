"""Regressions through the origin that several checks share."""

from typing import Any

import numpy as np

from ..evidence import Seen


def slope(x: Any, y: Any) -> tuple[float, float]:
    """Slope and R2 of y regressed on x, any shape alike; NaN where either is zero or not finite."""
    x, y = np.asarray(x, np.float64).ravel(), np.asarray(y, np.float64).ravel()
    xx, yy, xy = x @ x, y @ y, x @ y
    if not (np.isfinite([xx, yy, xy]).all() and xx > 0 and yy > 0):
        return float("nan"), float("nan")
    return float(xy / xx), float(xy * xy / (xx * yy))


def codebook_pull(seen: Seen) -> tuple[float, float]:
    """Weight w of w mean |sg[z] - e|^2 that the first step's gradient of the codes is, and the R2 of that fit.

    The gradient of such a loss is 2 w / (N D) sum (e - z) over the latents of a code (van den Oord et al. 2017,
    arXiv:1711.00937, eq. 3). NaN where the codes have no gradient of their own.
    """
    first = seen.steps[0]
    gradient = seen.gradients[first.step - 1]
    if gradient is None:
        return float("nan"), float("nan")
    counted = first.counted
    pull = np.zeros(gradient.shape, np.float64)
    np.add.at(pull, first.indices[counted], (first.codes - first.latents)[counted].astype(np.float64))
    fitted, r2 = slope(pull, gradient)
    return fitted * counted.sum() * gradient.shape[1] / 2, r2


def attraction(seen: Seen) -> tuple[float, float]:
    """Slope and R2 of a step's movement of used codes on the way to the centroids of their latents, by hits."""
    step = next((step for step in seen.steps if step.step > 1), None)  # the first may have made the codebook
    if step is None or len(seen.tables) <= step.step:
        return float("nan"), float("nan")
    before, after = seen.tables[step.step - 1], seen.tables[step.step]
    indices, latents = step.indices[step.counted], step.latents[step.counted]
    hits = np.bincount(indices, minlength=len(before))
    sums = np.zeros(before.shape, np.float64)
    np.add.at(sums, indices, latents)
    used = hits > 0
    root = np.sqrt(hits[used])[:, None]
    way = sums[used] / hits[used][:, None] - before[used]
    return slope(root * way, root * (after - before)[used])

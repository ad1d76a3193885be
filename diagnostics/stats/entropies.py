"""Entropy of code usage with a correction for few tokens; on counts of shape (..., K), in nats.

The plug-in entropy (``stats.entropy``) is too low on average. K codes cannot have more than ln K: an estimate above it
is clamped, and says so.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .counts import codes_used, entropy, frequencies
from .richness import COVERAGE_LIMIT, coverage


class EntropyEstimate(NamedTuple):
    """An estimate of the entropy of the distribution that tokens come from.

    Attributes:
        nats: (...) the estimate, at most ln K; NaN where there were no tokens.
        unclamped: (...) the same as its formula has it.
    """

    nats: NDArray[np.float64]
    unclamped: NDArray[np.float64]

    @property
    def clamped(self) -> NDArray[np.bool_]:
        """(...) whether the formula gave more than K codes can have."""
        return self.unclamped > self.nats

    @property
    def perplexity(self) -> NDArray[np.float64]:
        """(...) exp of the estimate, in codes."""
        return np.exp(self.nats)


def miller_madow(hits: ArrayLike) -> EntropyEstimate:
    """The plug-in entropy plus (S - 1) / (2 N), S codes seen by N tokens (Miller 1955): its first-order bias.

    Still too low where many codes were not seen.
    """
    hits = np.asarray(hits)
    tokens = hits.sum(-1)
    missed = np.divide(codes_used(hits) - 1, 2 * tokens, out=np.full(np.shape(tokens), np.nan), where=tokens > 0)
    return _at_most_even(entropy(hits) + missed, hits.shape[-1])


def chao_shen(hits: ArrayLike) -> EntropyEstimate:
    """-sum_k C p_k ln(C p_k) / (1 - (1 - C p_k)^N) over the codes seen, with C their coverage.

    Chao and Shen 2003, eq. 12: shares are scaled to what all seen codes have together, and each code stands for those
    like it that were not seen. Where every token was of another code, f1 = N - 1 is taken for a C above zero, as the R
    package ``entropy`` does. Seldom too low, often too high where codes are used alike.
    """
    hits = np.asarray(hits)
    tokens = hits.sum(-1, keepdims=True)
    share = np.maximum(coverage(hits)[..., None], 1 / np.maximum(tokens, 1)) * frequencies(hits)
    safe = np.where(hits > 0, share, 0.5)
    found = -np.expm1(tokens * np.log1p(-np.minimum(safe, 1 - 1e-16)))
    terms = np.where(hits > 0, -safe * np.log(safe) / np.where(found > 0, found, 1), 0)
    return _at_most_even(np.where(tokens[..., 0] > 0, terms.sum(-1), np.nan), hits.shape[-1])


def corrected_entropy(hits: ArrayLike) -> EntropyEstimate:
    """``miller_madow`` where ``coverage`` reaches ``COVERAGE_LIMIT``, ``chao_shen`` below: each where it does best."""
    covered = coverage(hits) >= COVERAGE_LIMIT
    both = zip(miller_madow(hits), chao_shen(hits), strict=True)
    return EntropyEstimate(*(np.where(covered, full, sparse) for full, sparse in both))


def _at_most_even(estimate: NDArray[np.float64], codes: int) -> EntropyEstimate:
    return EntropyEstimate(np.minimum(estimate, np.log(codes)), estimate)

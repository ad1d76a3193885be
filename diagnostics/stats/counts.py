"""Statistics of code usage as pure functions on counts of shape (..., K).

They say nothing about the window the counts were taken over: a name that is shown to people adds it
(``perplexity_window``, ``perplexity_split``), because the same function over another window is another number.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Tokens per code below which "no hit" may be bad luck: with 8, even use leaves a code out with exp(-8) = 0.03 %.
TOKENS_PER_CODE = 8


def frequencies(hits: ArrayLike) -> NDArray[np.float64]:
    """Share of the tokens that each code got, (..., K); all zero where there were no tokens."""
    hits = np.asarray(hits, np.float64)
    total = hits.sum(-1, keepdims=True)
    return np.divide(hits, total, out=np.zeros_like(hits), where=total > 0)


def codes_used(hits: ArrayLike) -> NDArray[np.int64]:
    """Number of codes with at least one hit, (...)."""
    return np.count_nonzero(np.asarray(hits), axis=-1)


def dead_codes(hits: ArrayLike) -> NDArray[np.bool_]:
    """Codes without a single hit, (..., K)."""
    return np.asarray(hits) == 0


def entropy(hits: ArrayLike) -> NDArray[np.float64]:
    """Plug-in Shannon entropy of code usage in nats, (...): -sum_k p_k ln p_k (Shannon 1948), with 0 ln 0 = 0.

    It underestimates the true entropy when tokens are few for the number of codes.
    """
    p = frequencies(hits)
    return -np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=-1)


def perplexity(hits: ArrayLike) -> NDArray[np.float64]:
    """Perplexity exp(H(p)) of code usage, (...): the number of equally used codes with the same entropy; 1 to K.

    The quantity that VQ-VAE implementations log (van den Oord et al. 2017, arXiv:1711.00937), without their 1e-10.
    NaN where there were no tokens.
    """
    hits = np.asarray(hits)
    return np.where(hits.sum(-1) > 0, np.exp(entropy(hits)), np.nan)


def gini(hits: ArrayLike) -> NDArray[np.float64]:
    """Gini coefficient of the hits, (...): 0 when all codes are used alike, (K - 1) / K when one code has every hit.

    Gini 1912, through the sorted form G = sum_i (2 i - K - 1) x_(i) / (K sum x). NaN where there were no tokens.
    """
    x = np.sort(np.asarray(hits, np.float64), axis=-1)
    K = x.shape[-1]
    total = x.sum(-1)
    rank = 2 * np.arange(1, K + 1) - K - 1
    return np.divide((rank * x).sum(-1), K * total, out=np.full(np.shape(total), np.nan), where=total > 0)


def expected_codes_used(K: int, tokens: int) -> float:
    """Codes that ``tokens`` draws from a perfectly uniform codebook hit on average: K (1 - (1 - 1/K)^tokens).

    The ceiling of ``codes_used`` in a window: no codebook does better than this but by luck.
    """
    return K * -np.expm1(tokens * np.log1p(-1.0 / K)) if K > 1 else float(tokens > 0)


def total_variation(hits_a: ArrayLike, hits_b: ArrayLike) -> NDArray[np.float64]:
    """Total variation between the code frequencies of two sets of tokens, (...): 1/2 sum_k |p_k - q_k|, in [0, 1].

    The largest difference in probability that any set of codes has. Of two finite samples it is larger than zero even
    where their distributions are the same. NaN where either has no tokens.
    """
    a, b = np.asarray(hits_a), np.asarray(hits_b)
    distance = np.abs(frequencies(a) - frequencies(b)).sum(-1) / 2
    return np.where((a.sum(-1) > 0) & (b.sum(-1) > 0), distance, np.nan)

"""How much of a codebook's use a sample has seen, and how many codes there are beyond it; on counts of shape (..., K).

Both rest on the codes that were seen once or twice: where they are many, there are more that were not seen at all.
Tokens are taken as independent draws. Those of one image are not: they repeat themselves, which makes codes that were
seen once rarer and so the sample look more complete than it is.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Coverage below which usage is not judged: more than a tenth of the tokens to come would be of codes not seen yet.
COVERAGE_LIMIT = 0.9


def coverage(hits: ArrayLike) -> NDArray[np.float64]:
    """Sample coverage, (...): the share of all use that falls on codes which have been seen, 1 - f1 / N.

    f1 codes were hit once by the N tokens (Good 1953, who credits Turing). The form of Chao and Jost (2012, eq. 4a),
    1 - f1 / N (N - 1) f1 / ((N - 1) f1 + 2 f2), differs from it by about 2 f2 / N^2. NaN where there were no tokens.
    """
    hits = np.asarray(hits)
    tokens, once = hits.sum(-1), np.count_nonzero(hits == 1, axis=-1)
    return 1 - np.divide(once, tokens, out=np.full(np.shape(tokens), np.nan), where=tokens > 0)


def chao1(hits: ArrayLike) -> NDArray[np.float64]:
    """Lower bound of the number of codes with positive probability, (...), at most K.

    S + (N - 1) / N f1 (f1 - 1) / (2 (f2 + 1)), where S codes were seen, f1 once and f2 twice: Chao 1984 in its
    bias-corrected form. Where codes are used alike it estimates their number; where some are rare, there are more.
    """
    hits = np.asarray(hits)
    tokens = np.maximum(hits.sum(-1), 1)
    once, twice = np.count_nonzero(hits == 1, axis=-1), np.count_nonzero(hits == 2, axis=-1)
    seen = np.count_nonzero(hits, axis=-1)
    return np.minimum(seen + (tokens - 1) / tokens * once * (once - 1) / (2 * (twice + 1)), hits.shape[-1])

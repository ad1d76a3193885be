"""What the code of a layer tells beyond those of the layers before it: conditional entropies, with honest bounds.

Where tokens are few for so many prefixes the plug-in conditional entropy falls to zero, whatever the truth is, and a
correction of it has nothing to go by. So an interval is told, which is wide where little is known.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit, xlogy

from .groups import FEWEST, GROUPS
from .intervals import SAFE_CORRECTION
from .tuples import Tuples

#: Predictors of codes: what is taken off the count of each code after its prefix, and how many tokens the layer's own
#: frequencies count beside those of the prefix.
PREDICTORS = tuple((discount, own) for discount in (0, 0.5, 0.9) for own in (0.03, 1, 30, 1000))
_QUANTILE = 0.975

Floats = NDArray[np.float64]


class ConditionalEntropy(NamedTuple):
    """The entropy of a layer's code given a context, in bits, as far as tokens tell.

    Attributes:
        plug_in: Of the frequencies; too small on average, and zero where every context came once.
        low: Lower end of a 95 % interval over images; 0 where there are fewer than ``FEWEST`` of them.
        high: Its upper end; log2 K where nothing better is known.
        tokens: Tokens that these are over.
        contexts: Distinct contexts that they came in: prefixes, or 1 without a context.
        coverage: Share of the tokens whose context came in another group of images too; 1 without a context, NaN where
            there is one group.
    """

    plug_in: float
    low: float
    high: float
    tokens: int
    contexts: int
    coverage: float


def conditional_entropies(tuples: Tuples) -> list[ConditionalEntropy]:
    """H(i_l | i_0, ..., i_(l-1)) of each layer l; its contexts are the codes in the layers before.

    The tokens of a layer are those with a code in it and in each layer before it. Images are what is left out, never
    single tokens, in the groups of ``tuples``:

    Lower end: the plug-in conditional entropy is too low on average, for it is concave in the frequencies. By 0.9 of
    how much the delete-a-group jackknife says, it is raised, as in ``entropy_interval``.

    Upper end: by Gibbs' inequality no code length -mean ln q(i_l | i_<l) is shorter than the conditional entropy on
    average when q was made from other images. Each group is coded by a q from all others, absolute discounting (Ney,
    Essen and Kneser 1994) that backs off to the layer's own frequencies; of ``PREDICTORS`` the one that does best on
    the others' groups. It is never more than log2 K.

    Each end then moves outwards by Student's quantile of its standard error over groups. Where every prefix came once,
    the interval goes from 0 to the entropy of the layer alone: more cannot be known.
    """
    found = []
    for layer in range(len(tuples.codes)):
        tuples = tuples.having(layer)
        found.append(_Counts(tuples, layer, tuples.runs(layer)).entropy())
    return found


def layer_entropies(tuples: Tuples) -> list[ConditionalEntropy]:
    """H(i_l) of each layer alone: as ``conditional_entropies``, without contexts and over all tokens of the layer."""
    there = [tuples.having(layer) for layer in range(len(tuples.codes))]
    return [_Counts(each, layer, np.zeros(len(each.counts), np.intp)).entropy() for layer, each in enumerate(there)]


class _Counts:
    """Tokens n_xyg of code y after context x in group g of images, and their sums; only those that are not zero.

    Each array is over the triples (x, y, g), the pairs (x, y) and (x, g), or the contexts x that came.

    Args:
        tuples: All of them with a code in the layer.
        layer: Whose codes are y.
        contexts: (M,) number of the context of each tuple, from 0.
    """

    def __init__(self, tuples: Tuples, layer: int, contexts: NDArray[np.intp]):
        self.K, self.tokens = tuples.codes[layer], int(tuples.counts.sum())
        code, y = _numbered(tuples.layer(layer))
        pair, pairs = _numbered(contexts * len(y) + code)
        triple, triples = _numbered(pair * GROUPS + tuples.group)
        self.n_xyg = _total(triple, tuples.counts)
        self.xy, self.g = triples // GROUPS, triples % GROUPS
        self.x, self.y = pairs[self.xy] // max(1, len(y)), pairs[self.xy] % max(1, len(y))
        self.xg, x_and_g = _numbered(self.x * GROUPS + self.g)
        self.x_of_xg, self.g_of_xg = x_and_g // GROUPS, x_and_g % GROUPS
        self.n_xy, self.n_xg = _total(self.xy, self.n_xyg), _total(self.xg, self.n_xyg)
        self.n_x, self.n_g = _total(self.x, self.n_xyg), _total(self.g, self.n_xyg, GROUPS)
        self.codes_after = np.bincount(pairs // max(1, len(y)))

    def entropy(self) -> ConditionalEntropy:
        """Of y given x."""
        if not self.tokens:
            return ConditionalEntropy(math.nan, math.nan, math.nan, 0, 0, math.nan)
        plug_in, without = self._plug_in()
        low, high, groups = 0.0, math.log(self.K), int((self.n_g > 0).sum())
        if groups >= FEWEST:
            quantile = float(stdtrit(groups - 1, _QUANTILE))
            raised, error = _jackknife(plug_in, without, self.n_g)
            low = min(max(low, raised - quantile * error), high)
            length, error = _best_length(np.array([*self._lengths()]), self.n_g)
            high = max(low, min(high, length + quantile * error))
        elsewhere = float(self.n_xg[self.n_x[self.x_of_xg] > self.n_xg].sum()) / self.tokens
        covered = 1.0 if len(self.n_x) == 1 else elsewhere if groups > 1 else math.nan
        bit = math.log(2)
        return ConditionalEntropy(plug_in / bit, low / bit, high / bit, self.tokens, len(self.n_x), covered)

    def _plug_in(self) -> tuple[float, Floats]:
        """In nats: of all groups, and (G,) without each."""
        whole = float(xlogy(self.n_x, self.n_x).sum() - xlogy(self.n_xy, self.n_xy).sum())
        off_x = _total(self.g_of_xg, _fall(self.n_x[self.x_of_xg], self.n_xg), GROUPS)
        off_xy = _total(self.g, _fall(self.n_xy[self.xy], self.n_xyg), GROUPS)
        return max(0.0, whole / self.tokens), (whole - off_x + off_xy) / np.maximum(self.tokens - self.n_g, 1)

    def _lengths(self) -> Iterator[Floats]:
        """(G,) nats that the tokens of each group take under each predictor made from the other groups."""
        rest_xy, rest_x = self.n_xy[self.xy] - self.n_xyg, (self.n_x[self.x_of_xg] - self.n_xg)[self.xg]
        only_here = np.bincount(self.xg, rest_xy == 0)
        rest_codes = (self.codes_after[self.x_of_xg] - only_here)[self.xg]
        alone = self._alone()
        for discount, own in PREDICTORS:
            backed_off = (discount * rest_codes + own) * alone
            likely = (rest_xy - np.minimum(discount, rest_xy) + backed_off) / (rest_x + own)
            yield _total(self.g, -self.n_xyg * np.log(likely), GROUPS)
        yield _total(self.g, -self.n_xyg * np.log(alone), GROUPS)

    def _alone(self) -> Floats:
        """The share of each triple's code among the tokens of other groups, with one token added to every code."""
        yg, y_and_g = _numbered(self.y * GROUPS + self.g)
        y, g = y_and_g // GROUPS, y_and_g % GROUPS
        rest_y = _total(self.y, self.n_xyg)[y] - _total(yg, self.n_xyg)
        return ((rest_y + 1) / (self.tokens - self.n_g[g] + self.K))[yg]


def _numbered(keys: NDArray[np.integer]) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """The number of each key among the distinct ones, and these."""
    distinct, number = np.unique(keys, return_inverse=True)
    return number, distinct.astype(np.int64)


def _total(where: NDArray[np.integer], amounts: ArrayLike, size: int = 0) -> Floats:
    """Amounts added up by the number that each has."""
    return np.asarray(np.bincount(where, amounts, size), np.float64)


def _fall(whole: Floats, part: Floats) -> Floats:
    """N ln n less what is left of it without a part."""
    return xlogy(whole, whole) - xlogy(whole - part, whole - part)


def _jackknife(whole: float, without: Floats, sizes: Floats) -> tuple[float, float]:
    """The estimate ``whole`` raised by the safe part of its delete-a-group correction, and the standard error."""
    some = sizes > 0
    without, share = without[some], sizes[some] / sizes.sum()
    jackknifed = len(share) * whole - ((1 - share) * without).sum()
    pseudo = whole / share - (1 / share - 1) * without
    error = math.sqrt(np.mean((pseudo - jackknifed) ** 2 / (1 / share - 1)))
    return whole + SAFE_CORRECTION * (jackknifed - whole), error


def _best_length(nats: Floats, sizes: Floats) -> tuple[float, float]:
    """Nats per token under predictors (P, G), each group by the one that does best on the others, and its error."""
    some = sizes > 0
    nats, tokens = nats[:, some], sizes[some]
    best = (nats.sum(1, keepdims=True) - nats).argmin(0)
    taken = nats[best, np.arange(len(best))]
    length = taken.sum() / tokens.sum()
    spread = ((taken - length * tokens) ** 2).sum() * len(best) / (len(best) - 1)
    return float(length), math.sqrt(spread) / float(tokens.sum())

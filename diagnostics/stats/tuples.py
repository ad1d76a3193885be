"""Tuples of codes, one code of each layer of a residual or grouped quantizer: which came, how often, which collide.

A code -1 stands for none: a dropped layer, or padding. Distinct tuples are packed into as few 64-bit words as they
take, so that memory grows with them and never with the product of the layers' sizes.
"""

import functools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError
from .groups import GROUPS


class Tuples(NamedTuple):
    """The distinct tuples among some tokens, each by the group of images that it came in.

    They are sorted by their code in the first layer, then by that in the second, and so on, at last by group.

    Attributes:
        codes: K of each of the Q layers.
        words: (W, M) uint64, the M tuples: layers and group side by side, the first in the highest bits.
        counts: (M,) tokens that have each.
    """

    codes: tuple[int, ...]
    words: NDArray[np.uint64]
    counts: NDArray[np.int64]

    def layer(self, number: int) -> NDArray[np.int64]:
        """(M,) code of each tuple in a layer, -1 for none."""
        word, shift = _places(self.codes)[number]
        bits = self.words[word] >> np.uint64(shift)
        return (bits & np.uint64((1 << _bits((*self.codes, GROUPS)[number])) - 1)).astype(np.int64) - 1

    @property
    def group(self) -> NDArray[np.int64]:
        """(M,) group of images of each."""
        return self.layer(len(self.codes))

    def used(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The (S,) codes of a layer that came, and (S,) tokens that have each."""
        there = self.having(number)
        codes, which = np.unique(there.layer(number), return_inverse=True)
        return codes, np.bincount(which, there.counts, len(codes)).astype(np.int64)

    def hits(self, number: int) -> NDArray[np.int64]:
        """(K,) tokens by their code in a layer."""
        hits = np.zeros(self.codes[number], np.int64)
        codes, tokens = self.used(number)
        hits[codes] = tokens
        return hits

    def having(self, number: int) -> "Tuples":
        """Those that have a code in a layer."""
        there = self.layer(number) >= 0
        return self if there.all() else Tuples(self.codes, self.words[:, there], self.counts[there])

    def complete(self) -> "Tuples":
        """Those that have a code in every layer."""
        return functools.reduce(Tuples.having, range(len(self.codes)), self)

    def runs(self, length: int) -> NDArray[np.intp]:
        """(M,) number, from 0, of the run of tuples that each is in, which agree in the first ``length`` layers."""
        begins = np.zeros(len(self.counts), bool)
        if length:
            word, shift = _places(self.codes)[length - 1]
            for whole in self.words[:word]:
                begins[1:] |= whole[1:] != whole[:-1]
            cut = self.words[word] >> np.uint64(shift)
            begins[1:] |= cut[1:] != cut[:-1]
        return np.cumsum(begins)


class Collisions(NamedTuple):
    """Tokens that their tuple does not tell apart. Of items with a semantic id each, tokens are the items.

    Attributes:
        tokens: Tokens with a code in every layer; all figures are over these.
        incomplete: Tokens left out, because they have no code in some layer.
        distinct: Distinct tuples.
        largest: Tokens that have the tuple which most have: so many values takes the code that TIGER appends to tell
            items apart (Rajput et al. 2023, arXiv:2305.05065).
        rate: 1 - distinct / tokens, the "collision rate" of LC-Rec (Zheng et al. 2023, arXiv:2311.09049;
            ``index/trainer.py`` of RUCAIBox/LC-Rec) and of what follows it: tokens in excess of one for each tuple.
        shared: Share of the tokens whose tuple another one has too, the "full-code aliasing rate" of SIDInspector
            (Ding et al. 2026, arXiv:2606.10375). It lies between ``rate`` and twice that.
    """

    tokens: int
    incomplete: int
    distinct: int
    largest: int
    rate: float
    shared: float


def count_tuples(indices: ArrayLike, codes: Sequence[int], groups: ArrayLike = 0) -> Tuples:
    """The distinct tuples among the rows of ``indices``, in O(N) memory whatever the product of the sizes is.

    Args:
        indices: (N, Q) integer codes of N tokens in Q layers; negative for none.
        codes: K of each layer.
        groups: (N,) the group that the image of each token was dealt into, or that of all; see ``stats.deal``.

    Raises:
        InputError: A shape, a type or a code is out of range.
    """
    rows, Q = np.asarray(indices), len(codes)
    if rows.ndim != 2 or rows.dtype.kind not in "iu" or rows.shape[1] != Q or not Q:
        raise InputError(f"codes of {Q} layers must be integers (N, {Q}), not {rows.dtype} {rows.shape}")
    for number, (K, layer) in enumerate(zip(codes, rows.T, strict=True)):
        if len(layer) and layer.max() >= K:
            raise InputError(f"codes of layer {number} must be less than {K:,}, and {layer.max():,} is there")
    places = _places(tuple(codes))
    words = np.zeros((places[-1][0] + 1, len(rows)), np.uint64)
    for (word, shift), digit in zip(places, (*rows.T, np.broadcast_to(groups, len(rows))), strict=True):
        words[word] |= (np.maximum(digit.astype(np.int64), -1) + 1).astype(np.uint64) << np.uint64(shift)
    return _distinct(tuple(codes), words, np.ones(len(rows), np.int64))


def merge_tuples(several: Iterable[Tuples]) -> Tuples:
    """The distinct tuples of several sets of tokens together, of which there is one at least."""
    several = list(several)
    words, counts = np.concatenate([one.words for one in several], 1), np.concatenate([one.counts for one in several])
    return _distinct(several[0].codes, words, counts)


class TupleCounter:
    """Counts tuples batch by batch; what it holds grows with the distinct ones.

    Args:
        codes: K of each layer.
    """

    def __init__(self, codes: Sequence[int]):
        self.codes = tuple(codes)
        self._counted = [count_tuples(np.zeros((0, len(self.codes)), np.int64), self.codes)]

    def add(self, indices: ArrayLike, groups: ArrayLike = 0) -> None:
        """Count the rows of ``indices``; see ``count_tuples``."""
        self._counted.append(count_tuples(indices, self.codes, groups))
        if sum(len(one.counts) for one in self._counted[1:]) >= len(self._counted[0].counts):
            self._counted = [self.total()]

    def total(self) -> Tuples:
        """All that were counted."""
        return merge_tuples(self._counted)


def collisions(tuples: Tuples) -> Collisions:
    """How well the tuples tell tokens apart; rates are NaN where no token is complete."""
    complete = tuples.complete()
    counts = np.bincount(complete.runs(len(tuples.codes)), complete.counts).astype(np.int64)
    tokens, distinct = int(counts.sum()), len(counts)
    return Collisions(
        tokens=tokens,
        incomplete=int(tuples.counts.sum()) - tokens,
        distinct=distinct,
        largest=int(counts.max(initial=0)),
        rate=1 - distinct / tokens if tokens else float("nan"),
        shared=float(counts[counts > 1].sum()) / tokens if tokens else float("nan"),
    )


def _bits(K: int) -> int:
    """Bits of one of K codes or none."""
    return int(K).bit_length()


@functools.cache
def _places(codes: tuple[int, ...]) -> list[tuple[int, int]]:
    """Word and shift of each layer and of the group; none lies in two words."""
    places: list[tuple[int, int]] = []
    word, free = 0, 64
    for K in (*codes, GROUPS):
        if _bits(K) > free:
            word, free = word + 1, 64
        free -= _bits(K)
        places.append((word, free))
    return places


def _distinct(codes: tuple[int, ...], words: NDArray[np.uint64], counts: NDArray[np.int64]) -> Tuples:
    order = np.lexsort(words[::-1])  # by the first word, then by the next
    words, counts = words[:, order], counts[order]
    first = np.ones(len(counts), bool)
    first[1:] = (words[:, 1:] != words[:, :-1]).any(0)
    begins = np.flatnonzero(first)
    return Tuples(codes, words[:, begins], np.add.reduceat(counts, begins) if len(begins) else counts)

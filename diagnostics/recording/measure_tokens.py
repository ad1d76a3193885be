"""Tokens that lie there without their model, measured: ``measure_tokens``."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .. import stats
from ..errors import InputError
from .layers import LayersMeasurement
from .token_layout import TokenLayout

#: More codes are not counted one by one: 25 groups of images take 0.4 GB for so many.
MOST_CODES = 1 << 20


@dataclass(frozen=True)
class TokensMeasurement:
    """What tokens say of the codebooks that they are of.

    Attributes:
        codes: K of each layer, of one without an axis of layers.
        codes_told: Whether K was told. If not, it is the largest index + 1, and there may be more codes: shares of K
            and their ceilings are upper bounds then.
        usage: The usage of each layer, with intervals over images where it is known which tokens are of one.
        none: Tokens -1 in each layer: padding, or a layer that was dropped. They are not counted.
        layers: The layers together; None without an axis of layers.
    """

    codes: tuple[int, ...]
    codes_told: bool
    usage: tuple[stats.Usage, ...]
    none: tuple[int, ...]
    layers: LayersMeasurement | None


def measure_tokens(
    tokens: TokenLayout,
    codes: Sequence[int] | None = None,
    name: str = "the tokens",
    advance: Callable[[int], object] = lambda done: None,
) -> TokensMeasurement:
    """The usage of each layer, and what the layers do together.

    It passes over the tokens twice, some images at a time: what is held grows with K, and with the distinct tuples.

    Args:
        tokens: Integers from -1 on, with their axes.
        codes: K of each layer, or of all where it is one number; None to take the largest index + 1 for it.
        name: What they are, in words.
        advance: Told how many images have been counted.

    Raises:
        InputError: A code is out of range, or ``codes`` are not as many as layers.
    """
    Q = tokens.layers or 1
    told = None if codes is None else tuple(codes) * (Q if len(codes) == 1 else 1)
    if told is not None and len(told) != Q:
        raise InputError(f"codes {', '.join(map(str, told))} are {len(told)} numbers for {Q} layers", "codes")
    sizes = _sizes(tokens, told, name)
    groups = [stats.ImageGroups.empty(K + 1) for K in sizes]  # the last one counts those without a code
    tuples = stats.TupleCounter(sizes) if tokens.layers is not None else None
    dealt = stats.deal(tokens.units) if tokens.unit is not None else np.zeros(tokens.units, np.int64)
    none = np.zeros(Q, np.int64)
    for start, part in tokens.chunks():
        of_part = dealt[start : start + len(part)]
        for layer, (K, counts) in enumerate(zip(sizes, groups, strict=True)):
            none[layer] += _count(part[..., layer], K, of_part, counts)
        if tuples is not None:
            tuples.add(part.reshape(-1, Q), np.repeat(of_part, part.shape[1]))
        advance(start + len(part))
    usages = []
    for K, counts in zip(sizes, groups, strict=True):
        counted = stats.ImageGroups(counts.hits[:, :K], counts.images[:, :K], counts.sizes)
        usages.append(_usage(counted, name, tokens.unit))
    together = None
    if tuples is not None:
        names = tuple(f"layer {layer}" for layer in range(Q))
        together = LayersMeasurement(name, names, tuples.total(), (float("nan"),) * Q)
    return TokensMeasurement(sizes, told is not None, tuple(usages), tuple(none.tolist()), together)


def _usage(counted: stats.ImageGroups, name: str, unit: str | None) -> stats.Usage:
    if unit is None or counted.units < stats.FEWEST:
        return stats.usage(counted.hits.sum(0), name)
    return stats.usage_of_groups(counted, name, unit)


def _count(tokens: NDArray[np.integer], K: int, dealt: NDArray[np.int64], counts: stats.ImageGroups) -> int:
    """Count the (n, T) codes of images, and say how many tokens had none."""
    there = (tokens >= 0).any(1)
    tokens = tokens[there].astype(np.int64)
    counts.add_images(np.where(tokens < 0, K, tokens), dealt[there])
    return int((tokens < 0).sum()) + int((~there).sum()) * tokens.shape[1]


def _sizes(tokens: TokenLayout, told: tuple[int, ...] | None, name: str) -> tuple[int, ...]:
    """K of each layer, when every token has been looked at.

    Raises:
        InputError: A token is out of range.
    """
    lowest, largest = 0, [-1] * (tokens.layers or 1)
    for _, part in tokens.chunks():
        lowest = min(lowest, int(part.min()))
        largest = [max(before, int(most)) for before, most in zip(largest, part.max((0, 1)), strict=True)]
    if lowest < -1:
        raise InputError(f"{name}: {lowest:,} is no code; what has none is -1")
    if max(largest) < 0:
        raise InputError(f"{name}: every token is -1, which is no code")
    sizes = told or tuple(max(1, most + 1) for most in largest)
    for layer, (K, most) in enumerate(zip(sizes, largest, strict=True)):
        of = "" if tokens.layers is None else f" in layer {layer}"
        if most >= K:
            raise InputError(f"codes {K:,}: {most:,}{of} of {name} is outside [0, {K:,})", "codes")
        if not 1 <= K <= MOST_CODES:
            raise InputError(
                f"codes {K:,}{of} of {name} must be between 1 and {MOST_CODES:,}, to be counted one by one", "codes"
            )
    return sizes

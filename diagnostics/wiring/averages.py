"""The moving averages that a codebook keeps beside its codes, found by their shapes and names."""

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from torch import Tensor, nn

from ..probes import WatchedCodebook
from ..probes.attributes import tensors
from .evidence import Averages

_COUNTS = re.compile("cluster|usage|count|ema_n|k_elem")
_SUMS = re.compile("avg|sum|ema_w|ema_m|mean")
_FLAGS = re.compile("init(t?ed|ialized|ialised)?$")


class Kept(NamedTuple):
    """The tensors of moving averages.

    Attributes:
        module: Whose they are.
        counts: (K,) or (heads, K).
        sums: (K, D) or (heads, K, D).
    """

    module: nn.Module
    counts: Tensor
    sums: Tensor


def averages_of(codebook: WatchedCodebook, codes: Tensor) -> Averages | None:
    """The counts (K,) and sums (K, D) that go with ``codes`` (K, D); None for a codebook that keeps none.

    Where the codes are computed of the sums anew each time there is nothing that could go wrong, and none is given.
    """
    if (found := kept_by(codebook)) is None:
        return None
    _, counts, sums = found
    if counts.ndim == 2:  # heads first: the codes are those of one head
        if len(counts) > 1:
            return None
        counts, sums = counts[0], sums[0]
    if counts.shape != codes.shape[:1] or sums.shape != codes.shape or sums.data_ptr() == codes.data_ptr():
        return None
    e, m, n = (np.array(each.detach().float().cpu().numpy()) for each in (codes, sums, counts))
    return Averages(e, m, n)


def begun(codebook: WatchedCodebook) -> bool:
    """Whether the averages hold something: a codebook made from the first batch says that it is not made yet."""
    flags = (value for module in codebook.module.modules() for name, value in tensors(module).items() if _is_flag(name))
    return all(bool(flag.bool().all()) for flag in flags)


def kept_by(codebook: WatchedCodebook) -> Kept | None:
    """Who keeps averages in a quantizer, and where; None where nobody does."""
    for module in codebook.module.modules():
        if (pair := _pair_of(module)) is not None:
            return Kept(module, *pair)
    return None


def _pair_of(module: nn.Module) -> tuple[Tensor, Tensor] | None:
    """The counts of a module itself, and its sums."""
    for name, counts in _named(module, _COUNTS):
        if counts.ndim not in (1, 2):
            continue
        for other, sums in _named(module, _SUMS):
            if other != name and sums.ndim == counts.ndim + 1 and sums.shape[:-1] == counts.shape:
                return counts, sums
    return None


def _named(module: nn.Module, pattern: re.Pattern[str]) -> Iterator[tuple[str, Tensor]]:
    for name, value in tensors(module).items():
        if pattern.search(name) and value.is_floating_point():
            yield name, value


def _is_flag(name: str) -> bool:
    return bool(_FLAGS.search(name))

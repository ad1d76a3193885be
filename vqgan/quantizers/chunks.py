"""Work on tokens x codes without ever holding all of it."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

#: Elements of the largest tokens x codes block that is held at once (16 MiB of float32).
BLOCK = 1 << 22


def map_chunks(
    function: Callable[[Tensor], tuple[Tensor, ...]], tokens: Tensor, codebook_size: int
) -> list[tuple[Tensor, ...]]:
    """``function`` on slices of ``tokens`` (N, D), each small enough that slice x K fits in ``BLOCK`` elements.

    With more than one slice each is recomputed in the backward pass (Chen et al. 2016, arXiv:1604.06174), random draws
    included, so that no slice's tokens x codes intermediates outlive it.
    """
    size = max(1, BLOCK // codebook_size)
    slices = tokens.split(size)
    if len(slices) == 1 or not torch.is_grad_enabled():
        return [function(part) for part in slices]
    return [checkpoint(function, part, use_reentrant=False) for part in slices]

"""Work on tokens x codes without ever holding all of it."""

from collections.abc import Iterator

import torch
from torch import Tensor

#: Elements of the largest tokens x codes block that is held at once (16 MiB of float32).
BLOCK = 1 << 22


def fits(tokens: Tensor, codebook_size: int) -> bool:
    """Whether all of ``tokens`` (N, D) x codes is one block."""
    return len(tokens) <= _slice_size(codebook_size)


def slices(tokens: Tensor, codebook_size: int, count: int) -> Iterator[tuple[slice, list[Tensor]]]:
    """The rows of each slice of ``tokens`` (N, D) that fits, in order, and ``count`` blocks (n, K) to work in.

    The blocks of all slices are the same memory. New ones for each slice would be freed and yet grow the process by
    gigabytes: glibc takes blocks of this size from the heap, and its holes do not fit the next slice's.
    """
    size = _slice_size(codebook_size)
    blocks = tokens.new_empty(count, min(size, len(tokens)) * codebook_size)
    for start in range(0, len(tokens), size):
        n = min(size, len(tokens) - start)
        yield slice(start, start + n), [block[: n * codebook_size].view(n, codebook_size) for block in blocks]


def _slice_size(codebook_size: int) -> int:
    return max(1, BLOCK // codebook_size)


def log_softmax_and_softmax(logits: Tensor, log_p: Tensor, p: Tensor) -> None:
    """Of each row of ``logits`` (n, K) ln p and p, written into the other two; ``p`` may be ``logits``."""
    torch.log_softmax(logits, 1, out=log_p)
    torch.exp(log_p, out=p)

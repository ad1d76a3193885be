"""Orders in which the codes of a grid are told one after another.

An order is a permutation of the grid's raster indices: ``codes.flatten(1)[:, order]`` is the sequence, and
``sequence[:, inverse(order)]`` the grid again. Esser et al. 2021 (arXiv:2012.09841) compare them in their appendix;
on even squares (for the z-curve: squares whose side is a power of two) they are those of taming-transformers'
``modules/transformer/permuter.py``. Here they are defined for any height and width.
"""

from collections.abc import Callable, Iterator
from itertools import count

import numpy as np
import torch
from torch import Tensor

from ...diagnostics.errors import InputError, unknown


def raster(height: int, width: int) -> Tensor:
    """Row by row, (H * W,) int64."""
    return torch.arange(_area(height, width))


def alternate(height: int, width: int) -> Tensor:
    """Row by row, every second row from right to left, (H * W,) int64."""
    grid = raster(height, width).view(height, width)
    grid[1::2] = grid[1::2].flip(1)
    return grid.flatten()


def z_curve(height: int, width: int) -> Tensor:
    """By Morton code, in which the bits of row and column take turns, the row's first, (H * W,) int64."""
    indices = raster(height, width)
    return (2 * _spread(indices // width) + _spread(indices % width)).argsort()


def spiral_out(height: int, width: int) -> Tensor:
    """From the centre outwards, clockwise and upwards first, (H * W,) int64."""
    order: list[int] = []
    for up, right in _spiral():
        if len(order) == _area(height, width):
            break
        i, j = height // 2 - up, (width - 1) // 2 + right
        if 0 <= i < height and 0 <= j < width:
            order.append(i * width + j)
    return torch.tensor(order)


def spiral_in(height: int, width: int) -> Tensor:
    """``spiral_out`` backwards, (H * W,) int64."""
    return spiral_out(height, width).flip(0)


def random(height: int, width: int, *, seed: int = 1) -> Tensor:
    """Shuffled, (H * W,) int64; a seed is the same order everywhere, and seed 1 is that of taming-transformers."""
    return torch.from_numpy(np.random.RandomState(seed).permutation(_area(height, width)))


ORDERS: dict[str, Callable[[int, int], Tensor]] = {
    "raster": raster,
    "z-curve": z_curve,
    "spiral-out": spiral_out,
    "spiral-in": spiral_in,
    "random": random,
    "alternate": alternate,
}


def code_order(name: str, height: int, width: int) -> Tensor:
    """The order of that name for a grid of ``height`` x ``width`` codes, (H * W,) int64.

    Raises:
        InputError: There is no such order, or the grid is empty.
    """
    check_order(name)
    return ORDERS[name](height, width)


def check_order(name: str) -> None:
    """Refuse a name that is none of ``ORDERS``.

    Raises:
        InputError: There is no such order.
    """
    if name not in ORDERS:
        raise unknown("code order", name, ORDERS)


def inverse(order: Tensor) -> Tensor:
    """The permutation that undoes ``order``, (N,) int64: ``order[inverse(order)]`` is 0, 1, ..., N - 1."""
    return order.argsort()


def _area(height: int, width: int) -> int:
    if height < 1 or width < 1:
        raise InputError(f"a grid of {height} x {width} codes is empty: height and width are at least 1")
    return height * width


def _spread(numbers: Tensor) -> Tensor:
    """Bit b of each number moved to bit 2 b; numbers below 2^16."""
    return sum(((numbers >> bit & 1) << 2 * bit for bit in range(16)), torch.zeros_like(numbers))


def _spiral() -> Iterator[tuple[int, int]]:
    """Steps up and to the right of the centre: 1 up, 1 right, 2 down, 2 left, 3 up, and on without end."""
    up = right = 0
    yield up, right
    for length in count(1):
        sign = 1 if length % 2 else -1
        for _ in range(length):
            up += sign
            yield up, right
        for _ in range(length):
            right += sign
            yield up, right

"""Which images a training step sees."""

from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ...diagnostics.errors import InputError

_EPOCH, _STEP = 0, 1  # two independent streams of random numbers below one seed


class Drawn(Protocol):
    """A split that batches are drawn from: ``Images``, or the codes of a second stage."""

    def __len__(self) -> int: ...

    def drawn_batch(self, indices: NDArray[np.int64], draws: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
        """The rows that (B, 3) random numbers in [0, 1) make of the chosen ones, see `Images.drawn_batch`."""
        ...


class Batches:
    """The batches of a training run, as a pure function of seed and step: nothing to save, so that a resume is exact.

    The images of all steps, one after the other, are one permutation of the split per epoch, seeded by (seed, epoch);
    a batch may reach over the end of an epoch, or over several where the split is smaller than a batch. Crops and
    flips are drawn for the whole batch from (seed, step), and only then is the batch divided: rank r takes the r-th
    of `world_size` equal parts, and micro step m the m-th of `accumulate` equal parts of that. So the parts of
    (rank 0, micro 0), (rank 0, micro 1), ..., (rank 1, micro 0), ... laid end to end are the batch of a single process.

    Attributes:
        batch_size: Images per optimizer step, over all ranks and micro steps.
        steps_per_epoch: How many steps see as many images as the split has.
    """

    def __init__(
        self,
        images: Drawn,
        batch_size: int,
        seed: int,
        world_size: int = 1,
        rank: int = 0,
        accumulate: int = 1,
        flip: bool = True,
    ):
        """Batches for one rank.

        Args:
            images: The split to draw from.
            batch_size: Images per optimizer step, over all ranks and micro steps.
            seed: Not negative.
            world_size: How many ranks there are.
            rank: Which of them this one is.
            accumulate: How many micro steps make an optimizer step.
            flip: Whether half of the images are flipped left to right.

        Raises:
            InputError: the batch size is not positive or not divisible by ranks x micro steps, or the seed is negative.
        """
        parts = world_size * accumulate
        if batch_size < 1 or batch_size % parts:
            raise InputError(
                f"batch size {batch_size} cannot be divided evenly over {world_size} rank(s) x {accumulate} micro "
                f"step(s): the nearest size that can is {max(1, round(batch_size / parts)) * parts}"
            )
        if seed < 0:
            raise InputError(f"seed {seed} is negative: seeds start at 0")
        self.batch_size, self.steps_per_epoch = batch_size, len(images) / batch_size
        self._images, self._seed, self._flip = images, seed, flip
        self._accumulate, self._first, self._part = accumulate, rank * accumulate, batch_size // parts

    def __call__(self, step: int, micro: int = 0) -> tuple[Tensor, Tensor]:
        """What a micro step sees, b = batch_size / (ranks x micro steps): of images (b, 3, S, S) uint8 and labels (b,).

        Args:
            step: The optimizer step, from 0.
            micro: The micro step in it, below `accumulate`.
        """
        if not 0 <= micro < self._accumulate:
            raise IndexError(f"micro step {micro} of {self._accumulate}")
        start = (self._first + micro) * self._part
        part = slice(start, start + self._part)
        positions = np.arange(self.batch_size * step, self.batch_size * (step + 1))[part]
        draws = np.random.default_rng((self._seed, _STEP, step)).random((self.batch_size, 3))[part]
        if not self._flip:
            draws[:, 2] = 0
        return self._images.drawn_batch(self._at(positions), draws)

    def _at(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """The images at these positions (b,) of the endless sequence of permutations."""
        epochs, places = np.divmod(positions, len(self._images))
        indices = np.empty_like(places)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            indices[here] = _permutation(self._seed, epoch, len(self._images))[places[here]]
        return indices


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, length: int) -> NDArray[np.int64]:
    return np.random.default_rng((seed, _EPOCH, epoch)).permutation(length)


def spread(count: int, total: int) -> np.ndarray:
    """``count`` of ``total`` positions, evenly spread: splits are often sorted by class."""
    return np.arange(count) * total // count

"""What new images are sampled under, batch by batch; a ``Condition`` makes it of what is wanted."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..data import Images
from ..data.batches import spread


class Scene(NamedTuple):
    """What a batch is sampled under.

    Attributes:
        prefix: (B, P) int64, or a map (B, H, W) for a sliding window.
        names: What each condition is called, (B,); empty where there is none.
        seen: What a condition shows, (B, 3, S, S) in [-1, 1]; None where it is no picture.
    """

    prefix: Tensor
    names: list[str]
    seen: Tensor | None = None


#: From numbers of samples (B,) to their scene.
Scenes: TypeAlias = Callable[[NDArray[np.int64]], Scene]


@dataclass(frozen=True)
class Wanted:
    """New images that are wanted.

    Attributes:
        count: How many.
        grid: Rows and columns of their codes.
        size: Their height and width in pixels; None: those of the training.
        labels: Numbers of their classes, for a condition that has classes.
        split: Name of the split that other conditions are taken from.
        images: Opens that split, in crops of so many pixels a side; None: as many as in the training.
    """

    count: int
    grid: tuple[int, int]
    size: tuple[int, int] | None
    labels: list[int]
    split: str
    images: Callable[[int | None], Images]

    def rows(self, images: Images) -> NDArray[np.int64]:
        """(count,) images of the split, evenly spread; again and again where there are fewer."""
        total = len(images)
        return spread(self.count, total) if self.count <= total else np.arange(self.count) % total

    def names(self, rows: NDArray[np.int64]) -> list[str]:
        """What the conditions are called that are those of the split's images."""
        return [f"{self.split} {row}" for row in rows]

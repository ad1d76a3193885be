"""What stands before the codes: the tokens of a condition.

A condition has ``tokens`` of its own in the vocabulary, ``length`` of them stand before the codes, and ``of(images)``
opens them for a split. Their ids follow those of the codes, K, K + 1, ...
"""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ...diagnostics.errors import InputError
from ..data import Images
from .settings import TransformerConfig
from .tokenizer import Tokenizer
from .tokens import as_tensor, codes_of

#: From rows of a split (B,) and whether each is mirrored (B,) bool to their prefixes (B, P) int64.
Prefixes: TypeAlias = Callable[[NDArray[np.int64], NDArray[np.bool_]], Tensor]


class Condition(Protocol):
    """See the head of this file."""

    tokens: int
    length: int

    def of(self, images: Images) -> Prefixes:
        """The prefixes of a split."""
        ...


class NoCondition:
    """One start token; ``vqtool`` and taming-transformers' ``SOSProvider`` alike."""

    tokens, length = 0, 1

    def __init__(self, start: int):
        self.start = start

    def of(self, images: Images) -> Prefixes:
        """The start token everywhere."""
        return lambda rows, mirrored: torch.full((len(rows), 1), self.start)


class ClassCondition:
    """One token, the class of the image (taming-transformers' ``Labelator``)."""

    length = 1

    def __init__(self, first: int, classes: tuple[str, ...]):
        self.first, self.tokens = first, len(classes)

    def of(self, images: Images) -> Prefixes:
        """The labels of the split."""
        return lambda rows, mirrored: self.first + images.labels[rows][:, None]


class CoordinateCondition:
    """Where each code lies in the whole picture: its raster position in [0, 1), in ``levels`` steps.

    taming-transformers' ``CoordStage``: area means of the pixels' positions, rounded; here never beyond the last level.
    """

    def __init__(self, first: int, levels: int, grid: tuple[int, int]):
        self.first, self.tokens, self.grid = first, levels, grid
        self.length = grid[0] * grid[1]

    def of(self, images: Images) -> Prefixes:
        """The positions of the split's fixed crops."""

        def prefixes(rows: NDArray[np.int64], mirrored: NDArray[np.bool_]) -> Tensor:
            positions, mirror = images.coordinates(rows), torch.from_numpy(mirrored)[:, None, None, None]
            return self.map(torch.where(mirror, positions.flip(-1), positions), self.grid).flatten(1)

        return prefixes

    def map(self, positions: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, 1, S, S') positions of pixels -> a map of tokens (B, h, w)."""
        area = F.adaptive_avg_pool2d(positions, grid)[:, 0]
        return self.first + (area * self.tokens).round().long().clamp(0, self.tokens - 1)


class SpatialCondition:
    """The codes of a second VQGAN, trained on the condition: edges, low resolution, a segmentation or a depth map."""

    def __init__(self, first: int, tokenizer: Tokenizer, image_size: int, cache: Path):
        self.first, self.tokens, self.tokenizer, self.cache = first, tokenizer.codebook_size, tokenizer, cache
        self.length = (image_size // tokenizer.factor) ** 2

    def of(self, images: Images) -> Prefixes:
        """The codes of the split's condition; those of mirrored crops are computed when first asked for."""
        kept: dict[bool, NDArray] = {}

        def codes(mirror: bool) -> NDArray:
            if mirror not in kept:
                kept[mirror] = codes_of(self.tokenizer, images, self.cache, mirrored=mirror)
            return kept[mirror]

        def prefixes(rows: NDArray[np.int64], mirrored: NDArray[np.bool_]) -> Tensor:
            return self.first + chosen(codes, rows, mirrored).flatten(1)

        return prefixes


def chosen(codes: Callable[[bool], NDArray], rows: NDArray[np.int64], mirrored: NDArray[np.bool_]) -> Tensor:
    """(B, h, w) int64: each row from the codes of the crops or of the mirrored crops, which are not opened in vain."""
    if mirrored.all():
        return as_tensor(codes(True)[rows])
    result = as_tensor(codes(False)[rows])
    if mirrored.any():
        result[torch.from_numpy(mirrored)] = as_tensor(codes(True)[rows[mirrored]])
    return result


def open_condition(
    config: TransformerConfig, classes: tuple[str, ...], grid: tuple[int, int], stage: Tokenizer | None, cache: Path
) -> Condition:
    """The condition that the settings ask for.

    Args:
        config: The settings.
        classes: Names of the classes of the data.
        grid: Rows and columns of the codes of an image.
        stage: For a spatial condition: its tokenizer.
        cache: Folder of the cache.

    Raises:
        InputError: The condition's first stage is for images of another size.
    """
    K, size = config.codebook_size, config.data.image_size
    match config.condition.kind:
        case "class":
            return ClassCondition(K, classes)
        case "coordinates":
            return CoordinateCondition(K, config.condition.levels, grid)
        case "spatial":
            assert stage is not None
            if stage.config.data.image_size != size:
                raise InputError(
                    f"the condition's first stage {config.condition.stage} is for images of "
                    f"{stage.config.data.image_size} pixels, the images here have {size}"
                )
            return SpatialCondition(K, stage, size, cache)
        case "none":
            return NoCondition(K if config.transformer.sos is None else config.transformer.sos)

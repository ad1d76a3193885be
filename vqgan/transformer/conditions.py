"""What stands before the codes: the tokens of a condition.

A condition has ``tokens`` of its own in the vocabulary; their ids follow those of the codes, K, K + 1, ... Everything
that another condition does otherwise is a method here: no other file asks which one it is.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ...diagnostics.errors import InputError
from ..data import Images
from .scenes import Scene, Scenes, Wanted
from .settings import TransformerConfig
from .tokenizer import Tokenizer
from .tokens import as_tensor, codes_of

#: From rows of a split (B,) and whether each is mirrored (B,) bool to their prefixes (B, P) int64.
Prefixes: TypeAlias = Callable[[NDArray[np.int64], NDArray[np.bool_]], Tensor]


class Condition(ABC):
    """What the codes are conditioned on.

    Attributes:
        tokens: How many tokens it adds to the vocabulary.
        length: How many stand before the codes of an image.
        classes: Names of the classes that can be asked for; none where it is not the class.
    """

    tokens: int
    length: int
    classes: tuple[str, ...] = ()

    @abstractmethod
    def of(self, images: Images) -> Prefixes:
        """The prefixes of a split."""

    def scenes(self, wanted: Wanted) -> Scenes:
        """What new images are sampled under; here the conditions of a split's own images, evenly spread.

        Raises:
            InputError: The data that the conditions come from cannot be had, or not in this size.
        """
        images = wanted.images(None)
        prefixes, rows = self.of(images), wanted.rows(images)

        def scene(numbers: NDArray[np.int64]) -> Scene:
            here = rows[numbers]
            return Scene(prefixes(here, np.zeros(len(here), bool)), wanted.names(here), self.pictures(images, here))

        return scene

    def pictures(self, images: Images, rows: NDArray[np.int64]) -> Tensor | None:
        """What the conditions of rows of a split show, (B, 3, S, S) in [-1, 1]; None where they are no pictures."""
        return None

    def captions(self, images: Images, rows: NDArray[np.int64]) -> list[str] | None:
        """What they say, in words (B,); None where they say nothing that a word could tell."""
        return None


class NoCondition(Condition):
    """One start token; ``vqtool`` and taming-transformers' ``SOSProvider`` alike."""

    tokens, length = 0, 1

    def __init__(self, start: int):
        self.start = start

    def of(self, images: Images) -> Prefixes:
        """The start token everywhere."""
        return lambda rows, mirrored: self._starts(len(rows))

    def scenes(self, wanted: Wanted) -> Scenes:
        """The same; no data are needed for it."""
        return lambda numbers: Scene(self._starts(len(numbers)), [])

    def _starts(self, count: int) -> Tensor:
        return torch.full((count, 1), self.start)


class ClassCondition(Condition):
    """One token, the class of the image (taming-transformers' ``Labelator``)."""

    length = 1

    def __init__(self, first: int, classes: tuple[str, ...]):
        self.first, self.tokens, self.classes = first, len(classes), classes

    def of(self, images: Images) -> Prefixes:
        """The labels of the split."""
        return lambda rows, mirrored: self.first + images.labels[rows][:, None]

    def scenes(self, wanted: Wanted) -> Scenes:
        """The classes that are wanted one after the other, each as often as the next; no data are needed for it."""
        labels = np.array(wanted.labels)

        def scene(numbers: NDArray[np.int64]) -> Scene:
            chosen = labels[numbers * len(labels) // wanted.count]
            return Scene(torch.from_numpy(self.first + chosen)[:, None], [self.classes[label] for label in chosen])

        return scene

    def captions(self, images: Images, rows: NDArray[np.int64]) -> list[str]:
        """The names of their classes."""
        return [images.classes[label] for label in images.labels[rows].tolist()]


class CoordinateCondition(Condition):
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

    def scenes(self, wanted: Wanted) -> Scenes:
        """A larger image is a whole picture: its coordinates begin at 0 and end at 1."""
        if wanted.size is None:
            return super().scenes(wanted)
        pixels = wanted.size[0] * wanted.size[1]
        places = self.map(torch.arange(pixels).view(1, 1, *wanted.size) / pixels, wanted.grid)
        return lambda numbers: Scene(places.expand(len(numbers), *wanted.grid), [])

    def map(self, positions: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, 1, S, S') positions of pixels -> a map of tokens (B, h, w)."""
        area = F.adaptive_avg_pool2d(positions, grid)[:, 0]
        return self.first + (area * self.tokens).round().long().clamp(0, self.tokens - 1)


class SpatialCondition(Condition):
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

    def scenes(self, wanted: Wanted) -> Scenes:
        """Under a larger image lie larger crops of the split's pictures, encoded by the condition's own first stage."""
        if wanted.size is None:
            return super().scenes(wanted)
        (height, width), stage, factor = wanted.size, self.tokenizer, wanted.size[0] // wanted.grid[0]
        if height != width or stage.factor != factor:
            raise InputError(
                f"size {height}x{width}: with a spatial condition a larger image is square, and both first stages "
                f"have as many pixels to a code (here {factor} and {stage.factor})",
                "size",
            )
        images = wanted.images(height)
        rows = wanted.rows(images)

        def scene(numbers: NDArray[np.int64]) -> Scene:
            crops, _ = stage.sees(images).batch(rows[numbers])
            return Scene(self.first + stage.encode(crops), wanted.names(rows[numbers]), stage.picture(crops))

        return scene

    def pictures(self, images: Images, rows: NDArray[np.int64]) -> Tensor:
        """Its view of the images."""
        return self.tokenizer.picture(self.tokenizer.sees(images).batch(rows)[0])


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

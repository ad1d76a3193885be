from copy import copy
from typing import Literal, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ...diagnostics.errors import InputError
from .source import MapKind, Pixels


class Maps(NamedTuple):
    """What the fourth planes of a data set hold, and the highest value among them over all splits."""

    kind: MapKind
    highest: int


class DecodeReport(NamedTuple):
    """The one decoding pass behind a data set, now or when its cache was written; `str` of it is a line to print."""

    images: int
    seconds: float
    cached: bool

    @property
    def images_per_second(self) -> float:
        return self.images / max(self.seconds, 1e-9)

    def __str__(self) -> str:
        origin = f"{self.images:,} images from the cache, decoded earlier" if self.cached else f"{self.images:,} images"
        return f"{origin} in {self.seconds:.1f} s ({self.images_per_second:,.0f} images/s)"


class Images:
    """One split of a data set: square crops, cut out of memory-mapped pixels.

    A picture has three planes, red, green and blue, or a fourth one, its map. Batches are cut out of the colours, or
    out of the maps where `view_source` says so: P is 3 or 1 below, and whatever else decides about a crop is the same.

    Attributes:
        kind: What an error message calls the data set.
        key: Fingerprint of the data set, with the name of the split.
        maps: What the fourth planes hold; None where there are none.
        classes: Names of the classes, the same in every split.
        labels: (N,) int64, the class of each image.
        skipped: Names of the unreadable files that were left out of this split.
        decode: Report of the decoding pass of the whole data set.
        image_size: Side S of a crop.
    """

    def __init__(
        self,
        pixels: Pixels,
        crops: NDArray[np.int64],
        image_size: int,
        classes: tuple[str, ...],
        skipped: list[str],
        decode: DecodeReport,
        kind: str = "",
        key: str = "",
        maps: Maps | None = None,
    ):
        """Images over decoded pixels.

        Args:
            pixels: All pictures, each (3, height, width), or (4, height, width) with maps, one after the other in one
                flat array.
            crops: (N, 6): offset, height and width of the picture, top and left of the fixed crop, label.
            image_size: Side S of a crop, at most the height and width of every picture.
            classes: Names of the classes.
            skipped: Names of the unreadable files.
            decode: Report of the decoding pass.
            kind: What an error message calls the data set.
            key: Fingerprint of the data set, with the name of the split.
            maps: What the fourth planes hold.
        """
        self.kind, self.key, self.maps = kind, key, maps
        self.classes, self.skipped, self.decode, self.image_size = classes, skipped, decode, image_size
        self.labels = torch.from_numpy(crops[:, 5].copy())
        self._pixels, self._pictures, self._corners = pixels, crops[:, :3], crops[:, 3:5]
        self._planes, self._cut_planes = 3 if maps is None else 4, slice(0, 3)

    def __len__(self) -> int:
        return len(self.labels)

    def view_source(self, source: Literal["image", "map"]) -> Self:
        """The same images, whose batches are cut out of the colours (`image`) or out of the maps (`map`).

        Raises:
            InputError: there are no maps.
        """
        if source == "map" and self.maps is None:
            raise InputError(f"data set {self.kind!r} has no maps; pairs:PATH has")
        images = copy(self)
        images._cut_planes = slice(3, 4) if source == "map" else slice(0, 3)
        return images

    def drawn_batch(self, indices: ArrayLike, draws: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
        """The crops that `draws` (B, 3) in [0, 1) decide: how far down, how far right, and flipped from 1/2 on.

        A picture is cropped uniformly over all positions that lie inside it.

        Returns:
            Images (B, P, S, S) uint8 and labels (B,) int64.
        """
        indices = np.asarray(indices)
        room = self._pictures[indices, 1:] - self.image_size + 1
        return self._cut(indices, (draws[:, :2] * room).astype(np.int64), draws[:, 2] >= 0.5)

    def batch(self, indices: ArrayLike) -> tuple[Tensor, Tensor]:
        """The fixed crops, for evaluation: images (B, P, S, S) uint8 and labels (B,) int64."""
        return self._fixed(indices, flipped=False)

    def mirrored_batch(self, indices: ArrayLike) -> tuple[Tensor, Tensor]:
        """The fixed crops, each flipped left to right: images (B, P, S, S) uint8 and labels (B,) int64."""
        return self._fixed(indices, flipped=True)

    def coordinates(self, indices: ArrayLike) -> Tensor:
        """Where each pixel of the fixed crops lies in its picture: (B, 1, S, S) float32 in [0, 1), in raster order.

        (row * width + column) / (height * width) of the whole picture, as CompVis/taming-transformers,
        ``taming/data/faceshq.py``, gives to crops as their condition. Those of the mirrored crops are these, flipped.
        """
        indices, side = np.asarray(indices), np.arange(self.image_size)
        (_, height, width), (top, left) = self._pictures[indices].T[..., None, None], self._corners[indices].T
        rows, columns = top[:, None, None] + side[:, None], left[:, None, None] + side
        return torch.from_numpy(((rows * width + columns) / (height * width)).astype(np.float32))[:, None]

    def _fixed(self, indices: ArrayLike, flipped: bool) -> tuple[Tensor, Tensor]:
        indices = np.asarray(indices)
        return self._cut(indices, self._corners[indices], np.full(len(indices), flipped))

    def _cut(
        self, indices: NDArray[np.int64], corners: NDArray[np.int64], flipped: NDArray[np.bool_]
    ) -> tuple[Tensor, Tensor]:
        """Copy the crops; a flip is a copy to the mirrored place: no thread is woken for it, as torch would do."""
        size, planes, cut = self.image_size, self._planes, self._cut_planes
        crops = np.empty((len(indices), cut.stop - cut.start, size, size), np.uint8)
        places = np.column_stack([self._pictures[indices], corners]).tolist()
        for crop, (offset, height, width, top, left), flip in zip(crops, places, flipped, strict=True):
            picture = self._pixels[offset : offset + planes * height * width].reshape(planes, height, width)
            target = crop[..., ::-1] if flip else crop
            target[...] = picture[cut, top : top + size, left : left + size]
        return torch.from_numpy(crops), self.labels[indices]


def normalize(images: Tensor) -> Tensor:
    """Bytes to the range of the model: float32 x / 127.5 - 1, in [-1, 1], any shape."""
    return images.to(torch.float32) / 127.5 - 1


def to_unit_range(images: Tensor) -> Tensor:
    """[-1, 1] to [0, 1], clamped."""
    return ((images + 1) / 2).clamp(0, 1)

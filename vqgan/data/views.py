"""What a first stage sees of its pictures: the photographs, or an image of the same crops that can be a condition.

A view is named by a spec: ``image``, ``edges``, ``lowres``, ``lowres:8``, ``segmentation:151`` or ``depth``.
"""

from functools import cache
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...diagnostics.errors import InputError, unknown
from .images import Images, normalize
from .source import MapKind

_MOST_LABELS = 256


class Number(NamedTuple):
    """What a spec says after its colon: what it is called, its range, and what holds where it is left out."""

    name: str
    smallest: int
    largest: int
    default: int | None


class View:
    """From crops of bytes to a model's input, which is its target too, and from what it gives back to a picture.

    Attributes:
        spec: How it is named.
        channels: Of the model's input and output.
        labels: How many labels the channels are; None where they are colours.
        factor: The side of the crops is a multiple of it.
        maps: The kind of map that is looked at; None where the view looks at the colours.
        number: What its spec says after the colon; None where there is none.
    """

    channels: int = 3
    labels: int | None = None
    factor: int = 1
    maps: ClassVar[MapKind | None] = None
    number: ClassVar[Number | None] = None

    def __init__(self, spec: str, number: int | None = None):
        self.spec = spec

    @property
    def source(self) -> Literal["image", "map"]:
        """Which planes of a picture are read."""
        return "image" if self.maps is None else "map"

    def over(self, images: Images) -> Images:
        """The same images, whose batches are what ``prepare`` takes.

        Raises:
            InputError: The data have no maps, those of another kind, or ids beyond the view's labels.
        """
        if self.maps is not None and (images.maps is None or images.maps.kind != self.maps):
            kind = "no maps" if images.maps is None else f"{images.maps.kind} maps"
            raise InputError(
                f"data set {images.kind!r} has {kind}: view {self.spec} needs pairs:PATH with {self.maps}s/ in it"
            )
        return images.view_source(self.source)

    def prepare(self, crops: Tensor) -> Tensor:
        """(B, 3, S, S) bytes, of a map (B, 1, S, S), on any device -> (B, channels, S, S) float32 there."""
        return normalize(crops)

    def load(self, crops: Tensor, device: torch.device | str) -> Tensor:
        """``prepare`` crops of the host for a device, each step where it is cheap; the host does not wait."""
        return self.prepare(crops.to(device))

    def picture(self, values: Tensor) -> Tensor:
        """(B, channels, S, S) from the model, or its input -> (B, 3, S, S) in [-1, 1], to look at."""
        return values.clamp(-1, 1)


class Photograph(View):
    """The crops as they are, in [-1, 1]."""


class Edges(View):
    """White outlines on black: Canny, "A Computational Approach to Edge Detection" (1986), as scikit-image does it.

    The grey image (ITU-R BT.601) is smoothed by a Gaussian of ``sigma`` pixels: at 2, most of the texture of a
    photograph is gone and its outlines stay (of 256-pixel crops of ADE20K 7 % of the pixels are edges, and 14 % at 1).
    A gradient above 0.2 of white per pixel begins an edge, one above 0.1 goes on with it.
    """

    sigma = 2.0

    def prepare(self, crops: Tensor) -> Tensor:
        """See ``View``; computed on the host, for which crops on another device have to come back."""
        from skimage.feature import canny  # imported here: the other views do without it

        grey = (crops.cpu().float() * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1) / 255
        edges = np.stack([canny(image, self.sigma) for image in grey.numpy()])
        return (torch.from_numpy(edges)[:, None].float() * 2 - 1).repeat(1, 3, 1, 1).to(crops.device)

    def load(self, crops: Tensor, device: torch.device | str) -> Tensor:
        """See ``View``."""
        return self.prepare(crops).to(device)


class LowResolution(View):
    """The mean of each square of ``factor`` x ``factor`` pixels, in all of its places."""

    number = Number("the factor", 2, 256, default=4)

    def __init__(self, spec: str, number: int):
        super().__init__(spec)
        self.factor = number

    def prepare(self, crops: Tensor) -> Tensor:
        """See ``View``."""
        return F.interpolate(F.avg_pool2d(normalize(crops), self.factor), scale_factor=self.factor, mode="nearest")


class Segmentation(View):
    """One channel per label, 1 where the label is and 0 elsewhere; the model gives logits.

    CompVis/taming-transformers, ``VQSegmentationModel``.
    """

    maps = "segmentation"
    number = Number("the number of labels", 2, _MOST_LABELS, default=None)

    def __init__(self, spec: str, number: int):
        super().__init__(spec)
        self.channels = self.labels = number

    def over(self, images: Images) -> Images:
        """See ``View``."""
        mapped = super().over(images)
        if mapped.maps is not None and mapped.maps.highest >= self.channels:
            raise InputError(
                f"data set {images.kind!r} has label id {mapped.maps.highest}: view {self.spec} has room for ids up to "
                f"{self.channels - 1}; write segmentation:{mapped.maps.highest + 1}"
            )
        return mapped

    def prepare(self, crops: Tensor) -> Tensor:
        """See ``View``; ids beyond the labels are an error of the device: ``over`` is who looks for them."""
        B, _, height, width = crops.shape
        empty = torch.zeros(B, self.channels, height, width, device=crops.device)
        return empty.scatter_(1, crops.long(), 1.0)

    def picture(self, values: Tensor) -> Tensor:
        """See ``View``: the likeliest label of each pixel, in a colour of its own."""
        colours = torch.from_numpy(label_colours()).to(values.device)
        return colours[values.argmax(1)].permute(0, 3, 1, 2) / 127.5 - 1


class Depth(View):
    """A depth map as a grey image, in [-1, 1]."""

    maps = "depth"

    def prepare(self, crops: Tensor) -> Tensor:
        """See ``View``."""
        return normalize(crops).repeat(1, 3, 1, 1)


VIEWS: dict[str, type[View]] = {
    "image": Photograph,
    "edges": Edges,
    "lowres": LowResolution,
    "segmentation": Segmentation,
    "depth": Depth,
}


def view_named(spec: str) -> View:
    """The view that a spec names.

    Raises:
        InputError: There is no such view, or it takes no number, or not this one.
    """
    name, colon, text = spec.partition(":")
    if name not in VIEWS:
        raise unknown("view", name, VIEWS)
    view = VIEWS[name]
    if view.number is None:
        if colon:
            raise InputError(f"view {spec!r}: {name} takes no number")
        return view(spec)
    what, smallest, largest, number = view.number
    if colon:
        number = int(text) if text.isascii() and text.isdigit() else None
    if number is None or not smallest <= number <= largest:
        raise InputError(f"view {spec!r} should read {name}:N, where N is {what}, {smallest} to {largest}")
    return view(spec, number)


@cache
def label_colours() -> np.ndarray:
    """(256, 3) uint8: black, and then always the colour that differs most from all before it, whatever the labels.

    The candidates are random, from a fixed seed; differences are distances in CIELAB.
    """
    from skimage.color import rgb2lab

    candidates = np.random.default_rng(0).integers(0, 256, (4096, 3), np.uint8)
    candidates[0] = 0
    places = rgb2lab(candidates / 255)
    chosen, distances = [0], np.full(len(candidates), np.inf)
    while len(chosen) < _MOST_LABELS:
        distances = np.minimum(distances, ((places - places[chosen[-1]]) ** 2).sum(1))
        chosen.append(int(distances.argmax()))
    return candidates[chosen]

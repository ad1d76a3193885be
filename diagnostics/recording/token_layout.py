"""What the axes of an array of tokens are: images, layers of a residual quantizer, tokens."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, unknown

#: Axes that tell which tokens belong together. They mean the same; the name is what they are called in what is told.
UNITS = ("images", "items", "clips")
AXES = (*UNITS, "layers", "tokens")
#: Numbers that are looked at at a time.
CHUNK = 1 << 22


@dataclass(frozen=True)
class TokenLayout:
    """Tokens with their axes by name.

    Attributes:
        tokens: Integers; a memory map stays one.
        axes: The name of each axis: ``images`` (or ``items``, or ``clips``) at most once, ``layers`` at most once, and
            ``tokens`` for any that are left, such as height and width.

    Raises:
        InputError: An axis has no such name, or not each has one.
    """

    tokens: NDArray[np.integer]
    axes: tuple[str, ...]

    @classmethod
    def of(cls, tokens: NDArray[np.integer], layout: str | None) -> "TokenLayout":
        """The layout that is told, ``images,layers,tokens``; else images before tokens, or tokens alone."""
        if layout is None:
            first = ("images",) if tokens.ndim > 1 else ()
            return cls(tokens, first + ("tokens",) * (tokens.ndim - len(first)))
        return cls(tokens, tuple(name.strip() for name in layout.split(",")))

    def __post_init__(self) -> None:
        for name in self.axes:
            if name not in AXES:
                raise unknown("axis", name, AXES)
        told = ",".join(self.axes)
        if len(self.axes) != self.tokens.ndim:
            shape = " x ".join(f"{size:,}" for size in self.tokens.shape)
            raise InputError(
                f"layout {told} names {len(self.axes)} axes, the tokens have {self.tokens.ndim}: {shape}", "layout"
            )
        if sum(name in UNITS for name in self.axes) > 1 or self.axes.count("layers") > 1:
            raise InputError(f"layout {told} names an axis of images or of layers twice", "layout")

    @property
    def unit(self) -> str | None:
        """What the images are called; None where it is not told which tokens belong together."""
        return next((name for name in self.axes if name in UNITS), None)

    @property
    def units(self) -> int:
        """Images; the tokens along the first axis where it is not told."""
        return len(self._arranged)

    @property
    def layers(self) -> int | None:
        """Q; None where there is no such axis."""
        return self.tokens.shape[self.axes.index("layers")] if "layers" in self.axes else None

    @cached_property
    def _arranged(self) -> NDArray[np.integer]:
        """A view with the images in front and the layers, one at least, at the end."""
        array, axes = self.tokens, [*self.axes]
        if self.layers is None:
            array = array[..., None]
        else:
            array = np.moveaxis(array, axes.index("layers"), -1)
            axes.remove("layers")
        if self.unit is not None:
            array = np.moveaxis(array, axes.index(self.unit), 0)
        return array if axes else array[None]

    def chunks(self) -> Iterator[tuple[int, NDArray[np.integer]]]:
        """The (n, T, Q) tokens of some images at a time, with the number of the first of them."""
        array = self._arranged
        step = max(1, CHUNK // max(1, array[0].size))
        for start in range(0, len(array), step):
            part = np.asarray(array[start : start + step])
            yield start, part.reshape(len(part), -1, part.shape[-1])

    def __str__(self) -> str:
        named = zip(self.tokens.shape, self.axes, strict=True)
        return " x ".join(f"{size:,} {name}" for size, name in named)

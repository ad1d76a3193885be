"""Which images a run sees, as settings."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from ..config.base import Settings
from .views import view_named


class DataSettings(Settings):
    """Which images."""

    spec: str = "photos"
    """``photos``, ``folder:PATH``, ``pairs:PATH``, ``cifar10:PATH``, ``mnist:PATH`` or ``fashion-mnist:PATH``."""
    view: str = "image"
    """What is seen of them: ``image``, ``edges``, ``lowres:FACTOR``; with ``pairs`` ``segmentation:LABELS`` or
    ``depth``."""
    image_size: Annotated[int, Field(ge=8)] = 256
    """Height and width of the crops in pixels."""
    flip: bool = True
    """Flip training crops left to right at random."""
    skip_unreadable: bool = False
    """Leave unreadable files out and list them, instead of stopping."""
    download: bool = False
    """Let torchvision fetch its data sets."""
    cache: Path | None = None
    """Folder of the decoded images; by default the user's cache folder."""

    @model_validator(mode="after")
    def _view_fits(self) -> Self:
        factor, side = view_named(self.view).factor, self.image_size
        if side % factor:
            divisors = [number for number in range(2, side + 1) if side % number == 0]
            nearest = min(divisors, key=lambda number: abs(number - factor))
            raise ValueError(
                f"data.view {self.view}: {factor} does not divide data.image_size {side}; "
                f"the nearest that does is lowres:{nearest}"
            )
        return self

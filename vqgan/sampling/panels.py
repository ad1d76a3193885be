"""Panels of images with labels, for people to look at."""

from bisect import bisect_right
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from math import ceil
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps
from PIL.ImageFont import FreeTypeFont as Font
from torch import Tensor

from ...diagnostics.errors import InputError
from ...diagnostics.files import replacing
from ..data.images import to_unit_range

_GAP = 4
_ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"
_MOST_LINES = 3
_MOST_CHARACTERS = 500


def to_pixels(images: Tensor) -> NDArray[np.uint8]:
    """(..., 3, H, W) in [-1, 1], clamped -> (..., H, W, 3) of 8 bits, rounded."""
    return to_unit_range(images.detach().float()).mul_(255).round_().to(torch.uint8).movedim(-3, -1).cpu().numpy()


def save_png(image: Image.Image, path: Path) -> None:
    """Write ``image`` beside ``path`` and rename it into place."""
    with replacing(path) as beside:
        image.save(beside, "PNG")


def panel(
    images: Tensor,
    *,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    captions: Sequence[str] | None = None,
    columns_per_row: int = 8,
    least_cell: int = 96,
) -> Image.Image:
    """A grid of images on white, with labels; a label that finds no room ends with an ellipsis.

    Args:
        images: (R, C, 3, H, W), or (N, 3, H, W) to be set in rows, in [-1, 1]; values beyond are clamped.
        rows: Labels at the left, R.
        columns: Labels above, C.
        captions: Labels under the images, one each, row by row.
        columns_per_row: The most images in a row of (N, 3, H, W).
        least_cell: Pixels of a cell's shorter side, at least: small images are enlarged by a whole factor, unsmoothed.

    Raises:
        InputError: There is no image, the shape is another, or labels are more or fewer than what they label.
    """
    if images.ndim not in (4, 5) or images.numel() == 0 or images.shape[-3] != 3:
        raise InputError(f"a panel is of (R, C, 3, H, W) or (N, 3, H, W) images, not {tuple(images.shape)}")
    C = images.shape[1] if images.ndim == 5 else min(columns_per_row, len(images))
    cells = [_enlarged(pixels, least_cell) for pixels in to_pixels(images.reshape(-1, *images.shape[-3:]))]
    R, (width, height) = ceil(len(cells) / C), cells[0].size
    for name, labels, count in (("rows", rows, R), ("columns", columns, C), ("captions", captions, len(cells))):
        if labels is not None and len(labels) != count:
            raise InputError(f"a panel of {R} x {C} cells has {count} labels for its {name}, not {len(labels)}")
    font = _font(min(24, max(13, height // 10)))
    beside = [] if rows is None else _row_labels(rows, font, 2 * width, height)
    lines = []
    for row in range(R):
        line = cells[row * C : (row + 1) * C]
        if captions is not None:
            below = _labels(captions[row * C : (row + 1) * C], font, width, "a")
            line = [_stacked(pair) for pair in zip(line, below, strict=True)]
        lines.append(_abreast([*beside[row : row + 1], *line]))
    if columns is not None:
        corner = [_blank(label.width, 0) for label in beside[:1]]
        lines.insert(0, _abreast([*corner, *_labels(columns, font, width, "d")]))
    return ImageOps.expand(_stacked(lines), border=_GAP, fill="white")


def _enlarged(pixels: NDArray[np.uint8], least: int) -> Image.Image:
    factor = max(1, ceil(least / min(pixels.shape[:2])))
    image = Image.fromarray(pixels)
    return image.resize((factor * image.width, factor * image.height), Image.Resampling.NEAREST)


def _abreast(images: Sequence[Image.Image]) -> Image.Image:
    """From left to right, tops in line."""
    page = _blank(sum(image.width + _GAP for image in images) - _GAP, max(image.height for image in images))
    left = 0
    for image in images:
        page.paste(image, (left, 0))
        left += image.width + _GAP
    return page


def _stacked(images: Sequence[Image.Image]) -> Image.Image:
    """From top to bottom, left sides in line."""
    page = _blank(max(image.width for image in images), sum(image.height + _GAP for image in images) - _GAP)
    top = 0
    for image in images:
        page.paste(image, (0, top))
        top += image.height + _GAP
    return page


def _blank(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), "white")


def _labels(texts: Sequence[str], font: Font, width: int, side: str) -> list[Image.Image]:
    """Each centred in a box of ``width``, all boxes of one height; at the box's top ("a") or its bottom ("d")."""
    wrapped = [_wrapped(_legible(text), font, width, _MOST_LINES) for text in texts]
    height = max(map(len, wrapped)) * _line_height(font)
    return [_written(lines, font, (width, height), f"m{side}") for lines in wrapped]


def _row_labels(texts: Sequence[str], font: Font, most: int, height: int) -> list[Image.Image]:
    """Each at the right of a box of ``height``, half way down, all boxes as wide as the widest label."""
    wrapped = [_wrapped(_legible(text), font, most, max(1, height // _line_height(font))) for text in texts]
    width = max((ceil(font.getlength(line)) for lines in wrapped for line in lines), default=0)
    return [_written(lines, font, (width, height), "rm") for lines in wrapped]


def _written(lines: Sequence[str], font: Font, size: tuple[int, int], anchor: str) -> Image.Image:
    """A box of ``size`` with the lines at the side that ``anchor`` names, as Pillow's text anchors do."""
    (width, height), line_height = size, _line_height(font)
    left = {"m": width / 2, "r": width}[anchor[0]]
    free = height - len(lines) * line_height
    top = {"a": 0, "m": free // 2, "d": free}[anchor[1]]
    box = _blank(width, height)
    pen = ImageDraw.Draw(box)
    for i, line in enumerate(lines):
        pen.text((left, top + i * line_height), line, fill="black", font=font, anchor=f"{anchor[0]}a")
    return box


def _wrapped(text: str, font: Font, width: int, most: int) -> list[str]:
    """``text`` in at most ``most`` lines of ``width`` pixels, broken at spaces where there are any."""
    fitting = _fitting(text, font, width)
    if fitting == len(text):
        return [text]
    if most == 1:
        return [text[: _fitting(text, font, width - font.getlength(_ELLIPSIS))].rstrip() + _ELLIPSIS]
    space = text.rfind(" ", 0, fitting + 1)
    end = space if space > 0 else max(1, fitting)
    return [text[:end], *_wrapped(text[end:].lstrip(), font, width, most - 1)]


def _fitting(text: str, font: Font, width: float) -> int:
    """How many characters from the first on are at most ``width`` pixels wide."""
    return bisect_right(range(1, len(text) + 1), width, key=lambda end: font.getlength(text[:end]))


def _legible(text: str) -> str:
    """One line of what can be drawn."""
    return " ".join("".join(c if c.isprintable() or c.isspace() else "?" for c in text[:_MOST_CHARACTERS]).split())


def _line_height(font: Font) -> int:
    return sum(font.getmetrics())


@cache
def _font(size: int) -> Font:
    """DejaVu Sans, which comes with matplotlib and knows Latin, Greek and Cyrillic; Pillow's own font is ASCII."""
    found = find_spec("matplotlib")  # which is not imported for it: figures belong to reports
    assert found is not None
    assert found.origin is not None
    return ImageFont.truetype(Path(found.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf", size)

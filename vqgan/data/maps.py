"""From the file of a map to one plane of bytes over its image."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ...diagnostics.errors import InputError
from .source import MapKind, Pixels, unreadable

_ORIENTATION = 0x0112  # the EXIF tag
_MODES: dict[MapKind, tuple[str, ...]] = {
    "segmentation": ("1", "L", "P", "I;16", "I;16B", "I"),
    "depth": ("L", "I;16", "I;16B", "I"),
}


def read_map(path: Path, kind: MapKind, image_path: Path, size: tuple[int, int]) -> Pixels:
    """A map, upright as its image is and resized with it.

    A segmentation keeps its ids, each from the nearest pixel; depth is interpolated linearly, antialiased, and 16 bits
    are scaled down to 8, all of their range to all of it.

    Args:
        path: The map.
        kind: What it holds.
        image_path: Its image.
        size: Width and height of the decoded image.

    Returns:
        (height, width) uint8.

    Raises:
        InputError: the map cannot be read, its mode is not one for its kind, it has ids above 255, it has another shape
            than its image, or one of the two is turned by EXIF and the other is not.
    """
    with Image.open(image_path) as image:
        shape, orientation = image.size, _orientation(image)
    try:
        with Image.open(path) as file:
            turned, map_shape, map_orientation = ImageOps.exif_transpose(file), file.size, _orientation(file)
    except Exception:  # a broken file makes a decoder raise nearly anything
        raise unreadable(str(path)) from None
    if turned.mode not in _MODES[kind]:
        raise _unfit(path, f"has mode {turned.mode}, not one of a {kind} map ({', '.join(_MODES[kind])})")
    # Upright and lying are told apart by the size, upside down and mirrored are not: nobody could say what was meant.
    if orientation != map_orientation:
        raise _unfit(path, f"has EXIF orientation {map_orientation} and its image {orientation}")
    if not _same_shape(shape, map_shape):
        raise _unfit(path, f"is {_told(map_shape)} and its image {_told(shape)}, which is another shape")
    return _labels(path, turned, size) if kind == "segmentation" else _depths(turned, size)


def _labels(path: Path, image: Image.Image, size: tuple[int, int]) -> Pixels:
    ids = np.asarray(image)
    if ids.max() > 255:
        raise _unfit(path, f"has label id {ids.max()}, and 255 is the largest that is allowed")
    resized = Image.fromarray(ids.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
    return np.asarray(resized)


def _depths(image: Image.Image, size: tuple[int, int]) -> Pixels:
    depths = np.asarray(image, np.float32) / (1 if image.mode == "L" else 257)
    return np.rint(np.asarray(Image.fromarray(depths).resize(size, Image.Resampling.BILINEAR))).astype(np.uint8)


def _orientation(image: Image.Image) -> int:
    return image.getexif().get(_ORIENTATION, 1)


def _same_shape(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes are the same but for scale, to the pixel."""
    return abs(one[0] * other[1] - one[1] * other[0]) <= max(one)


def _told(size: tuple[int, int]) -> str:
    return "x".join(map(str, size))


def _unfit(path: Path, why: str) -> InputError:
    line = f"map {str(path)!r} {why}: mend it, or leave such images out (skip_unreadable)"
    return InputError(line, "skip_unreadable")

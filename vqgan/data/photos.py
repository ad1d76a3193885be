"""The embedded data set: random crops of the photographs that come with scikit-image. No network, no download."""

from functools import partial
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image

from ...diagnostics.errors import InputError
from .decoding import planes, to_rgb
from .source import SPLITS, Corner, Picture, Pixels, Source, digest, fingerprint

PHOTOGRAPHS = {
    "astronaut": "astronaut.png",
    "brick": "brick.png",
    "camera": "camera.png",
    "chelsea": "chelsea.png",
    "coffee": "coffee.png",
    "coins": "coins.png",
    "grass": "grass.png",
    "gravel": "gravel.png",
    "hubble_deep_field": "hubble_deep_field.jpg",
    "ihc": "ihc.png",
    "moon": "moon.png",
    "motorcycle_left": "motorcycle_left.png",
    "retina": "retina.jpg",
    "rocket": "rocket.jpg",
}
EVALUATION_CROPS = 64


def photos(image_size: int) -> Source:
    """Crops of scikit-image's photographs at their full resolution; the class is the photograph, grey ones are RGB too.

    Each photograph is cut once across its longer side: the first 70 % is for training, and the rest is halved across
    the other side into validation and test (15 % each), so that no pixel is in two splits. An epoch of training has as
    many crops as non-overlapping tiles fit into the training regions. Validation and test are those tiles themselves,
    of each photograph at most `EVALUATION_CROPS`, evenly spread, so that evaluation stays cheap.

    A photograph whose validation region is smaller than the image size is left out, with its class: all 14 serve up to
    116 pixels, 13 up to 136, 12 up to 154, 5 up to 180, hubble_deep_field and retina up to 300, retina up to 424.

    Raises:
        InputError: no photograph is large enough, or scikit-image came without them.
    """
    classes, pictures, entries, largest = [], [], [], 0
    for name, path in _paths().items():
        limit = _largest_crop(path)
        largest = max(largest, limit)
        if limit < image_size:
            continue
        content = digest(path.read_bytes())
        for split in SPLITS:
            entries.append((split, len(classes), content))
            pictures.append(Picture(split, len(classes), f"{name} ({split})", partial(_load, path, split)))
        classes.append(name)
    if not classes:
        raise InputError(f"image size {image_size} is too large for the photos: they allow at most {largest} pixels")
    key = fingerprint("photos", image_size, classes, entries)
    return Source("photos", key, tuple(classes), pictures, partial(tiles, image_size))


def region(split: str, height: int, width: int) -> tuple[slice, slice]:
    """The rows and columns of a photograph that belong to a split."""
    if height > width:
        columns, rows = region(split, width, height)
        return rows, columns
    cut, half = width * 7 // 10, height // 2
    return {
        "train": (slice(0, height), slice(0, cut)),
        "validation": (slice(0, half), slice(cut, width)),
        "test": (slice(half, height), slice(cut, width)),
    }[split]


def tiles(image_size: int, split: str, height: int, width: int) -> list[Corner]:
    """Corners of the non-overlapping crops of a region: all for training, else `EVALUATION_CROPS`, evenly spread."""
    corners = [
        (top, left)
        for top in range(0, height - image_size + 1, image_size)
        for left in range(0, width - image_size + 1, image_size)
    ]
    if split == "train" or len(corners) <= EVALUATION_CROPS:
        return corners
    return [corners[i] for i in np.linspace(0, len(corners) - 1, EVALUATION_CROPS).round().astype(int)]


def _largest_crop(path: Path) -> int:
    with Image.open(path) as image:
        width, height = image.size
    return min(place.stop - place.start for split in SPLITS for place in region(split, height, width))


def _load(path: Path, split: str) -> Pixels:
    with Image.open(path) as image:
        rgb = planes(to_rgb(image))
    rows, columns = region(split, *rgb.shape[1:])
    return np.ascontiguousarray(rgb[:, rows, columns])


def _paths() -> dict[str, Path]:
    # The files inside the installed package: skimage.data's functions may start a download when one is missing.
    folder = Path(str(files("skimage") / "data"))
    paths = {name: folder / file for name, file in PHOTOGRAPHS.items()}
    for path in paths.values():
        if not path.is_file():
            raise InputError(f"the installed scikit-image came without its photograph {path.name!r}: reinstall it")
    return paths

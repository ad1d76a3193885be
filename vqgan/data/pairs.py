"""Images of one's own with a map of each: which label is where, or how far away it is."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np

from ...diagnostics.errors import InputError
from .decoding import read_image
from .folder import content_digest, file_source, split_files
from .maps import read_map
from .source import MapKind, Pixels, Source, digest
from .threads import in_threads


def pairs(root: Path, image_size: int) -> Source:
    """The images below `root/images`, as `folder` takes them, each with its map from `segmentations` or `depths`.

    The map of `images/train/cat/1.jpg` is `segmentations/train/cat/1.png`; maps of no image are not looked at. A
    segmentation has the id of a label at each pixel, grey or as indices into a palette, 0 to 255; a depth map is grey
    of 8 or 16 bits. Which split an image is in depends on the image alone.

    Raises:
        InputError: a folder is missing, there are maps of both kinds or of none, or the images are as `split_files`
            refuses them. The source's pictures raise it for a map that is missing, or as `read_map` refuses it.
    """
    kind = _kind(root)
    map_of = partial(_map_of, root / "images", root / f"{kind}s")
    files = split_files(root / "images")
    contents = in_threads(content_digest, [map_of(file.path) for file in files])
    both = [file._replace(content=digest(file.content + other)) for file, other in zip(files, contents, strict=True)]
    load = partial(_read_pair, map_of=map_of, kind=kind, image_size=image_size)
    return file_source(f"pairs-{kind}", both, image_size, load, kind)


def _kind(root: Path) -> MapKind:
    if not (root / "images").is_dir():
        raise InputError(f"data folder {str(root)!r} has no images/")
    present = [kind for kind in get_args(MapKind) if (root / f"{kind}s").is_dir()]
    if len(present) != 1:
        found = "has both segmentations/ and depths/" if present else "has neither segmentations/ nor depths/"
        raise InputError(f"data folder {str(root)!r} {found}: one of them goes with images/")
    return present[0]


def _map_of(images: Path, maps: Path, path: Path) -> Path:
    return (maps / path.relative_to(images)).with_suffix(".png")


def _read_pair(path: Path, map_of: Callable[[Path], Path], kind: MapKind, image_size: int) -> Pixels:
    """(4, height, width) uint8: the image as `read_image` gives it, and its map brought to the same size."""
    partner = map_of(path)
    if not partner.is_file():
        line = f"{str(path)!r} has no map {str(partner)!r}: add it, or leave it out (skip_unreadable)"
        raise InputError(line, "skip_unreadable")
    image = read_image(path, image_size)
    return np.concatenate([image, read_map(partner, kind, path, (image.shape[2], image.shape[1]))[None]])

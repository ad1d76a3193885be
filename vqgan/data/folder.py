"""Images of one's own: a folder with splits and classes, or without."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ...diagnostics.errors import InputError
from .decoding import read_image
from .source import SPLITS, MapKind, Picture, Pixels, Source, centre, digest, fingerprint
from .threads import in_threads

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
UNLABELLED = "unlabelled"


class File(NamedTuple):
    """An image file that was found below a folder, with the digest of its bytes."""

    split: str
    class_name: str
    path: Path
    content: bytes


def folder(root: Path, image_size: int) -> Source:
    """The images below a folder, each resized once so that its shorter side is the image size.

    Args:
        root: The folder, see `split_files`.
        image_size: Side of the crops.

    Raises:
        InputError: the folder is missing, has some of the splits only, or a split has no image.
    """
    return file_source("folder", split_files(root), image_size, partial(read_image, image_size=image_size))


def split_files(root: Path) -> list[File]:
    """The image files below a folder, split by split and ordered by path.

    With `train/`, `validation/` and `test/` inside, those are the splits. With none of them the images are split
    80 / 10 / 10 by the order of their content digests: names do not matter, equal files land in one split, and at
    least one image goes to each. The class of an image is the first folder below its split (or below `root`); images
    directly inside are of class `UNLABELLED`. Files and folders whose name starts with a dot are not looked at.

    Raises:
        InputError: the folder is missing, has some of the splits only, or a split has no image.
    """
    if not root.is_dir():
        raise InputError(f"data folder {str(root)!r} {'is not a folder' if root.exists() else 'does not exist'}")
    present = [split for split in SPLITS if (root / split).is_dir()]
    if present and len(present) < len(SPLITS):
        missing = ", ".join(f"{split}/" for split in SPLITS if split not in present)
        raise InputError(
            f"data folder {str(root)!r} has {present[0]}/ but not {missing}: give all three, or none of them"
        )
    if present:
        return [file for split in SPLITS for file in _find(root / split, split)]
    return _divided(_find(root, SPLITS[0]), root)


def file_source(
    kind: str, files: list[File], image_size: int, load: Callable[[Path], Pixels], maps: MapKind | None = None
) -> Source:
    """The source of these files, each decoded by `load` and evaluated on the crop at its centre."""
    classes = tuple(sorted({file.class_name for file in files}))
    labels = {name: label for label, name in enumerate(classes)}
    pictures = [
        Picture(file.split, labels[file.class_name], str(file.path), partial(load, file.path)) for file in files
    ]
    entries = ((file.split, labels[file.class_name], file.content) for file in files)
    return Source(kind, fingerprint(kind, image_size, classes, entries), classes, pictures, centre(image_size), maps)


def _find(root: Path, split: str) -> list[File]:
    """All image files below a folder, ordered by path."""
    paths = sorted(_image_paths(root))
    if not paths:
        raise InputError(f"data folder {str(root)!r} has no image ({', '.join(SUFFIXES)})")
    contents = in_threads(content_digest, paths)
    return [File(split, _class_name(path, root), path, content) for path, content in zip(paths, contents, strict=True)]


def _image_paths(root: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield Path(place, name)


def _class_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).parts
    return parts[0] if len(parts) > 1 else UNLABELLED


def content_digest(path: Path) -> bytes:
    """Fingerprint of a file's bytes, and that of none where it cannot be read."""
    try:
        return digest(path.read_bytes())
    except OSError:  # decoding will stumble over this file again, and say so
        return digest(b"")


def _divided(files: list[File], root: Path) -> list[File]:
    contents = sorted({file.content for file in files})
    if len(contents) < len(SPLITS):
        raise InputError(
            f"data folder {str(root)!r} has {len(contents)} different image(s): at least {len(SPLITS)} are needed to "
            "split them into train, validation and test"
        )
    tenth = max(1, round(len(contents) / 10))
    order = ["validation"] * tenth + ["test"] * tenth + ["train"] * (len(contents) - 2 * tenth)
    split_of = dict(zip(contents, order, strict=True))
    files = [file._replace(split=split_of[file.content]) for file in files]
    return sorted(files, key=lambda file: SPLITS.index(file.split))

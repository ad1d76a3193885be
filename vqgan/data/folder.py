"""Images of one's own: a folder with splits and classes, or without."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ...diagnostics.errors import InputError
from .decoding import read_image
from .source import SPLITS, Picture, Source, centre, digest, fingerprint
from .threads import in_threads

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
UNLABELLED = "unlabelled"


class _File(NamedTuple):
    path: Path
    class_name: str
    content: bytes


def folder(root: Path, image_size: int) -> Source:
    """The images below a folder, each resized once so that its shorter side is the image size.

    With `train/`, `validation/` and `test/` inside, those are the splits. With none of them the images are split
    80 / 10 / 10 by the order of their content digests: names do not matter, equal files land in one split, and at
    least one image goes to each. The class of an image is the first folder below its split (or below `root`); images
    directly inside are of class `UNLABELLED`. Files and folders whose name starts with a dot are not looked at.

    Args:
        root: The folder.
        image_size: Side of the crops.

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
    files = {split: _find(root / split) for split in SPLITS} if present else _divide(_find(root), root)
    return _source(files, image_size)


def _source(files: dict[str, list[_File]], image_size: int) -> Source:
    everything = [(split, file) for split in SPLITS for file in files[split]]
    classes = tuple(sorted({file.class_name for _, file in everything}))
    labels = {name: label for label, name in enumerate(classes)}
    pictures = [
        Picture(split, labels[file.class_name], str(file.path), partial(read_image, file.path, image_size))
        for split, file in everything
    ]
    entries = ((split, labels[file.class_name], file.content) for split, file in everything)
    return Source(fingerprint("folder", image_size, classes, entries), classes, pictures, centre(image_size))


def _find(root: Path) -> list[_File]:
    """All image files below a folder, ordered by path, with their class and content digest."""
    paths = sorted(_image_paths(root))
    if not paths:
        raise InputError(f"data folder {str(root)!r} has no image ({', '.join(SUFFIXES)})")
    contents = in_threads(_digest, paths)
    return [_File(path, _class_name(path, root), content) for path, content in zip(paths, contents, strict=True)]


def _image_paths(root: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield Path(place, name)


def _class_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).parts
    return parts[0] if len(parts) > 1 else UNLABELLED


def _digest(path: Path) -> bytes:
    try:
        return digest(path.read_bytes())
    except OSError:  # decoding will stumble over this file again, and say so
        return digest(b"")


def _divide(files: list[_File], root: Path) -> dict[str, list[_File]]:
    contents = sorted({file.content for file in files})
    if len(contents) < len(SPLITS):
        raise InputError(
            f"data folder {str(root)!r} has {len(contents)} different image(s): at least {len(SPLITS)} are needed to "
            "split them into train, validation and test"
        )
    tenth = max(1, round(len(contents) / 10))
    order = ["validation"] * tenth + ["test"] * tenth + ["train"] * (len(contents) - 2 * tenth)
    split_of = dict(zip(contents, order, strict=True))
    return {split: [file for file in files if split_of[file.content] == split] for split in SPLITS}

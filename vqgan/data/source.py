"""What every kind of data set hands over before anything is decoded: its pictures, and a fingerprint of them."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...diagnostics.errors import InputError

SPLITS = ("train", "validation", "test")

#: What the fourth plane of a picture may hold: the id of a label at each pixel, or how far away it is.
MapKind: TypeAlias = Literal["segmentation", "depth"]
Pixels: TypeAlias = NDArray[np.uint8]
Corner: TypeAlias = tuple[int, int]


class Picture(NamedTuple):
    """One picture to decode.

    Attributes:
        split: One of `SPLITS`.
        label: Position of its class in `Source.classes`.
        name: What an error message calls it.
        load: Decodes it, (3, height, width) uint8, both sides at least the image size; (4, height, width) in a source
            with maps. It raises `InputError` where it knows what to say, and anything else on a file that is broken.
    """

    split: str
    label: int
    name: str
    load: Callable[[], Pixels]


@dataclass(frozen=True)
class Source:
    """A data set that was looked at and not yet decoded.

    Attributes:
        kind: What an error message calls the data set.
        key: Fingerprint of everything that decides about the decoded pixels; it names the cache.
        classes: Names of the classes.
        pictures: All pictures of all splits, in a fixed order.
        corners: From the split, height and width of a decoded picture to the top left corners of its fixed crops;
            the picture counts as that many images of an epoch.
        maps: What the fourth plane of its pictures holds; None where they have three.
    """

    kind: str
    key: str
    classes: tuple[str, ...]
    pictures: list[Picture]
    corners: Callable[[str, int, int], list[Corner]]
    maps: MapKind | None = None


def unreadable(name: str) -> InputError:
    """The error for a file that no decoder understands."""
    line = f"{name!r} cannot be read as an image: mend or remove it, or leave such files out (skip_unreadable)"
    return InputError(line, "skip_unreadable")


def centre(image_size: int) -> Callable[[str, int, int], list[Corner]]:
    """One fixed crop a picture, from its centre."""
    return lambda split, height, width: [((height - image_size) // 2, (width - image_size) // 2)]


def digest(content: bytes) -> bytes:
    """Fingerprint of the content of one picture: BLAKE2b (RFC 7693), 16 bytes, faster than reading a disk."""
    return hashlib.blake2b(content, digest_size=16).digest()


def fingerprint(kind: str, image_size: int, classes: Iterable[str], entries: Iterable[tuple[str, int, bytes]]) -> str:
    """The key of a source: kind, image size, and a digest of the classes and of (split, label, content) a picture."""
    # The number is the version of the decoding: whoever changes which pixels a picture gives counts it up.
    summary = hashlib.blake2b(repr((1, tuple(classes))).encode(), digest_size=16)
    for split, label, content in entries:
        summary.update(f"{split} {label} ".encode() + content)
    return f"{kind}-{image_size}-{summary.hexdigest()}"

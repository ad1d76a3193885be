"""What every kind of data set hands over before anything is decoded: its pictures, and a fingerprint of them."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

SPLITS = ("train", "validation", "test")

Pixels: TypeAlias = NDArray[np.uint8]
Corner: TypeAlias = tuple[int, int]


class Picture(NamedTuple):
    """One picture to decode.

    Attributes:
        split: One of `SPLITS`.
        label: Position of its class in `Source.classes`.
        name: What an error message calls it.
        load: Decodes it, (3, height, width) uint8, both sides at least the image size.
    """

    split: str
    label: int
    name: str
    load: Callable[[], Pixels]


@dataclass(frozen=True)
class Source:
    """A data set that was looked at and not yet decoded.

    Attributes:
        key: Fingerprint of everything that decides about the decoded pixels; it names the cache.
        classes: Names of the classes.
        pictures: All pictures of all splits, in a fixed order.
        corners: From the split, height and width of a decoded picture to the top left corners of its fixed crops;
            the picture counts as that many images of an epoch.
    """

    key: str
    classes: tuple[str, ...]
    pictures: list[Picture]
    corners: Callable[[str, int, int], list[Corner]]


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

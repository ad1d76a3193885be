"""The small public data sets that torchvision reads: CIFAR-10, MNIST and Fashion-MNIST."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...diagnostics.errors import InputError
from .decoding import resized
from .source import Picture, Pixels, Source, centre, digest, fingerprint

PUBLIC = {"cifar10": "CIFAR10", "mnist": "MNIST", "fashion-mnist": "FashionMNIST"}


def public(name: str, root: Path, image_size: int, download: bool) -> Source:
    """A public data set in torchvision's own folder layout below `root`; grey images become RGB.

    Test is the official test set; of the official training set every tenth image is for validation.

    Args:
        name: A key of `PUBLIC`.
        root: What torchvision calls root: the folder that holds `cifar-10-batches-py`, `MNIST` or `FashionMNIST`.
        image_size: Side of the crops; images of another side are resized.
        download: Whether torchvision may fetch what is missing.

    Raises:
        InputError: the files are missing or broken, or cannot be downloaded.
    """
    learn, test = (_official(name, root, train, download) for train in (True, False))
    pictures = [
        _picture(learn, i, "validation" if i % 10 == 9 else "train", image_size) for i in range(len(learn.data))
    ]
    pictures += [_picture(test, i, "test", image_size) for i in range(len(test.data))]
    content = digest(
        b"".join(np.asarray(part).tobytes() for part in (learn.data, learn.targets, test.data, test.targets))
    )
    key = fingerprint(name, image_size, learn.classes, [("all", len(learn.data), content)])
    return Source(name, key, tuple(learn.classes), pictures, centre(image_size))


def _official(name: str, root: Path, train: bool, download: bool) -> Any:
    from torchvision import datasets  # imported here: it costs a second, and the other data sets do not need it

    try:
        return getattr(datasets, PUBLIC[name])(root, train=train, download=download)
    except (AssertionError, KeyError, OSError, RuntimeError, ValueError) as error:
        if download:
            raise InputError(f"{name} could not be downloaded to {str(root)!r}: {_line(error)}") from error
        line = f"{name} is missing or broken: set download, or give another folder than {str(root)!r}"
        raise InputError(line, "download") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _picture(official: Any, index: int, split: str, image_size: int) -> Picture:
    name = f"image {index} of the {'test' if split == 'test' else 'training'} set"
    return Picture(split, int(official.targets[index]), name, partial(_load, official.data, index, image_size))


def _load(data: Any, index: int, image_size: int) -> Pixels:
    return resized(Image.fromarray(np.asarray(data[index])).convert("RGB"), image_size)

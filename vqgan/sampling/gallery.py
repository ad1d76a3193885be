"""Many samples as files, written while the next ones are sampled."""

import csv
import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ...diagnostics.errors import InputError, RunFailedError
from .panels import to_pixels

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
_TABLE = "samples.csv"
_CHUNK = 16  # images per task: a hand-over between threads costs as much as encoding a very small image


class _Row(NamedTuple):
    """A line of the table."""

    file: str
    condition: str


class Gallery:
    """A folder that fills with ``000000.png``, ``000001.png``, ... and ``samples.csv`` (file, condition).

    Threads encode the images, a bounded number of them ahead. A row of the table is written after its image: the files
    that it names are whole. No file that exists is written to.

    Args:
        folder: Made where there is none; it may hold other files, but no image and no ``samples.csv``.

    Raises:
        InputError: The folder has images already, or there can be none.
    """

    def __init__(self, folder: Path):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            found = [name for name in os.listdir(folder) if name.lower().endswith(_SUFFIXES) or name == _TABLE]
        except OSError as error:
            raise InputError(f"folder {folder} cannot take samples: {error.strerror}") from error
        if found:
            raise InputError(f"folder {folder} already has samples, such as {min(found)}: give a new or an empty one")
        self.folder = folder
        self._count = 0
        self._workers = min(16, os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(self._workers)
        self._ahead: deque[Future[list[_Row]]] = deque()

    def add(self, images: Tensor, captions: Sequence[str] | None = None) -> None:
        """Write (B, 3, H, W) images in [-1, 1], clamped and rounded to 8 bits, with their conditions.

        Waits for the disk only where it is far behind.

        Raises:
            InputError: The captions are more or fewer than the images.
            RunFailedError: An image, perhaps one of an earlier call, could not be written.
        """
        captions = [""] * len(images) if captions is None else captions
        if len(captions) != len(images):
            raise InputError(f"{len(captions)} captions are given for {len(images)} images")
        rows = [_Row(f"{self._count + i:06d}.png", caption) for i, caption in enumerate(captions)]
        pixels = to_pixels(images)
        self._count += len(rows)
        for start in range(0, len(rows), _CHUNK):
            if len(self._ahead) > 2 * self._workers:
                self._settle()
            chunk = slice(start, start + _CHUNK)
            self._ahead.append(self._pool.submit(_write, self.folder, rows[chunk], pixels[chunk]))

    def close(self) -> None:
        """Wait until all is written.

        Raises:
            RunFailedError: An image could not be written.
        """
        try:
            while self._ahead:
                self._settle()
        finally:
            self._ahead.clear()
            self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> "Gallery":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _settle(self) -> None:
        """Wait for the oldest images, and write their rows."""
        try:
            rows = self._ahead.popleft().result()
            with (self.folder / _TABLE).open("a", newline="", encoding="utf-8", errors="backslashreplace") as file:
                header = [] if file.tell() else [_Row._fields]
                csv.writer(file).writerows([*header, *rows])
        except OSError as error:
            raise RunFailedError(f"samples cannot be written to {self.folder}: {error.strerror}") from error


def _write(folder: Path, rows: list[_Row], pixels: NDArray[np.uint8]) -> list[_Row]:
    """One file per row of the table; encoded in memory first, which is faster than piece by piece into a file."""
    for row, image in zip(rows, pixels, strict=True):
        encoded = BytesIO()
        Image.fromarray(image).save(encoded, "PNG", compress_level=1)
        with (folder / row.file).open("xb") as file:
            file.write(encoded.getbuffer())
    return rows

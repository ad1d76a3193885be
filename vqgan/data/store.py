"""The cache on disk: every picture decoded once, into one flat file that is memory-mapped afterwards.

A cache entry is a folder: `pixels.bin` (uint8, the pictures one after the other, each (3, height, width), or with its
map (4, height, width)), `crops.npy` ((N, 7) int64, see `CROP_FIELDS`) and `report.json`. It is written beside its place
and renamed into it.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

import numpy as np

from ...diagnostics.errors import InputError
from .images import DecodeReport, Images, Maps
from .source import SPLITS, Picture, Pixels, Source, unreadable
from .threads import in_threads

CROP_FIELDS = ("split", "offset", "height", "width", "top", "left", "label")
Progress = Callable[[Iterable], Iterable]

_ABANDONED_S = 24 * 3600


def cache_folder() -> Path:
    """`$VQTOOL_CACHE`, or `vqtool` in `$XDG_CACHE_HOME`, or in `~/.cache` (XDG Base Directory Specification)."""
    if chosen := os.environ.get("VQTOOL_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vqtool"


def decoded(
    source: Source, image_size: int, cache: Path, skip_unreadable: bool, progress: Progress
) -> dict[str, Images]:
    """The splits of a source, from the cache entry of its key; the entry is written first where there is none.

    Raises:
        InputError: a picture is unreadable and `skip_unreadable` is false, a split has no readable picture, or the
            cache cannot be written.
    """
    entry = cache / "images" / source.key
    cached = entry.is_dir()
    if not cached:
        try:
            _write(source, entry, skip_unreadable, progress)
        except OSError as error:
            raise InputError(
                f"cache folder {str(cache)!r} cannot be written ({error.strerror}): set VQTOOL_CACHE to another one"
            ) from error
    return _open(source, image_size, entry, cached, skip_unreadable)


def _open(source: Source, image_size: int, entry: Path, cached: bool, skip_unreadable: bool) -> dict[str, Images]:
    # A plain array over the mapping: slicing a np.memmap itself costs several microseconds a slice.
    pixels = np.asarray(np.memmap(entry / "pixels.bin", np.uint8, mode="r"))
    crops = np.load(entry / "crops.npy", allow_pickle=False)
    report = json.loads((entry / "report.json").read_text())
    skipped = [source.pictures[position] for position in report["skipped"]]
    if skipped and not skip_unreadable:
        raise _trouble(skipped[0])
    maps = Maps(source.maps, report["highest"]) if source.maps else None
    decode = DecodeReport(report["images"], report["seconds"], cached)
    splits = {}
    for number, split in enumerate(SPLITS):
        left_out = [picture.name for picture in skipped if picture.split == split]
        rows = crops[crops[:, 0] == number, 1:]
        key = f"{source.key}-{split}"
        splits[split] = Images(pixels, rows, image_size, source.classes, left_out, decode, source.kind, key, maps)
    return splits


def _write(source: Source, entry: Path, skip_unreadable: bool, progress: Progress) -> None:
    sweep(entry.parent)
    unfinished = entry.parent / f"unfinished-{uuid4().hex}"
    unfinished.mkdir(parents=True)
    try:
        _decode(source, unfinished, skip_unreadable, progress)
        unfinished.rename(entry)
    except OSError:
        if not entry.is_dir():  # else another process was faster, and its entry holds the same
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what killed processes left behind, and nothing that a running one may still be writing."""
    for unfinished in folder.glob("unfinished-*"):
        with suppress(FileNotFoundError):  # finished and renamed by another process just now
            if time.time() - unfinished.stat().st_mtime <= _ABANDONED_S:
                continue
            if unfinished.is_dir():
                shutil.rmtree(unfinished, ignore_errors=True)
            else:
                unfinished.unlink()


def _decode(source: Source, folder: Path, skip_unreadable: bool, progress: Progress) -> None:
    started = time.perf_counter()
    crops: list[tuple[int, ...]] = []
    skipped: list[int] = []
    highest = 0
    with (folder / "pixels.bin").open("wb") as file:
        for position, (picture, pixels) in enumerate(in_threads(_load, progress(source.pictures))):
            if pixels is None and not skip_unreadable:
                raise _trouble(picture)
            if pixels is None:
                skipped.append(position)
            else:
                crops += _append(file, source, picture, pixels)
                highest = max(highest, int(pixels[3:].max(initial=0)))
        os.fsync(file.fileno())
    _check_filled(crops)
    np.save(folder / "crops.npy", np.array(crops, np.int64))
    report = {
        "images": len(source.pictures) - len(skipped),
        "seconds": time.perf_counter() - started,
        "skipped": skipped,
        "highest": highest,
    }
    (folder / "report.json").write_text(json.dumps(report))


def _append(file: BinaryIO, source: Source, picture: Picture, pixels: Pixels) -> list[tuple[int, ...]]:
    offset, (height, width) = file.tell(), pixels.shape[1:]
    file.write(pixels.data)
    split = SPLITS.index(picture.split)
    corners = source.corners(picture.split, height, width)
    return [(split, offset, height, width, top, left, picture.label) for top, left in corners]


def _check_filled(crops: list[tuple[int, ...]]) -> None:
    filled = {crop[0] for crop in crops}
    for number, split in enumerate(SPLITS):
        if number not in filled:
            raise InputError(f"split {split!r} has no readable image left")


def _load(picture: Picture) -> tuple[Picture, Pixels | None]:
    try:
        return picture, picture.load()
    except Exception:  # a broken file makes a decoder raise nearly anything
        return picture, None


def _trouble(picture: Picture) -> InputError:
    """Why a picture could not be loaded, from a second try, in the words of its source where that has any."""
    try:
        picture.load()
    except InputError as error:
        return error
    except Exception:
        pass
    return unreadable(picture.name)

"""The codes of a split: computed once, memory-mapped afterwards."""

from pathlib import Path
from typing import Any, TypeAlias
from uuid import uuid4

import numpy as np
import torch
from numpy.typing import NDArray

from ...diagnostics.errors import InputError
from ...diagnostics.files import replacing
from ...diagnostics.progress import track
from ..data import Images
from ..data.store import sweep
from .tokenizer import Tokenizer

#: (N, h, w) code indices, memory-mapped.
Codes: TypeAlias = NDArray[Any]

#: Pixels that are encoded at once.
PIXELS = 1 << 20


def codes_of(tokenizer: Tokenizer, images: Images, cache: Path, *, mirrored: bool = False) -> Codes:
    """The codes of the fixed crops of a split, (N, h, w), from the cache where they are in it.

    Args:
        tokenizer: The frozen first stage.
        images: The split.
        cache: Folder of the cache; the file is found by the tokenizer's weights and the images' content.
        mirrored: The crops flipped left to right instead.

    Raises:
        InputError: The cache cannot be written, or what is in it is damaged.
    """
    name = f"{tokenizer.fingerprint}-{images.key}{'-mirrored' if mirrored else ''}.npy"
    file = cache / "codes" / name
    if not file.exists():
        try:
            _write(tokenizer, images, file, mirrored)
        except OSError as error:
            reason = f"({error.strerror}): set VQTOOL_CACHE to another one"
            raise InputError(f"cache folder {str(cache)!r} cannot be written {reason}") from error
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError):
        raise InputError(f"the cached codes {file} are damaged: remove that file") from None


def _write(tokenizer: Tokenizer, images: Images, file: Path, mirrored: bool) -> None:
    """Beside its place, then renamed into it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    sweep(file.parent)
    side = images.image_size // tokenizer.factor
    dtype = np.uint16 if tokenizer.codebook_size <= 1 << 16 else np.int32
    seen = tokenizer.sees(images)
    size = max(1, PIXELS // images.image_size**2)
    # Several processes may encode the same split at once.
    with replacing(file, file.with_name(f"unfinished-{uuid4().hex}.npy")) as beside:
        codes = np.lib.format.open_memmap(beside, "w+", dtype, (len(images), side, side))
        for start in track("encode", range(0, len(images), size), -(-len(images) // size)):
            rows = np.arange(start, min(start + size, len(images)))
            crops, _ = seen.mirrored_batch(rows) if mirrored else seen.batch(rows)
            codes[rows] = tokenizer.encode(crops).cpu().numpy()
        codes.flush()


def hits(codes: Codes, codebook_size: int) -> NDArray[np.int64]:
    """How often each code occurs, (K,)."""
    total = np.zeros(codebook_size, np.int64)
    for start in range(0, len(codes), 4096):
        total += np.bincount(codes[start : start + 4096].ravel(), minlength=codebook_size)
    return total


def as_tensor(codes: Codes) -> torch.Tensor:
    """Chosen rows as int64."""
    return torch.from_numpy(np.asarray(codes).astype(np.int64))

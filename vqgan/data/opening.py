from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ...diagnostics.errors import InputError, unknown
from ...diagnostics.progress import track
from .folder import folder
from .images import Images
from .pairs import pairs
from .photos import photos
from .public import PUBLIC, public
from .settings import DataSettings
from .source import Source
from .store import cache_folder, decoded

OWN = {"folder": folder, "pairs": pairs}
KINDS = ("photos", *OWN, *PUBLIC)


def open_data(
    spec: str,
    image_size: int,
    *,
    cache: Path | None = None,
    skip_unreadable: bool = False,
    download: bool = False,
    progress: Callable[[Iterable], Iterable] | None = None,
) -> dict[str, Images]:
    """Open a data set: decoded on first use, memory-mapped from the cache afterwards.

    Args:
        spec: `photos` (embedded), `folder:PATH`, `pairs:PATH` (with maps), `cifar10:PATH`, `mnist:PATH` or
            `fashion-mnist:PATH`.
        image_size: Side of the square crops, in pixels.
        cache: Folder of the cache; by default `store.cache_folder()`, which `VQTOOL_CACHE` decides. An entry is found
            by the content of the images, so that a changed file is noticed and a moved folder is not decoded again.
        skip_unreadable: Leave unreadable files out, and list them in `Images.skipped`, instead of raising.
        download: Whether a public data set may be fetched.
        progress: Wraps the list of pictures while they are decoded, such as `rich.progress.track`.

    Returns:
        The splits, by the names in `SPLITS`.

    Raises:
        InputError: one line, on an unknown spec, a missing folder, an empty split, an unreadable file, a size that
            the data set does not allow, or a cache that cannot be written.
    """
    if image_size < 1:
        raise InputError(f"image size {image_size} is not a positive number of pixels")
    source = _look_at(spec, image_size, download)
    return decoded(source, image_size, cache or cache_folder(), skip_unreadable, progress or iter)


def _look_at(spec: str, image_size: int, download: bool) -> Source:
    kind, _, path = spec.partition(":")
    if kind not in KINDS and Path(spec).exists():
        raise InputError(f"data set {spec!r} is a path: write folder:{spec}")
    if kind not in KINDS:
        raise unknown("data set", kind, KINDS)
    if kind == "photos":
        if path:
            raise InputError(f"data set {spec!r}: photos takes no path, it is embedded")
        return photos(image_size)
    if not path:
        raise InputError(f"data set {spec!r} needs a path: {kind}:PATH")
    root = Path(path).expanduser()
    if kind in OWN:
        return OWN[kind](root, image_size)
    return public(kind, root, image_size, download)


def open_images(data: DataSettings) -> dict[str, Images]:
    """The splits of the configured data set, decoded with progress where they are not in the cache."""
    return open_data(
        data.spec,
        data.image_size,
        cache=data.cache,
        skip_unreadable=data.skip_unreadable,
        download=data.download,
        progress=show_decoding,
    )


def tell(splits: dict[str, Images]) -> None:
    """Print what the data set is, how fast it was decoded, and which files were left out."""
    sizes = ", ".join(f"{name} {len(images):,}" for name, images in splits.items())
    print(f"data: {sizes} images; {splits['train'].decode}", flush=True)
    if skipped := [name for images in splits.values() for name in images.skipped]:
        print(f"data: {len(skipped)} unreadable files left out: {', '.join(skipped)}", flush=True)


def show_decoding(pictures: Iterable) -> Iterator:
    """Progress of the one decoding pass of a data set."""
    pictures = list(pictures)
    return track("decode", pictures, len(pictures))

"""``vqtool sample``: from a run of the second stage to images on disk."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ...diagnostics.errors import InputError, unknown
from ...diagnostics.progress import track
from ..data import SPLITS, Images
from ..data.batches import spread
from ..data.opening import open_images
from ..transformer.scenes import Scene, Wanted
from ..transformer.trained import Trained
from .completions import completions
from .drawing import draw_codes, draw_large
from .gallery import Gallery
from .panels import panel, save_png
from .request import Request

#: A panel shows at most so many images, and so many of a class.
SHOWN, SHOWN_OF_CLASS, ACROSS = 64, 8, 8


def write_samples(trained: Trained, request: Request, folder: Path) -> list[Path]:
    """Sample what is asked for into ``folder``; the panel, and the folder of separate images where there is one.

    More images than a panel shows are always written one by one.

    Raises:
        InputError: The request is none that the model can fulfil, or ``folder`` cannot be written.
    """
    request.check(trained)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"folder {folder} for the samples cannot be made: {error.strerror}") from None
    name = f"{request.what}-{trained.step:07d}-{request.told}"
    return (_completions if request.what == "completions" else _images)(trained, request, folder, name)


def _completions(trained: Trained, request: Request, folder: Path, name: str) -> list[Path]:
    split = trained.split(split_images(trained, request.split))
    rows = spread(min(request.count or ACROSS, len(split)), len(split))
    image = completions(trained.frozen.first, trained.model, split, rows, request.choice(trained, 0))
    save_png(image, path := folder / f"{name}.png")
    return [path]


def split_images(trained: Trained, split: str, side: int | None = None) -> Images:
    """A split of the run's data, in crops of ``side`` pixels where another than that of the training is wanted.

    Raises:
        InputError: There is no such split, or the data are not to be had, or not in that size.
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    config = trained.config
    if side is not None:
        config = config.model_copy(update={"data": config.data.model_copy(update={"image_size": side})})
    return open_images(config.data)[split]


def _images(trained: Trained, request: Request, folder: Path, name: str) -> list[Path]:
    panel_file, separate, layout = folder / f"{name}.png", folder / name, Layout.of(trained, request)
    if not request.separate and len(layout.shown) == layout.total:
        save_png(draw_images(trained, request), panel_file)
        return [panel_file]
    with Gallery(separate) as gallery:
        image = draw_images(trained, request, gallery)
    save_png(image, panel_file)
    return [panel_file, separate]


@dataclass(frozen=True)
class Layout:
    """How many images there are, over how many classes (0: the model knows none), and which the panel shows."""

    total: int
    classes: int

    @classmethod
    def of(cls, trained: Trained, request: Request) -> "Layout":
        """What a request means for a model."""
        classes = len(request.labels(trained))
        return cls(request.count or classes * SHOWN_OF_CLASS or 2 * ACROSS, classes)

    @property
    def shown(self) -> NDArray[np.int64]:
        """Their numbers: of each class the first ones, else the first of all."""
        if not self.classes:
            return np.arange(min(self.total, SHOWN))
        of_class = np.arange(self.total) * self.classes // self.total
        place = np.arange(self.total) - np.searchsorted(of_class, of_class)
        return np.flatnonzero(place < SHOWN_OF_CLASS)


def draw_images(trained: Trained, request: Request, gallery: Gallery | None = None) -> Image.Image:
    """New images, all of them into ``gallery``, and the panel of those that it shows."""
    layout, kept = Layout.of(trained, request), []
    for first, made, scene in _batches(trained, request, layout.total):
        if gallery is not None:
            gallery.add(made, scene.names or None)
        here = layout.shown[(layout.shown >= first) & (layout.shown < first + len(made))] - first
        kept += [_row(made, scene, place) for place in here]
    return _panel(kept, by_class=layout.classes > 1)


def _batches(trained: Trained, request: Request, total: int) -> Iterator[tuple[int, Tensor, Scene]]:
    """The images (B, 3, H, W) of each batch with the number of its first and what it was sampled under."""
    model, tokenizer, grid, size = trained.model, trained.frozen.first, request.grid(trained), request.batch
    images = partial(split_images, trained, request.split)
    wanted = Wanted(total, grid, request.size, request.labels(trained), request.split, images)
    scenes = trained.condition.scenes(wanted)
    for first in track("sample", range(0, total, size), -(-total // size)):
        # A last batch that is not full draws as many random numbers as a full one: what is asked for beside an image
        # does not change it.
        scene = scenes(np.minimum(np.arange(first, first + size), total - 1))
        prefix, choice = scene.prefix.to(tokenizer.device), request.choice(trained, first)
        if request.size is None:
            codes = draw_codes(model, prefix, choice)
        else:
            codes = draw_large(model, prefix, grid, request.window or model.grid, choice)
        part = slice(0, min(size, total - first))
        seen = None if scene.seen is None else scene.seen[part].cpu()
        yield first, tokenizer.decode(codes[part]).cpu(), Scene(prefix[part], scene.names[part], seen)


def _row(made: Tensor, scene: Scene, place: int) -> tuple[Tensor, str, Tensor | None]:
    name = scene.names[place] if scene.names else ""
    return made[place], name, None if scene.seen is None else scene.seen[place]


def _panel(kept: list[tuple[Tensor, str, Tensor | None]], *, by_class: bool) -> Image.Image:
    images, names, seen = zip(*kept, strict=True)
    if by_class:
        return _by_class(list(images), list(names))
    if seen[0] is not None:
        pairs = torch.stack([torch.stack(part[:ACROSS]) for part in (seen, images)])
        return panel(pairs, rows=["condition", "sample"], columns=list(names[:ACROSS]))
    return panel(torch.stack(images), columns_per_row=ACROSS, captions=list(names) if any(names) else None)


def _by_class(images: list[Tensor], names: list[str]) -> Image.Image:
    """One row per class; a class with fewer images ends in white."""
    rows = list(dict.fromkeys(names))
    most = max(names.count(row) for row in rows)
    white = torch.ones_like(images[0])
    lines = []
    for row in rows:
        line = [image for image, name in zip(images, names, strict=True) if name == row]
        lines.append(torch.stack([*line, *[white] * (most - len(line))]))
    return panel(torch.stack(lines), rows=rows)

"""``vqtool sample``: from a run of the second stage to images on disk."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ...diagnostics.progress import track
from ..validation import spread
from .conditions import ClassCondition
from .drawing import draw_codes, draw_large
from .gallery import Gallery
from .panels import panel, save_png
from .pictures import completions
from .request import Request
from .scenes import Scene, open_scenes, split_images
from .trained import Trained

#: A panel shows at most so many images, and so many of a class.
SHOWN, SHOWN_OF_CLASS, ACROSS = 64, 8, 8


def sample(trained: Trained, request: Request, folder: Path) -> list[Path]:
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
    name = f"{request.what}-{trained.step:07d}-seed{request.seed}"
    return (_completions if request.what == "completions" else _images)(trained, request, folder, name)


def _completions(trained: Trained, request: Request, folder: Path, name: str) -> list[Path]:
    split = trained.split(split_images(trained, request.split))
    rows = spread(min(request.count or ACROSS, len(split)), len(split))
    image = completions(trained.frozen.first, trained.model, split, rows, request.choice(trained, 0))
    save_png(image, path := folder / f"{name}.png")
    return [path]


def _images(trained: Trained, request: Request, folder: Path, name: str) -> list[Path]:
    panel_file, separate = folder / f"{name}.png", folder / name
    if not request.separate and _count(trained, request) <= len(_shown(trained, request)):
        save_png(draw_images(trained, request), panel_file)
        return [panel_file]
    with Gallery(separate) as gallery:
        image = draw_images(trained, request, gallery)
    save_png(image, panel_file)
    return [panel_file, separate]


def draw_images(trained: Trained, request: Request, gallery: Gallery | None = None) -> Image.Image:
    """New images, all of them into ``gallery``, and the panel of those that it shows."""
    numbers, kept = _shown(trained, request), []
    for first, made, scene in _batches(trained, request):
        if gallery is not None:
            gallery.add(made, scene.names or None)
        here = numbers[(numbers >= first) & (numbers < first + len(made))] - first
        kept += [_row(made, scene, place) for place in here]
    return _panel(kept, _classes(trained, request))


def _classes(trained: Trained, request: Request) -> int:
    """How many classes are sampled, 0 where the model knows none."""
    return len(request.labels(trained)) if isinstance(trained.condition, ClassCondition) else 0


def _count(trained: Trained, request: Request) -> int:
    return request.count or _classes(trained, request) * SHOWN_OF_CLASS or 2 * ACROSS


def _batches(trained: Trained, request: Request) -> Iterator[tuple[int, Tensor, Scene]]:
    """The images (B, 3, H, W) of each batch with the number of its first and what it was sampled under."""
    model, tokenizer, grid = trained.model, trained.frozen.first, request.grid(trained)
    count, size = _count(trained, request), request.batch
    scenes = open_scenes(trained, request, count, grid)
    for number in track("sample", range(-(-count // size)), -(-count // size)):
        wanted = np.arange(number * size, min((number + 1) * size, count))
        # A last batch that is not full draws as many random numbers as a full one: what is asked for beside an image
        # does not change it.
        scene = scenes(np.minimum(np.arange(number * size, (number + 1) * size), count - 1))
        prefix, choice = scene.prefix.to(tokenizer.device), request.choice(trained, number)
        if request.size is None:
            codes = draw_codes(model, prefix, choice)
        else:
            codes = draw_large(model, prefix, grid, request.window or model.grid, choice)
        part = slice(0, len(wanted))
        seen = None if scene.seen is None else scene.seen[part].cpu()
        yield int(wanted[0]), tokenizer.decode(codes[part]).cpu(), Scene(prefix[part], scene.names[part], seen)


def _shown(trained: Trained, request: Request) -> NDArray[np.int64]:
    """The numbers of the samples that the panel shows: of each class the first ones, else the first of all."""
    count, classes = _count(trained, request), _classes(trained, request)
    if not classes:
        return np.arange(min(count, SHOWN))
    of_class = np.arange(count) * classes // count
    place = np.arange(count) - np.searchsorted(of_class, of_class)
    return np.flatnonzero(place < SHOWN_OF_CLASS)


def _row(made: Tensor, scene: Scene, place: int) -> tuple[Tensor, str, Tensor | None]:
    name = scene.names[place] if scene.names else ""
    return made[place], name, None if scene.seen is None else scene.seen[place]


def _panel(kept: list[tuple[Tensor, str, Tensor | None]], classes: int) -> Image.Image:
    images, names, seen = zip(*kept, strict=True)
    if classes and len(set(names)) > 1:
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

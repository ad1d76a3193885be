"""The conditions under which new images are sampled."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...diagnostics.errors import InputError, unknown
from ..data import SPLITS, Images
from ..data.batches import spread
from ..data.opening import open_images
from ..transformer.conditions import ClassCondition, CoordinateCondition, NoCondition, SpatialCondition
from ..transformer.trained import Trained
from .completions import condition_pictures
from .request import Request


class Scene(NamedTuple):
    """What a batch is sampled under.

    Attributes:
        prefix: (B, P) int64, or a map (B, H, W) for a sliding window.
        names: What each condition is called, (B,); empty where there is none.
        seen: What a spatial condition shows, (B, 3, S, S) in [-1, 1].
    """

    prefix: Tensor
    names: list[str]
    seen: Tensor | None = None


#: From numbers of samples (B,) to their scene.
Scenes: TypeAlias = Callable[[NDArray[np.int64]], Scene]


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


def open_scenes(trained: Trained, request: Request, count: int, grid: tuple[int, int]) -> Scenes:
    """Conditions for ``count`` samples of ``grid`` codes.

    Raises:
        InputError: The data that the conditions come from cannot be had, or not in this size.
    """
    match trained.condition:
        case NoCondition() as condition:
            return lambda numbers: Scene(torch.full((len(numbers), 1), condition.start), [])
        case ClassCondition() as condition:
            return _classes(trained, condition, request.labels(trained), count)
        case CoordinateCondition() as condition if request.size is not None:
            return _whole_picture(condition, request.size, grid)
        case SpatialCondition() as condition if request.size is not None:
            return _large(trained, condition, request, count, grid)
    return _of_split(trained, request, count)


def _classes(trained: Trained, condition: ClassCondition, labels: list[int], count: int) -> Scenes:
    """The classes one after the other, each as often as the next."""

    def scene(numbers: NDArray[np.int64]) -> Scene:
        chosen = np.array(labels)[numbers * len(labels) // count]
        return Scene(torch.from_numpy(condition.first + chosen)[:, None], [trained.classes[label] for label in chosen])

    return scene


def _whole_picture(condition: CoordinateCondition, size: tuple[int, int], grid: tuple[int, int]) -> Scenes:
    """An image that is a whole picture: its coordinates begin at 0 and end at 1."""
    positions = torch.arange(size[0] * size[1]).view(1, 1, *size) / (size[0] * size[1])
    places = condition.map(positions, grid)
    return lambda numbers: Scene(places.expand(len(numbers), *grid), [])


def _of_split(trained: Trained, request: Request, count: int) -> Scenes:
    """The conditions of the split's own images, evenly spread."""
    images = split_images(trained, request.split)
    prefixes, rows = trained.condition.of(images), _rows(count, images)

    def scene(numbers: NDArray[np.int64]) -> Scene:
        here = rows[numbers]
        names = [f"{request.split} {row}" for row in here]
        return Scene(
            prefixes(here, np.zeros(len(here), bool)), names, condition_pictures(trained.condition, images, here)
        )

    return scene


def _large(
    trained: Trained, condition: SpatialCondition, request: Request, count: int, grid: tuple[int, int]
) -> Scenes:
    """Larger crops of the split's pictures, encoded by the condition's own first stage."""
    stage, size = condition.tokenizer, request.size
    assert size is not None
    if size[0] != size[1] or stage.factor != trained.frozen.first.factor:
        raise InputError(
            f"--size {size[0]}x{size[1]}: with a spatial condition a larger image is square, and both first stages "
            f"have as many pixels to a code (here {trained.frozen.first.factor} and {stage.factor})"
        )
    images = split_images(trained, request.split, size[0])
    rows = _rows(count, images)

    def scene(numbers: NDArray[np.int64]) -> Scene:
        crops, _ = stage.sees(images).batch(rows[numbers])
        names = [f"{request.split} {row}" for row in rows[numbers]]
        return Scene(condition.first + stage.encode(crops), names, stage.picture(crops))

    return scene


def _rows(count: int, images: Images) -> NDArray[np.int64]:
    """``count`` images of a split, evenly spread; again and again where there are fewer."""
    return spread(count, len(images)) if count <= len(images) else np.arange(count) % len(images)

"""What is to be sampled, checked against the model that is to sample it."""

import re
from dataclasses import dataclass

import torch

from ...diagnostics.errors import InputError, unknown
from ..transformer.trained import Trained
from .drawing import Choice, known_codes, seed_of
from .settings import PLAIN, DrawingSettings

KINDS = ("samples", "completions")


@dataclass(frozen=True)
class Request:
    """What is to be sampled.

    Attributes:
        what: One of ``KINDS``: new images, or images of a split completed.
        count: How many; None: as many as make a good panel.
        batch: How many at once.
        seed: Of the random numbers: with the same batch size the same images on every call.
        drawing: How codes are drawn.
        classes: Names or numbers of classes; none: all.
        size: Height and width in pixels; None: the training size.
        window: Rows and columns of codes that a larger image is drawn through; None: the model's own grid.
        split: Where originals and conditions come from.
        separate: Whether each image is also a file.
    """

    what: str = "samples"
    count: int | None = None
    batch: int = 25
    seed: int = 0
    drawing: DrawingSettings = PLAIN
    classes: tuple[str, ...] = ()
    size: tuple[int, int] | None = None
    window: tuple[int, int] | None = None
    split: str = "validation"
    separate: bool = False

    @property
    def told(self) -> str:
        """The seed, and all else about the drawing that is not as by default, as a part of a file name."""
        own = {name: getattr(self, name) for name in ("classes", "size", "window", "split")}
        own = {name: value for name, value in own.items() if value != getattr(Request, name)}
        values = self.drawing.model_dump(exclude_defaults=True) | own
        values = {name: "x".join(map(str, v)) if isinstance(v, tuple) else v for name, v in values.items()}
        parts = [f"seed{self.seed}", *(f"{name}-{value}".replace("_", "-") for name, value in values.items())]
        return re.sub(r"[^\w.-]", "_", "-".join(parts))[:150]

    def choice(self, trained: Trained, first: int) -> Choice:
        """How the codes of the batch that begins with image ``first`` are chosen, with random numbers of its own."""
        device = trained.frozen.first.device
        generator = torch.Generator(device).manual_seed(seed_of(self.seed, first))
        return Choice(known_codes(trained.train_hits, device), self.drawing, generator)

    def labels(self, trained: Trained) -> list[int]:
        """The classes asked for, by number; all that the model knows where none is named.

        Raises:
            InputError: There is no such class, or the model knows no classes.
        """
        names = trained.condition.classes
        if self.classes and not names:
            raise InputError(
                f"classes: this transformer was trained with condition {trained.config.condition.kind!r}, not class",
                "classes",
            )
        return [_label(name, names) for name in self.classes] or list(range(len(names)))

    def grid(self, trained: Trained) -> tuple[int, int]:
        """Rows and columns of codes of an image.

        Raises:
            InputError: The size is none that the model can draw, or the window does not fit.
        """
        model, factor = trained.model, trained.frozen.first.factor
        if self.size is None:
            if self.window is not None:
                line = "window is for images larger than those of the training: give size HxW"
                raise InputError(line, "window", "size")
            return model.grid
        if any(side % factor for side in self.size):
            nearest = "x".join(str(max(1, round(side / factor)) * factor) for side in self.size)
            line = f"size {_times(self.size)} is not in whole codes of {factor} pixels; nearest: {nearest}"
            raise InputError(line, "size")
        grid = self.size[0] // factor, self.size[1] // factor
        rows, columns = self.window or model.grid
        most = model.gpt.block_size - (
            rows * columns if trained.condition.length == model.grid[0] * model.grid[1] else trained.condition.length
        )
        if rows * columns > most:
            raise InputError(
                f"window {rows}x{columns} is larger than the block: the transformer knows {_times(model.grid)} codes",
                "window",
            )
        if trained.config.transformer.order != "raster" and grid != model.grid:
            raise InputError(
                f"size {_times(self.size)}: a sliding window needs codes in raster order, this transformer tells "
                f"them in the order {trained.config.transformer.order!r}",
                "size",
            )
        if min(grid[0] - rows, grid[1] - columns) < 0:
            least = _times((rows * factor, columns * factor))
            raise InputError(f"size {_times(self.size)} is smaller than the window: at least {least}", "size")
        return grid

    def check(self, trained: Trained) -> None:
        """Refuse what the model cannot do, before anything is sampled or written.

        Raises:
            InputError: See there.
        """
        self.labels(trained)
        self.grid(trained)
        guidance = self.drawing.guidance
        if guidance != 1 and not trained.config.condition.drop:
            raise InputError(
                f"guidance {guidance} needs a transformer whose condition training left out now and then: "
                "condition.drop=0.1",
                "guidance",
                "condition.drop",
            )
        if self.what == "completions" and self.size is not None:
            raise InputError("size is for new images: completions are of the training size", "size")


def _label(name: str, names: tuple[str, ...]) -> int:
    if name in names:
        return names.index(name)
    if name.lstrip("-").isdecimal():
        if 0 <= int(name) < len(names):
            return int(name)
        raise InputError(f"class {name} is out of range: there are {len(names)}, 0 ({names[0]}) to {len(names) - 1}")
    raise unknown("class", name, names)


def _times(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"

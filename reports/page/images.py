"""Figures that are images."""

from collections.abc import Sequence
from textwrap import wrap

import numpy as np
from matplotlib.figure import Figure

from .style import DPI, single, theme


@theme()
def photo_rows(image: np.ndarray) -> Figure:
    """A grid of images (H, W, 3): a row of originals above a row of reconstructions."""
    return _rows(image, ["original", "reconstruction"], beside=0.6, rotation=90)


@theme()
def named_rows(image: np.ndarray, names: Sequence[str], letters: int = 18) -> Figure:
    """A grid of images (H, W, 3) with a name to the left of each of its rows, broken into lines of few ``letters``."""
    lines = ["\n".join(wrap(name.replace(":", ": "), letters)) for name in names]
    widest = max(len(line) for name in lines for line in name.split("\n"))
    return _rows(image, lines, beside=0.6 + 0.09 * widest, rotation=0)


def _rows(image: np.ndarray, names: Sequence[str], beside: float, rotation: float) -> Figure:
    """``image`` at most 9.4 inches wide, with ``beside`` inches more for names; a row is at most 2 inches high."""
    height, width = image.shape[:2]
    inches = min(9.4, 2.0 * len(names) * width / height)
    figure, axes = single(width=inches + beside, height=max(1.0, inches * height / width + 0.3))
    figure.set_layout_engine("compressed")  # the other layout cuts names off where the image keeps its aspect
    axes.imshow(image, cmap="gray", interpolation="nearest" if width < 600 else "antialiased")
    axes.set_xticks([])
    axes.set_yticks((np.arange(len(names)) + 0.5) * height / len(names), names, rotation=rotation, va="center")
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    return figure


@theme()
def magnified(image: np.ndarray, width: int = 1000) -> Figure:
    """An image (H, W, 3) pixel by pixel, a small one magnified by a whole factor up to ``width`` pixels."""
    factor = max(1, width // image.shape[1])
    figure = Figure(figsize=(factor * image.shape[1] / DPI, factor * image.shape[0] / DPI))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.imshow(image, cmap="gray", interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    return figure

"""Figures that are images."""

import numpy as np
from matplotlib.figure import Figure

from .style import DPI, single, theme


@theme()
def photo_rows(image: np.ndarray) -> Figure:
    """A grid of images (H, W, 3): a row of originals above a row of reconstructions."""
    height, width = image.shape[:2]
    figure, axes = single(width=10.0, height=max(1.0, 9.4 * height / width + 0.3))
    axes.imshow(image, cmap="gray", interpolation="nearest" if width < 600 else "antialiased")
    axes.set_xticks([])
    axes.set_yticks([height / 4, 3 * height / 4], ["original", "reconstruction"], rotation=90, va="center")
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

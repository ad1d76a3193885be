"""Figures of codes against time."""

from collections.abc import Mapping

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from .lives import Heat
from .style import DPI, NOTHING, few_ticks, log_ticks, single, theme


def log_colours(*grids: np.ndarray) -> LogNorm:
    """One logarithmic colour scale over the positive values of all grids."""
    positive = np.concatenate([grid[np.isfinite(grid) & (grid > 0)] for grid in grids])
    low, high = (float(positive.min()), float(positive.max())) if positive.size else (1.0, 1.0)
    return LogNorm(low, max(high, low * 10))


def draw_heat(axes: Axes, heat: Heat, norm: LogNorm, colours: str) -> QuadMesh:
    """Draw a grid with its codes downwards: zeros in ``NOTHING``, what was not recorded in white."""
    under = (norm.vmin or 1.0) / 10  # a logarithm has no place for zero: the colour below the scale stands for it
    shown = np.ma.masked_invalid(np.where(heat.values == 0, under, heat.values))
    palette = colormaps[colours].with_extremes(under=NOTHING, bad="white")
    mesh = axes.pcolormesh(heat.steps, heat.codes, shown, norm=norm, cmap=palette, rasterized=True)
    axes.set_ylim(heat.codes[-1], 0)
    axes.set_xlim(heat.steps[0], heat.steps[-1])
    axes.grid(False)
    few_ticks(axes.xaxis)
    few_ticks(axes.yaxis)
    return mesh


def _colour_bar(figure: Figure, mesh: QuadMesh, axes: Axes | list[Axes], label: str) -> None:
    bar = figure.colorbar(mesh, ax=axes, pad=0.02, aspect=30, extend="min", extendfrac=0.06)
    log_ticks(bar.ax.yaxis)
    bar.set_label(label)


@theme()
def collapse(heat: Heat) -> Figure:
    """Hits of every code over the run, the codes ordered by their last hit."""
    figure, axes = single(height=5.2, width=10.0)
    mesh = draw_heat(axes, heat, log_colours(heat.values), "viridis")
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("codes, by their last hit")
    _colour_bar(figure, mesh, axes, "hits per window (grey: none)")
    return figure


@theme()
def gradients(heat: Heat, label: str) -> Figure:
    """Gradient norm of every code over the run, the codes ordered as in ``collapse``."""
    figure, axes = single(height=5.2, width=10.0)
    mesh = draw_heat(axes, heat, log_colours(heat.values), "magma")
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("codes, by their last hit")
    _colour_bar(figure, mesh, axes, f"{label} (grey: zero)")
    return figure


@theme()
def side_by_side(heats: Mapping[str, Heat], columns: int = 3) -> Figure:
    """Collapse of several runs on one colour scale and one axis of steps."""
    columns = min(columns, len(heats))
    rows = -(-len(heats) // columns)
    figure = Figure(figsize=(3.2 * columns + 1.4, 3.4 * rows + 0.6), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, squeeze=False)
    norm = log_colours(*(heat.values for heat in heats.values()))
    drawn = list(zip(grid.flat, heats.items(), strict=False))
    meshes = [draw_heat(axes, heat, norm, "viridis") for axes, (_, heat) in drawn]
    for axes, (name, _) in drawn:
        axes.set_title(name, loc="left", fontsize="medium")
        axes.tick_params(labelbottom=True)
    for axes in grid.flat[len(heats) :]:
        axes.remove()
    last = max(int(heat.steps[-1]) for heat in heats.values())
    grid[0, 0].set_xlim(min(int(heat.steps[0]) for heat in heats.values()), last)
    few_ticks(grid[0, 0].xaxis, 4)
    figure.supxlabel("optimizer step", fontsize="medium")
    figure.supylabel("codes, by their last hit", fontsize="medium")
    _colour_bar(figure, meshes[0], [axes for axes, _ in drawn], "hits per window (grey: none)")
    return figure


@theme()
def reconstructions(image: np.ndarray) -> Figure:
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
def picture(image: np.ndarray, width: int = 1000) -> Figure:
    """An image (H, W, 3) pixel by pixel, a small one magnified by a whole factor up to ``width`` pixels."""
    factor = max(1, width // image.shape[1])
    figure = Figure(figsize=(factor * image.shape[1] / DPI, factor * image.shape[0] / DPI))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.imshow(image, cmap="gray", interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    return figure

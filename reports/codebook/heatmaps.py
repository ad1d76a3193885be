"""Figures of codes against time."""

from collections.abc import Mapping

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from ..page.heat import Heat, colour_bar, draw_heat
from ..page.style import few_ticks, single, theme


def log_colours(*grids: np.ndarray) -> LogNorm:
    """One logarithmic colour scale over the positive values of all grids."""
    positive = np.concatenate([grid[np.isfinite(grid) & (grid > 0)] for grid in grids])
    low, high = (float(positive.min()), float(positive.max())) if positive.size else (1.0, 1.0)
    return LogNorm(low, max(high, low * 10))


@theme()
def collapse(heat: Heat) -> Figure:
    """Hits of every code over the run, the codes ordered by their last hit."""
    figure, axes = single(height=5.2, width=10.0)
    mesh = draw_heat(axes, heat, log_colours(heat.values), "viridis")
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("codes, by their last hit")
    colour_bar(figure, mesh, axes, "hits per window (grey: none)")
    return figure


@theme()
def gradients(heat: Heat, label: str) -> Figure:
    """Gradient norm of every code over the run, the codes ordered as in ``collapse``."""
    figure, axes = single(height=5.2, width=10.0)
    mesh = draw_heat(axes, heat, log_colours(heat.values), "magma")
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("codes, by their last hit")
    colour_bar(figure, mesh, axes, f"{label} (grey: zero)")
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
    colour_bar(figure, meshes[0], [axes for axes, _ in drawn], "hits per window (grey: none)")
    return figure

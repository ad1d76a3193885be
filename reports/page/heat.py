"""Grids of codes against time, and how they are drawn."""

from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from .style import NOTHING, few_ticks, log_ticks
from .words import counted


@dataclass(frozen=True)
class Heat:
    """A grid to be shown as a heatmap.

    Attributes:
        values: (R, C) maximum over the codes of the row and the records of the column, NaN where nothing was recorded.
        steps: (C + 1,) optimizer steps at the edges of the columns.
        codes: (R + 1,) ranks of codes at the edges of the rows.
        records: Records behind a column, at most.
    """

    values: NDArray[np.floating]
    steps: NDArray[np.int64]
    codes: NDArray[np.intp]
    records: int

    @property
    def cell(self) -> str:
        """What one cell covers, for a caption; empty where it is one code in one record."""
        codes = int(np.diff(self.codes).max())
        if codes == self.records == 1:
            return ""
        over = f"{counted(codes, 'code')} × {counted(self.records, 'record')}"
        return f" A cell is the maximum over up to {over}, so that no life is lost."


def draw_heat(axes: Axes, heat: Heat, norm: Normalize, colours: str) -> QuadMesh:
    """Draw a grid with its codes downwards, ``NOTHING`` where there was nothing.

    On a logarithmic scale that is a zero, and what was not recorded is white; on a linear one zero is a number like any
    other, and nothing is what was not recorded.
    """
    values, palette = heat.values, colormaps[colours].with_extremes(bad=NOTHING)
    if isinstance(norm, LogNorm):  # it has no place for zero: the colour below the scale stands for it
        values = np.where(values == 0, (norm.vmin or 1.0) / 10, values)
        palette = palette.with_extremes(under=NOTHING, bad="white")
    shown = np.ma.masked_invalid(values)
    mesh = axes.pcolormesh(heat.steps, heat.codes, shown, norm=norm, cmap=palette, rasterized=True)
    axes.set_ylim(heat.codes[-1], 0)
    axes.set_xlim(heat.steps[0], heat.steps[-1])
    axes.grid(False)
    few_ticks(axes.xaxis)
    few_ticks(axes.yaxis)
    return mesh


def colour_bar(figure: Figure, mesh: QuadMesh, axes: Axes | list[Axes], label: str) -> None:
    """The colour bar of ``draw_heat`` beside ``axes``.

    Below a logarithmic scale it has the colour of zero; a linear one goes on at both ends, for values beyond them.
    """
    log = isinstance(mesh.norm, LogNorm)
    ends = {"extend": "min", "extendfrac": 0.06} if log else {"extend": "both", "extendfrac": 0.03}
    bar = figure.colorbar(mesh, ax=axes, pad=0.02, aspect=30, **ends)
    (log_ticks if log else few_ticks)(bar.ax.yaxis)
    bar.set_label(label)

"""Grids of codes against time, and how they are drawn."""

from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from .style import NOTHING, few_ticks, log_ticks


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
        code, record = f"{codes} code{'s' * (codes > 1)}", f"{self.records} record{'s' * (self.records > 1)}"
        return f" A cell is the maximum over up to {code} × {record}, so that no life is lost."


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


def colour_bar(figure: Figure, mesh: QuadMesh, axes: Axes | list[Axes], label: str) -> None:
    """A logarithmic colour bar beside ``axes``; the colour below its scale stands for zero."""
    bar = figure.colorbar(mesh, ax=axes, pad=0.02, aspect=30, extend="min", extendfrac=0.06)
    log_ticks(bar.ax.yaxis)
    bar.set_label(label)

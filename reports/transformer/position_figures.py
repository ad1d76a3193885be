"""Maps over the grid of codes."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ...diagnostics.recording.code_use import Map, PositionUse
from ..page.style import NOTHING, few_ticks, theme


@theme()
def position_maps(use: PositionUse) -> Figure:
    """Perplexity of code use at every position, in the data and in the samples on one scale, and the mean NLL there."""
    used = {"perplexity in the data": use.perplexity(use.data)}
    if use.sampled.any():
        used["perplexity in the samples"] = use.perplexity(use.sampled)
    figure = Figure(figsize=(3.7 * (len(used) + 1), 3.9), layout="constrained")
    *places, last = figure.subplots(1, len(used) + 1, squeeze=False)[0]
    norm = _common(used.values())
    for axes, (name, values) in zip(places, used.items(), strict=True):
        _draw(axes, values, norm, "viridis", name)
    _bar(figure, places, "codes")
    nll = use.mean_nll()
    _draw(last, nll, _common([nll]), "magma", "mean NLL")
    _bar(figure, [last], "nats per token")
    places[0].set_ylabel("row of the grid")
    for axes in (*places, last):
        axes.set_xlabel("column of the grid")
    return figure


@theme()
def pairs(use: PositionUse, codes: Sequence[int], shares: Mapping[str, NDArray], columns: int = 4) -> Figure:
    """For every code its frequency by position in the data beside the samples, one colour scale per pair.

    Args:
        use: The codes by position.
        codes: The codes to show.
        shares: Under "data" and "samples" the share (K,) of each code in all tokens, for the titles.
        columns: Pairs beside each other.
    """
    counts = {"data": use.data, "samples": use.sampled} if use.sampled.any() else {"data": use.data}
    rows, (h, w) = -(-len(codes) // columns), use.grid
    figure = Figure(figsize=(11.0, rows * (0.65 + 1.1 * min(2.0, h / w))), layout="constrained")
    grid = figure.subplots(rows, columns * len(counts), squeeze=False).reshape(rows * columns, len(counts))
    for places, code in zip(grid, codes, strict=False):
        maps = [100 * use.frequency(code, count) for count in counts.values()]
        norm = _common(maps, low=0.0)
        for axes, values, name in zip(places, maps, counts, strict=True):
            head = f"code {code}" if name == "data" else ""
            _draw(axes, values, norm, "viridis", "")
            axes.set_title(f"{head}\n{name} {shares[name][code]:.2%}", loc="left", fontsize="small")
            axes.set_xticks([])
            axes.set_yticks([])
        bar = figure.colorbar(places[-1].get_images()[0], cax=places[-1].inset_axes((1.06, 0.0, 0.08, 1.0)))
        few_ticks(bar.ax.yaxis, 3)
        bar.ax.tick_params(labelsize="small", length=2)
    for axes in grid[len(codes) :].flat:
        axes.remove()
    return figure


def _common(maps: Iterable[Map], low: float | None = None) -> Normalize:
    """One colour scale over all maps, from their least value or from ``low``."""
    values = np.concatenate([np.ravel(one) for one in maps])
    values = values[np.isfinite(values)]
    bottom, top = (values.min(), values.max()) if values.size else (0.0, 1.0)
    bottom = bottom if low is None else low
    return Normalize(bottom, top if top > bottom else bottom + 1)


def _draw(axes: Axes, values: Map, norm: Normalize, colours: str, title: str) -> None:
    palette = colormaps[colours].with_extremes(bad=NOTHING)
    axes.imshow(np.ma.masked_invalid(values), norm=norm, cmap=palette, interpolation="nearest")
    axes.set_title(title, fontsize="medium")
    axes.grid(False)
    for axis in (axes.xaxis, axes.yaxis):
        few_ticks(axis, 5)


def _bar(figure: Figure, places: Sequence[Axes], label: str) -> None:
    """The colour scale that ``places`` share, beneath them."""
    bar = figure.colorbar(places[0].get_images()[0], ax=list(places), location="bottom", aspect=30, pad=0.02)
    few_ticks(bar.ax.xaxis)
    bar.set_label(label)

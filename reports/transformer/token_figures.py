"""Figures of the training of a transformer: its curves, and from its trace what became of every code."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ..page.heat import Heat, colour_bar, draw_heat
from ..page.logged import series, smooth
from ..page.style import DEAD, LIVE, dot, few_ticks, scale, spans_decades, spread, theme
from .code_figures import point_size
from .token_numbers import Bands

Rows = Sequence[Mapping[str, Any]]
NATS = "nats per token"


@theme()
def learning(rows: Rows, by_frequency: float | None) -> Figure:
    """NLL in training and validation, with that of the frequencies alone where known, accuracy, learning rate."""
    names = [name for name in ("validation/top1", "optimizer/lr") if len(series(rows, name)) > 1]
    heights = [2.2, *[1.0] * len(names)]
    figure = Figure(figsize=(10.0, 0.7 + 1.35 * sum(heights)), layout="constrained")
    stack = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    _draw_nll(stack[0], rows, by_frequency)
    for axes, name in zip(stack[1:], names, strict=True):
        values = series(rows, name)
        if name == "validation/top1":
            axes.plot(values.index, 100 * values, marker="o", markersize=3, color=DEAD)
            axes.set_ylabel("top-1 (%)")
        else:
            axes.plot(values.index, values, color=LIVE)
            axes.set_ylabel("learning rate")
        axes.set_ylim(bottom=0)
        few_ticks(axes.yaxis, 4)
    stack[-1].set_xlabel("optimizer step")
    few_ticks(stack[-1].xaxis, 8)
    return figure


def _draw_nll(axes: Axes, rows: Rows, by_frequency: float | None) -> None:
    training, validation = series(rows, "loss/nll"), series(rows, "validation/nll")
    axes.plot(training.index, training, color=LIVE, alpha=0.25, linewidth=0.8)
    if len(training):
        mean = smooth(training)
        axes.plot(mean.index, mean, color=LIVE, label="training", **dot(len(mean)))
    if len(validation):
        axes.plot(validation.index, validation, "--", marker="o", markersize=3, color=DEAD, label="validation")
    if by_frequency is not None:
        label = f"by frequency alone: {by_frequency:.2f}"
        axes.axhline(by_frequency, color="#555555", linewidth=1.0, linestyle=":", label=label)
    axes.set_ylabel(f"NLL ({NATS})")
    few_ticks(axes.yaxis)
    axes.legend(loc="best", fontsize="small", ncols=2)


@theme()
def nll_in_time(nll: Heat, excess: Heat) -> Figure:
    """NLL of every code over the training, as it is and less -ln p; the most frequent codes on top."""
    figure = Figure(figsize=(12.0, 5.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    low, high = _range(nll.values)
    mesh = draw_heat(left, nll, Normalize(low, max(high, low + 1e-3)), "viridis")
    colour_bar(figure, mesh, left, "NLL (nats)")
    most = max(1e-3, *np.abs(_range(excess.values)))
    mesh = draw_heat(right, excess, Normalize(-most, most), "RdBu_r")
    colour_bar(figure, mesh, right, "NLL + ln p (nats)")
    for axes in (left, right):
        axes.set_xlabel("optimizer step")
    left.set_ylabel("codes, by their training frequency")
    return figure


def _range(values: NDArray) -> tuple[float, float]:
    """Where 99 % of the values lie, so that a few odd ones do not take all the colours."""
    there = values[np.isfinite(values)]
    low, high = np.quantile(there, (0.005, 0.995)) if there.size else (0.0, 1.0)
    return float(low), float(high)


@theme()
def rows_in_time(steps: NDArray[np.int64], drawn: Mapping[str, Bands]) -> Figure:
    """Median and 5 to 95 % of norms in time, one pair of axes each, codes with targets and without apart."""
    figure = Figure(figsize=(10.5, 3.0 * -(-len(drawn) // 2) + 0.3), layout="constrained")
    grid = figure.subplots(-(-len(drawn) // 2), 2, sharex=True, squeeze=False)
    for axes, (name, both) in zip(grid.flat, drawn.items(), strict=True):
        zero = []
        for label, colour, style, (low, median, high) in (
            ("with targets", LIVE, "-", both.targets),
            ("never a target", DEAD, "--", both.never),
        ):
            if np.isfinite(median).any():
                axes.fill_between(steps, low, high, color=colour, alpha=0.25, linewidth=0)
                axes.plot(steps, median, style, color=colour, label=label, **dot(len(steps)))
                zero += [label] * bool(np.nanmax(high) == 0)
        scale(axes, "y", log=spans_decades(np.concatenate(both, axis=None)))
        if zero:
            axes.text(0.02, 0.03, f"{', '.join(zero)}: exactly zero", transform=axes.transAxes, fontsize="small")
        axes.set_title(name, loc="left", fontsize="medium")
        few_ticks(axes.xaxis)
    for axes in grid[-1]:
        axes.set_xlabel("optimizer step")
    grid[0, 0].legend(loc="best", fontsize="small")
    return figure


@theme()
def rows_against_frequency(share: NDArray[np.float64], drawn: Mapping[str, NDArray]) -> Figure:
    """Norms (K,) of every code against its ``share`` (K,) of the training tokens; codes without any in a strip."""
    lines = -(-len(drawn) // 2)
    figure = Figure(figsize=(10.5, 3.0 * lines + 0.3), layout="constrained")
    grid = figure.subplots(lines, 4, squeeze=False, width_ratios=[1, 8, 1, 8], sharex="col", sharey=False)
    absent, size = share == 0, point_size(int((share > 0).sum()))
    look = {"linewidths": 0, "alpha": 0.6, "rasterized": True}
    for (margin, axes), (name, values) in zip(grid.reshape(-1, 2), drawn.items(), strict=True):
        margin.sharey(axes)
        margin.scatter(spread(int(absent.sum())), values[absent], s=point_size(int(absent.sum())), color=DEAD, **look)
        axes.scatter(share[~absent], values[~absent], s=size, color=LIVE, **look)
        margin.set_xticks([0.5], ["none"])
        margin.set_xlim(-0.3, 1.3)
        scale(axes, "y", log=spans_decades(values))
        scale(axes, "x", log=bool((~absent).any()))
        axes.tick_params(left=False, labelleft=False)
        axes.set_title(name, loc="left", fontsize="medium")
    for axes in grid[-1, 1::2]:
        axes.set_xlabel("share of the training tokens")
    return figure

"""Figures of all codes of a codebook at once: norms, gradients, hits."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ..page.numbers import edges_for, log_histogram, quantile_bands
from ..page.style import (
    DEAD,
    LIVE,
    counts_axis,
    dot,
    legend_beside,
    scale,
    single,
    spans_decades,
    spread,
    stacked,
    theme,
)

NORM = "code norm |e| (latent units)"
#: Codes without a hit in the last records, and the others.
NAMES = ("dead", "live")


@theme()
def gradient_histogram(first: NDArray, last: NDArray, label: str) -> Figure:
    """Gradient norms of the codes early and late; zeros stand apart on the left; first, last (K,)."""
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    zeros, axes = figure.subplots(1, 2, sharey=True, width_ratios=[1, 9])
    edges = edges_for(first, last, log=True)
    for place, (name, values, colour) in enumerate((("first", first, "#555555"), ("last", last, LIVE))):
        counts, none = log_histogram(values, edges)
        look = {"fill": True, "alpha": 0.55} if name == "last" else {"linewidth": 1.4}
        axes.stairs(counts, edges, color=colour, label=f"{name} records", **look)
        zeros.bar(place, none, color=colour, width=0.8, alpha=0.7)
    zeros.set_xticks([0.5], ["zero"])
    zeros.set_xlim(-0.8, 1.8)
    scale(axes, "x", log=True)
    axes.set_xlabel(label)
    counts_axis(zeros, "codes")
    axes.tick_params(left=False)
    legend_beside(axes)
    return figure


@theme()
def norm_histogram(norm: NDArray, dead: NDArray[np.bool_], names: tuple[str, str] = NAMES) -> Figure:
    """Norms of the codes at the last record, live and dead apart, as ``names`` call them; norm, dead (K,)."""
    figure, axes = single()
    log = spans_decades(norm)
    edges = edges_for(norm, log=log)
    for name, codes, colour in zip(names, (dead, ~dead), (DEAD, LIVE), strict=True):
        values = norm[codes]
        counts = np.histogram(values[np.isfinite(values)], edges)[0]
        axes.stairs(counts, edges, fill=True, alpha=0.45, color=colour, label=f"{name} (n = {codes.sum():,})")
        axes.stairs(counts, edges, color=colour, linewidth=1.2)
    scale(axes, "x", log)
    axes.set_xlabel(NORM)
    counts_axis(axes, "codes")
    legend_beside(axes)
    return figure


@theme()
def norm_in_time(
    steps: NDArray[np.int64],
    norm: NDArray,
    dead: NDArray[np.bool_],
    names: tuple[str, str] = NAMES,
    most: int = 300,
) -> Figure:
    """Median and 5 to 95 % range of the norms of live and dead codes at up to ``most`` records; norm (T, K)."""
    figure, (axes,) = stacked(1, height=3.6)
    taken = np.unique(np.linspace(0, len(steps) - 1, most).astype(int))
    bands = {names[1]: quantile_bands(norm[taken], ~dead), names[0]: quantile_bands(norm[taken], dead)}
    for (name, (low, median, high)), colour, style in zip(bands.items(), (LIVE, DEAD), ("-", "--"), strict=True):
        if np.isfinite(median).any():
            axes.fill_between(steps[taken], low, high, color=colour, alpha=0.25, linewidth=0)
            label = f"{name} at the end: median, 5 to 95 %"
            axes.plot(steps[taken], median, style, color=colour, label=label, **dot(len(taken)))
    axes.set_ylabel(NORM)
    scale(axes, "y", log=spans_decades(np.concatenate(list(bands.values()), axis=None)))
    axes.legend(loc="best", fontsize="small")
    return figure


@theme()
def norm_against_hits(norm: NDArray, hits: NDArray[np.int64]) -> Figure:
    """Norm of every code against its hits; codes without hits in a strip of their own on the left; both (K,)."""
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    margin, axes = figure.subplots(1, 2, sharey=True, width_ratios=[1, 9])
    dead = hits == 0
    size = float(np.clip(6000 / len(hits), 4, 24))
    look = {"s": size, "linewidths": 0, "alpha": 0.6, "rasterized": True}
    margin.scatter(spread(int(dead.sum())), norm[dead], color=DEAD, marker="^", **look)
    axes.scatter(hits[~dead], norm[~dead], color=LIVE, **look)
    margin.set_xticks([0.5], ["none"])
    margin.set_xlim(-0.2, 1.2)
    margin.set_ylabel(NORM)
    scale(margin, "y", log=spans_decades(norm))
    axes.tick_params(left=False)
    axes.set_xlabel("hits of the code")
    scale(axes, "x", log=bool((~dead).any()))
    return figure


@theme()
def rank_frequency(first: NDArray[np.int64] | None, last: NDArray[np.int64]) -> Figure:
    """Share of the tokens that each code got, by rank, early and late, against uniform use; first, last (K,)."""
    figure, axes = single()
    if first is not None:
        _draw_ranks(axes, "first records", np.sort(first)[::-1], "--")
    _draw_ranks(axes, "last records", np.sort(last)[::-1], "-")
    uniform = 1 / len(last)
    axes.plot([1, len(last)], [uniform, uniform], color="#999999", linestyle=":", label=f"uniform: 1/{len(last):,}")
    for which in ("x", "y"):
        scale(axes, which, log=True)
    axes.set_xlabel("rank of the code")
    axes.set_ylabel("share of the tokens")
    legend_beside(axes)
    return figure


def _draw_ranks(axes: Axes, name: str, hits: NDArray[np.int64], style: str) -> None:
    used = hits[hits > 0]
    colour = LIVE if style == "-" else "#555555"
    ranks, label = np.arange(1, len(used) + 1), f"{name} ({len(used):,} codes)"
    axes.plot(ranks, used / max(1, used.sum()), style, color=colour, label=label)

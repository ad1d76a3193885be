"""Figures of the lives of codes: how long they last, and what becomes of codes that were re-initialised."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from ...diagnostics.stats import Hazard, Survival
from ..page.style import DEAD, LIVE, few_ticks, legend_beside, looks, scale, short, stacked, theme

AGE = "age of the life (optimizer steps)"
#: Bars of codes that are no longer in use, from those that never were to those that lived for long; and of the others.
_OVER = ["#8c3a0b", DEAD, "#eea45f", "#f6cfa9", "#fbe8d4"]
_IN_USE = ["#8fbfdc", LIVE]


def draw_survival(axes: Axes, curve: Survival, label: str, band: bool = True, **look: object) -> None:
    """A Kaplan-Meier curve as the step function that it is, from 1 at age 0, with its interval."""
    ages, share = np.append(0, curve.age), np.append(1.0, curve.share)
    axes.step(ages, share, where="post", label=label, **look)  # pyright: ignore[reportArgumentType]
    if band:
        low, high = (np.append(np.nan, end) for end in (curve.low, curve.high))
        axes.fill_between(ages, low, high, step="post", alpha=0.2, linewidth=0, color=look["color"])  # pyright: ignore
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


@theme()
def survival_curves(curves: Mapping[str, Survival]) -> Figure:
    """Survival by how the lives began, with the numbers at risk beneath."""
    figure, axes, below = _with_numbers(len(curves))
    for (name, curve), look in zip(curves.items(), looks(curves).values(), strict=True):
        draw_survival(axes, curve, f"{name} (n = {len(curve.durations.age):,})", **look)
    axes.set_ylabel("share of lives that go on")
    oldest = max(int(curve.age[-1]) for curve in curves.values())
    axes.set_xlim(-0.02 * oldest, oldest)  # a curve that drops at age 0 is not hidden by the axis
    few_ticks(axes.xaxis)
    legend_beside(axes)
    ages = [tick for tick in axes.get_xticks() if 0 <= tick <= axes.get_xlim()[1]]
    _numbers_below(below, ages, {name: curve.at_risk(ages) for name, curve in curves.items()})
    return figure


def _with_numbers(rows: int) -> tuple[Figure, Axes, Axes]:
    """A figure with axes over ages, and axes without a frame beneath, for ``rows`` rows of numbers."""
    figure = Figure(figsize=(7.5, 3.9 + 0.22 * rows), layout="constrained")
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[10, 0.6 * rows + 0.4])
    axes.tick_params(labelbottom=True)
    axes.set_xlabel(AGE)
    return figure, axes, below


def _numbers_below(axes: Axes, places: Sequence[float], rows: Mapping[str, NDArray[np.integer]]) -> None:
    """Numbers at risk, one row for each name in its colour."""
    for row, (numbers, look) in enumerate(zip(rows.values(), looks(rows).values(), strict=True)):
        for place, number in zip(places, numbers, strict=True):
            axes.text(place, row, f"{number:,}", ha="center", va="center", fontsize="small", color=look["color"])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks([])
    axes.set_ylabel("at risk", rotation=0, ha="right", va="center", fontsize="small", labelpad=22)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelbottom=False)


@theme()
def hazards(hazard: Mapping[str, Hazard]) -> Figure:
    """Deaths per code and 100 steps in bins of age, with the numbers at risk beneath."""
    edges = next(iter(hazard.values())).edges
    figure, axes, below = _with_numbers(len(hazard))
    middle = np.arange(len(edges) - 1) + 0.5
    shift = np.linspace(-0.12, 0.12, len(hazard)) if len(hazard) > 1 else [0.0]
    for (name, one), look, by in zip(hazard.items(), looks(hazard).values(), shift, strict=True):
        ends = np.nan_to_num([one.rate - one.low, one.high - one.rate])
        drawn = (one.rate > 0) & np.isfinite(one.high)
        place = middle[drawn] + by
        axes.errorbar(
            place, one.rate[drawn], ends[:, drawn], marker="o", markersize=4, linewidth=1.2, label=name, **look
        )
        none = (one.rate == 0) & np.isfinite(one.high)
        axes.plot(middle[none] + by, one.high[none], "v", color=look["color"], fillstyle="none", markersize=6)
    scale(axes, "y", log=True)
    axes.set_ylabel("deaths per code and 100 steps")
    axes.set_xlim(0, len(edges) - 1)
    axes.set_xticks(np.arange(len(edges)), [short(edge) for edge in edges])
    legend_beside(axes)
    _numbers_below(below, middle.tolist(), {name: one.at_risk for name, one in hazard.items()})
    return figure


@theme()
def generations(edges: NDArray[np.integer], fates: Mapping[str, NDArray[np.integer]]) -> Figure:
    """What became of the codes that were reset in each stretch of steps: shares, and beneath how many they were."""
    figure, (shares, counts) = stacked(2, height=2.3)
    total, width = sum(fates.values(), np.zeros(len(edges) - 1, np.int64)), np.diff(edges)
    bottom = np.zeros(len(total))
    colours = [*_OVER[: len(fates) - len(_IN_USE)], *_IN_USE]
    for (name, number), colour in zip(fates.items(), colours, strict=True):
        share = np.divide(number, total, out=np.zeros(len(total)), where=total > 0)
        shares.bar(edges[:-1], share, width, bottom, align="edge", color=colour, label=name, edgecolor="white", lw=0.4)
        bottom += share
    counts.bar(edges[:-1], total, width, align="edge", color="#777777", edgecolor="white", linewidth=0.4)
    shares.set_ylim(0, 1)
    shares.set_xlim(edges[0], edges[-1])
    shares.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    shares.set_ylabel("share of the resets")
    counts.set_ylabel("resets")
    counts.set_xlabel("optimizer step of the reset")
    few_ticks(counts.yaxis, 4)
    handles, names = shares.get_legend_handles_labels()
    shares.legend(handles[::-1], names[::-1], loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize="small")
    return figure

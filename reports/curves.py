"""Figures with the optimizer step on the horizontal axis."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from .style import DEAD, LIVE, PALETTE, few_ticks, legend_beside, looks, scale, short, spans_decades, stacked, theme

#: Prefixes of the logged losses, one pair of axes each, with the label of the vertical axis.
LOSS_GROUPS = {"loss/": "loss (no unit)", "quantizer/": "quantizer term (no unit)", "gan/": "adversarial term"}


def series(rows: Sequence[Mapping[str, Any]], key: str) -> pd.Series:
    """The logged values of ``key`` over the steps at which it was logged as a number; the last one where twice."""
    points = {row["step"]: row[key] for row in rows if "step" in row and isinstance(row.get(key), int | float)}
    return pd.Series(points, dtype=float, name=key).sort_index()


def keys(rows: Sequence[Mapping[str, Any]], prefix: str) -> list[str]:
    """The logged keys that start with ``prefix`` and were a number at least once, in the order of first sight."""
    seen = dict.fromkeys(key for row in rows for key, value in row.items() if isinstance(value, int | float))
    return [key for key in seen if key.startswith(prefix)]


def smooth(values: pd.Series) -> pd.Series:
    """Centred running mean over a fiftieth of the points."""
    return values.rolling(max(1, len(values) // 50), center=True, min_periods=1).mean()


def window_label(window: NDArray[np.int64]) -> str:
    """How a per-window figure names its window: "window of 10 steps", or the range where windows differ."""
    low, high = int(window.min()), int(window.max())
    if low == high:
        return f"window of {low} step{'s' * (low > 1)}"
    return f"window of {low} to {high} steps"


def _draw_group(axes: Axes, rows: Sequence[Mapping[str, Any]], names: Sequence[str], prefix: str) -> None:
    for name, look in looks(names).items():
        values = series(rows, name)
        axes.plot(values.index, values, color=look["color"], alpha=0.25, linewidth=0.8)
        mean = smooth(values)
        axes.plot(mean.index, mean, label=name.removeprefix(prefix), **look)
    drawn = np.concatenate([series(rows, name).to_numpy() for name in names])
    scale(axes, "y", log=bool((drawn[np.isfinite(drawn)] > 0).all()) and spans_decades(drawn, 10))
    legend_beside(axes)


@theme()
def losses(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Every logged loss over the steps, one pair of axes per group of ``LOSS_GROUPS`` that was logged at all."""
    groups = {prefix: names for prefix in LOSS_GROUPS if (names := keys(rows, prefix))}
    figure, stack = stacked(len(groups))
    for axes, (prefix, names) in zip(stack, groups.items(), strict=True):
        _draw_group(axes, rows, names, prefix)
        axes.set_ylabel(LOSS_GROUPS[prefix])
    return figure


@theme()
def validation(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Every figure of the validations, one pair of axes each."""
    names = [name for name in keys(rows, "validation/") if name != "validation/images"]
    figure, stack = stacked(len(names), height=1.5)
    for axes, name in zip(stack, names, strict=True):
        values = series(rows, name)
        quantity = name.removeprefix("validation/").replace("_split", " in the whole split").replace("_", " ")
        axes.plot(values.index, values, marker="o", markersize=3, color=LIVE)
        axes.set_title(f"{quantity} (validation)", loc="left")
        axes.set_ylabel(_unit(name))
        few_ticks(axes.yaxis, 4)
    return figure


def _unit(name: str) -> str:
    units = {"codes_used": "codes", "perplexity": "codes", "psnr": "dB", "l1": "error", "l2": "error", "ssim": "index"}
    return next((unit for part, unit in units.items() if part in name), "value")


@theme()
def usage(frame: pd.DataFrame, codebook_size: int) -> Figure:
    """Codes used per window with their ceiling, and perplexity per window; frame of ``lives.usage_in_time``."""
    figure, (used, perplexity) = stacked(2)
    label = window_label(frame["window"].to_numpy())
    tokens = f"{short(frame['tokens'].median())} tokens"
    used.plot(frame["step"], frame["ceiling_window"], color="#555555", linestyle="--", label="ceiling: uniform use")
    used.plot(frame["step"], frame["codes_used_window"], color=LIVE, label="codes used")
    used.set_ylabel(f"codes used, of {codebook_size:,}")
    used.set_title(f"codes used ({label}, {tokens})", loc="left")
    used.legend(loc="best", fontsize="small")
    perplexity.plot(frame["step"], frame["perplexity_window"], color=PALETTE[2])
    perplexity.set_ylabel("perplexity, in codes")
    perplexity.set_title(f"perplexity ({label}, {tokens})", loc="left")
    for axes in (used, perplexity):
        axes.set_ylim(bottom=0)
        few_ticks(axes.yaxis)
    return figure


@theme()
def resets(steps: NDArray[np.int64], window: NDArray[np.int64], count: NDArray[np.int64]) -> Figure:
    """Codes that a remedy re-initialised in each window; steps, window, count (T,)."""
    figure, (axes,) = stacked(1)
    axes.vlines(steps, 0, count, color=DEAD, linewidth=1.2)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("resets per window")
    axes.set_title(f"resets ({window_label(window)})", loc="left")
    few_ticks(axes.yaxis)
    return figure


def band(curves: Sequence[pd.Series]) -> pd.DataFrame:
    """Mean and sample standard deviation (n - 1) over seeds, at the steps that every seed has.

    A seed that stopped early thus ends the band; its single line is drawn all the same.

    Returns:
        Columns ``mean`` and ``sd`` by step; ``sd`` is NaN where there is one seed.
    """
    together = pd.concat([curve.rename(i) for i, curve in enumerate(curves)], axis=1, join="inner").sort_index()
    return pd.DataFrame({"mean": together.mean(axis=1), "sd": together.std(axis=1, ddof=1)})


def _draw_names(axes: Axes, curves: Mapping[str, Sequence[pd.Series]]) -> None:
    """One colour per name: thin lines for the seeds, a thick one for their mean, a band of one sd around it."""
    for (name, seeds), look in zip(curves.items(), looks(curves).values(), strict=True):
        if len(seeds) == 1:
            axes.plot(seeds[0].index, seeds[0], label=f"{name} (1 seed, no band)", **look)
            continue
        for seed in seeds:
            axes.plot(seed.index, seed, alpha=0.45, linewidth=0.7, color=look["color"])
        middle = band(seeds)
        spread = (middle["mean"] - middle["sd"], middle["mean"] + middle["sd"])
        axes.fill_between(middle.index, *spread, alpha=0.2, linewidth=0, color=look["color"])
        axes.plot(middle.index, middle["mean"], label=f"{name} (n = {len(seeds)} seeds)", **look)
    legend_beside(axes)


@theme()
def loss_by_name(curves: Mapping[str, Sequence[pd.Series]], label: str) -> Figure:
    """A loss under each name, on a logarithmic axis where it falls far."""
    figure, (axes,) = stacked(1, height=3.6, width=10.0)
    _draw_names(axes, curves)
    axes.set_ylabel(label)
    values = np.concatenate([seed.to_numpy() for seeds in curves.values() for seed in seeds])
    scale(axes, "y", log=bool((values > 0).all()) and spans_decades(values, 10))
    return figure


@theme()
def usage_by_name(curves: Mapping[str, Sequence[pd.Series]], label: str) -> Figure:
    """Codes used or perplexity under each name, from zero."""
    figure, (axes,) = stacked(1, height=3.6, width=10.0)
    _draw_names(axes, curves)
    axes.set_ylabel(label)
    axes.set_ylim(bottom=0)
    few_ticks(axes.yaxis)
    return figure


def seeds_caption(drawn: Mapping[str, Sequence[pd.Series]]) -> str:
    """What lines and bands of ``loss_by_name`` and ``usage_by_name`` are."""
    several = "Thick: mean over seeds; band: ± one sample standard deviation; thin: the seeds."
    alone = [name for name, seeds in drawn.items() if len(seeds) == 1]
    if len(alone) == len(drawn):
        return "One seed each: no band, and no word on the spread between seeds."
    return several + (f" One seed only, so no band: {', '.join(alone)}." if alone else "")

"""Figures of one run with the optimizer step on the horizontal axis."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ..page.logged import keys, series, smooth, window_label
from ..page.style import (
    DEAD,
    LIVE,
    PALETTE,
    dot,
    few_ticks,
    legend_beside,
    looks,
    scale,
    short,
    spans_decades,
    stacked,
    theme,
)


@theme()
def losses(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Every logged loss over the steps, one pair of axes per group of ``LOSS_GROUPS`` that was logged at all."""
    groups = {prefix: names for prefix in LOSS_GROUPS if (names := keys(rows, prefix))}
    figure, stack = stacked(len(groups))
    for axes, (prefix, names) in zip(stack, groups.items(), strict=True):
        _draw_group(axes, rows, names, prefix)
        axes.set_ylabel(LOSS_GROUPS[prefix])
    return figure


def _draw_group(axes: Axes, rows: Sequence[Mapping[str, Any]], names: Sequence[str], prefix: str) -> None:
    for name, look in looks(names).items():
        values = series(rows, name)
        axes.plot(values.index, values, color=look["color"], alpha=0.25, linewidth=0.8)
        mean = smooth(values)
        axes.plot(mean.index, mean, label=name.removeprefix(prefix), **look, **dot(len(mean)))
    drawn = np.concatenate([series(rows, name).to_numpy() for name in names])
    scale(axes, "y", log=bool((drawn[np.isfinite(drawn)] > 0).all()) and spans_decades(drawn, 10))
    legend_beside(axes)


@theme()
def validation(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Every figure of the validations, one pair of axes each."""
    names = validated(rows)
    figure, stack = stacked(len(names), height=1.5)
    for axes, name in zip(stack, names, strict=True):
        values = series(rows, name)
        axes.plot(values.index, values, marker="o", markersize=3, color=LIVE)
        if len(even := series(rows, name + CEILING)):
            axes.plot(even.index, even, color="#555555", linestyle="--", label="ceiling: uniform use")
            axes.set_ylim(bottom=0)
            axes.legend(loc="best", fontsize="small")
        axes.set_title(f"{quantity(name)} (validation)", loc="left")
        axes.set_ylabel(_called(name, UNITS | KINDS, "value"))
        few_ticks(axes.yaxis, 4)
    return figure


def logged_losses(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The losses of ``LOSS_GROUPS`` that were logged."""
    return [name for prefix in LOSS_GROUPS for name in keys(rows, prefix)]


def validated(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The figures of the validations, without the ceilings that belong to some of them."""
    return [name for name in keys(rows, "validation/") if name != "validation/images" and not name.endswith(CEILING)]


def quantity(name: str) -> str:
    """What a figure of a validation is, for people."""
    return name.removeprefix("validation/").replace("_split", " in the whole split").replace("_", " ")


def of_ceiling(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    """What even use would show of a figure of a validation, for people; empty where that is not known."""
    even = series(rows, name + CEILING)
    return f" (even use: {even.iloc[-1]:,.0f})" if len(even) else ""


def unit(name: str) -> str:
    """The unit of a logged figure."""
    return _called(name, UNITS, "no unit")


def _called(name: str, words: Mapping[str, str], otherwise: str) -> str:
    return next((word for part, word in words.items() if part in name), otherwise)


@theme()
def usage(frame: pd.DataFrame, codebook_size: int) -> Figure:
    """Codes used per window with their ceiling, and perplexity per window; frame of ``lives.usage_in_time``."""
    figure, (used, perplexity) = stacked(2)
    label = window_label(frame["window"].to_numpy())
    tokens = f"{short(frame['tokens'].median())} tokens"
    lone = dot(len(frame))
    look = {"color": "#555555", "linestyle": "--", **lone}
    used.plot(frame["step"], frame["ceiling_window"], label="ceiling: uniform use", **look)
    used.plot(frame["step"], frame["codes_used_window"], color=LIVE, label="codes used", **lone)
    used.set_ylabel(f"codes used, of {codebook_size:,}")
    used.set_title(f"codes used ({label}, {tokens})", loc="left")
    used.legend(loc="best", fontsize="small")
    perplexity.plot(frame["step"], frame["perplexity_window"], color=PALETTE[2], **lone)
    perplexity.set_ylabel("perplexity, in codes")
    perplexity.set_title(f"perplexity ({label}, {tokens})", loc="left")
    for axes in (used, perplexity):
        axes.set_ylim(bottom=0)
        few_ticks(axes.yaxis)
    return figure


@theme()
def resets(steps: NDArray[np.int64], window: NDArray[np.int64], count: NDArray[np.number]) -> Figure:
    """Codes that were re-initialised in each window; steps, window, count (T,)."""
    figure, (axes,) = stacked(1)
    axes.vlines(steps, 0, count, color=DEAD, linewidth=1.2)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("resets per window")
    axes.set_title(f"resets ({window_label(window)})", loc="left")
    few_ticks(axes.yaxis)
    return figure


#: How the name of what even use would show of a figure ends.
CEILING = "_ceiling"
#: Prefixes of the logged losses, one pair of axes each, with the label of the vertical axis.
LOSS_GROUPS = {"loss/": "loss (no unit)", "quantizer/": "quantizer term (no unit)", "gan/": "adversarial term"}
#: Units by what is in the name of a figure, and what those without one are called on an axis.
UNITS = {"codes_used": "codes", "perplexity": "codes", "psnr": "dB"}
KINDS = {"l1": "error", "l2": "error", "ssim": "index"}

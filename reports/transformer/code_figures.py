"""Figures of all codes of a transformer at once, over an evaluated split."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...diagnostics import stats
from ...diagnostics.recording.code_use import Codes, CodeUse
from ...diagnostics.stats.gap import chance_band
from ..page.style import DEAD, LIVE, PALETTE, legend_beside, scale, single, spread, theme

WRONG, FAINT, LINE = PALETTE[3], PALETTE[9], "#333333"


def point_size(codes: int) -> float:
    """Area of a point, smaller where there are many."""
    return float(np.clip(8000 / max(1, codes), 5, 30))


@theme()
def frequency_against_nll(use: CodeUse) -> Figure:
    """Mean NLL of every code against its share of the training tokens, with the line of a model that knows no more."""
    absent = use.absent & (use.data > 0)
    if absent.any():
        figure = Figure(figsize=(9.0, 4.6), layout="constrained")
        margin, axes = figure.subplots(1, 2, sharey=True, width_ratios=[1, 9])
        margin.scatter(spread(int(absent.sum())), use.nll[absent], s=26, color=WRONG, marker="X", linewidths=0)
        margin.set_xticks([0.5], ["none"])
        margin.set_xlim(-0.3, 1.3)
        axes.tick_params(left=False)
        axes.scatter([], [], s=26, color=WRONG, marker="X", label=f"not in train (n = {absent.sum():,})")
    else:
        figure, axes = single(height=4.6, width=9.0)
        margin = axes
    _draw_learned(axes, use)
    margin.set_ylabel("mean NLL in the split (nats)")
    margin.set_ylim(bottom=0)
    scale(margin, "y", log=False)
    axes.set_xlabel("share of the training tokens")
    scale(axes, "x", log=bool((~use.absent).any()))
    legend_beside(axes)
    return figure


def _draw_learned(axes: Axes, use: CodeUse) -> None:
    share, never, size = stats.frequencies(use.train), use.never_learned, point_size(int(use.judged.sum()))
    learned = use.judged & ~never
    look: dict[str, Any] = {"color": LIVE, "s": size, "alpha": 0.6, "linewidths": 0, "rasterized": True}
    axes.scatter(share[learned], use.nll[learned], label=f"learned (n = {learned.sum():,})", **look)
    look |= {"color": DEAD, "s": size + 30, "marker": "^", "alpha": 1.0, "edgecolors": "black", "linewidths": 0.5}
    axes.scatter(share[never], use.nll[never], label=f"never learned (n = {never.sum():,})", **look)
    if (~use.absent).any():
        ends = np.geomspace(share[~use.absent].min(), share.max(), 100)
        axes.plot(ends, -np.log(ends), color=LINE, linewidth=1.2, label="by frequency alone: −ln p")
    if use.tokens:
        label = f"all tokens: {use.mean_nll:.2f} nats"
        axes.axhline(use.mean_nll, color=LINE, linewidth=1.0, linestyle=":", label=label)


@theme()
def data_against_sampled(use: CodeUse) -> Figure:
    """Share of every code in the samples against its share in the data, with the band that chance alone would fill."""
    figure = Figure(figsize=(9.0, 5.8), layout="constrained")
    grid = figure.subplots(2, 2, sharex="col", sharey="row", width_ratios=[1, 11], height_ratios=[11, 1])
    (left, axes), (corner, below) = grid
    corner.set_axis_off()
    _draw_band(axes, use)
    data, sampled, outside = stats.frequencies(use.data), stats.frequencies(use.sampled), use.outside_chance
    odd, size = use.absent & (use.sampled > 0), point_size(int((data + sampled > 0).sum()))
    looks = {
        "within chance": (~outside & ~odd, {"color": FAINT, "s": size}),
        "outside of it": (outside & ~odd, {"color": LIVE, "s": size}),
        "not in train, yet sampled": (odd, {"color": WRONG, "s": 70, "marker": "X", "edgecolors": "black"}),
    }
    for name, (codes, look) in looks.items():
        shown, none, never = codes & (use.data > 0), codes & (use.data == 0), codes & (use.sampled == 0)
        look = {"linewidths": 0.6 * (look.get("marker") == "X"), "alpha": 0.8, "rasterized": True, **look}
        if n := int((codes & (data + sampled > 0)).sum()):
            axes.scatter([], [], label=f"{name} (n = {n:,})", **look)
        _scatter(axes, data, sampled, shown & ~never, look)
        left.scatter(spread(int((none & ~never).sum())), sampled[none & ~never], **look)
        below.scatter(data[shown & never], spread(int((shown & never).sum())), **look)
    _label_shares(axes, left, below, use)
    legend_beside(axes)
    return figure


def _scatter(axes: Axes, x: np.ndarray, y: np.ndarray, codes: Codes, look: dict) -> None:
    axes.scatter(x[codes], y[codes], **look)


def _draw_band(axes: Axes, use: CodeUse) -> None:
    """The diagonal and the band of chance around it, over the range of the data."""
    there = use.data[use.data > 0]
    counts = np.unique(np.geomspace(there.min(), there.max(), 200).round())
    low, high = chance_band(counts, use.tokens, use.sampled_tokens)
    floor = 0.5 / use.sampled_tokens  # less than one token has no place on the axis: the strip beneath
    ends = (np.maximum(low / use.sampled_tokens, floor), high / use.sampled_tokens)
    share = counts / use.tokens
    axes.fill_between(share, *ends, color="#bbbbbb", alpha=0.45, linewidth=0, label="chance alone: 95 %")
    axes.plot(share, np.maximum(share, floor), color=LINE, linewidth=1.0, label="as in the data")


def _label_shares(axes: Axes, left: Axes, below: Axes, use: CodeUse) -> None:
    for which in ("x", "y"):
        scale(axes, which, log=True)
    axes.set_ylim(bottom=0.7 * use.sampled[use.sampled > 0].min() / use.sampled_tokens)
    left.set_xticks([0.5], ["none"])
    left.set_xlim(-0.3, 1.3)
    left.tick_params(labelbottom=True)
    below.set_yticks([0.5], ["none"])
    below.set_ylim(-0.3, 1.3)
    below.tick_params(labelleft=True)
    left.set_ylabel("share of the sampled tokens")
    below.set_xlabel("share of the split's tokens")
    axes.tick_params(left=False, bottom=False)

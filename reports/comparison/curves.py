"""Figures of several runs with the optimizer step on the horizontal axis."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..page.style import dot, few_ticks, legend_beside, looks, scale, spans_decades, stacked, theme


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
            lone = dot(len(seeds[0]))
            axes.plot(seeds[0].index, seeds[0], label=f"{name} (1 seed, no band)", **look, **lone)
            continue
        for seed in seeds:
            axes.plot(seed.index, seed, alpha=0.45, linewidth=0.7, color=look["color"], **dot(len(seed)))
        middle = band(seeds)
        spread = (middle["mean"] - middle["sd"], middle["mean"] + middle["sd"])
        axes.fill_between(middle.index, *spread, alpha=0.2, linewidth=0, color=look["color"])
        mean = middle["mean"]
        axes.plot(mean.index, mean, label=f"{name} (n = {len(seeds)} seeds)", **look, **dot(len(mean)))
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

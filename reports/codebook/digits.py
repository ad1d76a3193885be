"""The digits of an implicit codebook: how often each takes each of its values."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ...diagnostics import stats
from ..page.sections import Panel
from ..page.style import LIVE, few_ticks, theme
from ..page.words import counted
from .measured import brief

#: Digits with an axis of their own; of more, those that are used least evenly.
MOST = 12


def digits_panels(codebook: str, frame: pd.DataFrame) -> Iterator[Panel]:
    """The figure of the table ``digits``: its last window."""
    row = frame.iloc[-1]
    hits = np.split(np.asarray(row["hits"], np.int64), np.cumsum(np.asarray(row["levels"], int))[:-1])
    evenness = [float(stats.perplexity(digit)) / len(digit) for digit in hits]
    shown = sorted(np.argsort(evenness, kind="stable")[:MOST])
    worst = int(np.argmin(evenness))
    few = f" The {MOST} digits that are used least evenly, of {len(hits)}." if len(hits) > MOST else ""
    how = "every code was counted" if row["counted_exactly"] else "estimated from a hash of the codes"
    yield Panel(
        f"{codebook}-digits",
        "Values of the digits",
        f"A code of this quantizer is a number of {counted(len(hits), 'digit')}. Share of the tokens by value, in the"
        f" window that ends at step {frame.index[-1]:,} ({brief(row['tokens'])} tokens); dashed: even use. A value"
        f" without a bar is one that no latent reaches. Least even: digit {worst}, used as if it had"
        f" {brief(evenness[worst] * len(hits[worst]))} of its {len(hits[worst])} values. Distinct codes in the window:"
        f" {brief(row['codes_seen'])} ({how}).{few}",
        values({f"digit {number}": hits[number] for number in shown}),
    )


@theme()
def values(hits: dict[str, np.ndarray]) -> Figure:
    """Share of the tokens by value, one pair of axes per digit."""
    columns = min(4, len(hits))
    rows = -(-len(hits) // columns)
    figure = Figure(figsize=(2.1 * columns + 0.8, 1.9 * rows + 0.6), layout="constrained")
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for axes, (name, counts) in zip(grid.flat, hits.items(), strict=False):
        axes.bar(np.arange(len(counts)), counts / max(1, counts.sum()), color=LIVE)
        axes.axhline(1 / len(counts), color="#555555", linestyle="--", linewidth=1)
        axes.set_title(name, loc="left", fontsize="medium")
        axes.set_xlim(-0.6, len(counts) - 0.4)
        few_ticks(axes.xaxis, min(5, len(counts)))
    for axes in grid.flat[len(hits) :]:
        axes.remove()
    figure.supxlabel("value", fontsize="medium")
    figure.supylabel("share of the tokens", fontsize="medium")
    return figure

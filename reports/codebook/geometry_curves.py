"""How the geometry of latents and codes changes from snapshot to snapshot."""

from collections.abc import Iterator, Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..page.sections import Panel
from ..page.style import looks, scale, short, spans_decades, theme
from ..page.words import counted
from .measured import there

#: What is drawn from snapshot to snapshot: the title of each pair of axes with its curves and what they are called.
CURVES = {
    "scale |e| / |z|": {"scale": ""},
    "spread, codes / latents": {"spread_ratio": ""},
    "offset, in spreads": {"offset": ""},
    "effective rank": {"effective_rank": "latents", "effective_rank_used": "used codes"},
    "codes nearest to a latent": {"codes_reached": ""},
    "unhit codes: way, in errors": {"dead_reach": ""},
    "lag, share of the error": {"bias_share": ""},
    "error / variance": {"quantization_error": ""},
}


def geometry_panels(codebook: str, frame: pd.DataFrame) -> Iterator[Panel]:
    """Curves of the geometry, where there are more than two snapshots."""
    drawn = {title: names for title, names in CURVES.items() if there(frame, *names)}
    if len(frame) > 2 and drawn:
        yield Panel(
            f"{codebook}-geometry",
            "Geometry from snapshot to snapshot",
            f"{counted(len(frame), 'snapshot')} between step {frame.index[0]:,} and {frame.index[-1]:,}, at steps that"
            " lie farther and farther apart (the axis is logarithmic, with step 0 at its left end). What each quantity"
            " says stands in the table of this codebook.",
            geometry_curves(frame, drawn),
            wide=True,
        )


@theme()
def geometry_curves(frame: pd.DataFrame, drawn: Mapping[str, Mapping[str, str]]) -> Figure:
    """Small curves, such as those of ``CURVES``; the steps on a logarithmic axis that begins with 0."""
    columns = min(4, len(drawn))
    rows = -(-len(drawn) // columns)
    figure = Figure(figsize=(2.9 * columns, 2.1 * rows + 0.4), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, squeeze=False)
    for axes, (title, names) in zip(grid.flat, drawn.items(), strict=False):
        for name, look in looks(names).items():
            values = frame[name].dropna().astype(float)
            axes.plot(values.index, values, marker="o", markersize=3, label=names[name], **look)
        axes.set_title(title, loc="left", fontsize="medium")
        axes.margins(y=0.12)
        scale(axes, "y", log=spans_decades(frame[[*names]].to_numpy(float)))
        if len(names) > 1:
            axes.legend(loc="best", fontsize="small")
        _steps_axis(axes, int(frame.index[-1]))
    for axes in grid.flat[len(drawn) :]:
        axes.remove()
    figure.supxlabel("optimizer steps before", fontsize="medium")
    return figure


def _steps_axis(axes: Axes, last: int) -> None:
    """Steps 0, 1, 10, 40, 160 and so on, all with room."""
    axes.set_xscale("symlog", linthresh=1, linscale=0.4)
    steps = [step for step in (0, *(10**power for power in range(9))) if step <= last]
    axes.set_xticks(steps, [short(step) for step in steps])
    axes.minorticks_off()
    axes.tick_params(labelbottom=True)

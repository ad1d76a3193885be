"""How the figures look: one theme, one colour-blind-safe palette, short numbers on the axes."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

import matplotlib
import numpy as np
import seaborn
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator
from numpy.typing import NDArray

PALETTE: list[str] = seaborn.color_palette("colorblind").as_hex()  # pyright: ignore[reportAttributeAccessIssue]
LIVE, DEAD = PALETTE[0], PALETTE[1]
#: What a heatmap shows where there was nothing at all; in none of the colour maps.
NOTHING = "#d9d9d9"
#: Resolution of every figure, in pixels per inch.
DPI = 150
_LINES: list = ["-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (8, 3))]


@contextmanager
def theme() -> Iterator[None]:
    """The look of every figure; decorate a function that draws with ``@theme()``."""
    look: dict = {
        **seaborn.axes_style("ticks", {"axes.grid": True, "grid.color": "#e6e6e6", "axes.axisbelow": True}),
        **seaborn.plotting_context("notebook", font_scale=0.9),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "text.parse_math": False,  # names come from users: "$" is a letter, not a formula
        "svg.hashsalt": "vqtool",
    }
    with matplotlib.rc_context(look):
        yield


def short(value: float, _position: object = None) -> str:
    """A number for a tick: 0.05, 300, 20k, 1.5M, 1e-5."""
    size = abs(value)
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= unit:
            return f"{value / unit:.4g}{letter}"
    if 0 < size < 1e-3:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    return f"{value:.4g}"


def few_ticks(axis: Axis, ticks: int = 6) -> None:
    """At most ``ticks`` round numbers on a linear axis."""
    axis.set_major_locator(MaxNLocator(ticks, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(short))


def log_ticks(axis: Axis) -> None:
    """Powers of ten on a logarithmic axis, with numbers between them where it spans few of them."""
    low, high = axis.get_view_interval()
    span = high / low if low > 0 else np.inf
    between = (1.0, 2.0, 5.0) if span < 50 else (1.0, 3.0) if span < 2000 else (1.0,)
    axis.set_major_locator(LogLocator(subs=between, numticks=8))
    axis.set_major_formatter(FuncFormatter(short))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def spans_decades(values: np.ndarray, factor: float = 30.0) -> bool:
    """Whether positive values cover more than ``factor``, so that only a logarithmic axis shows them all."""
    positive = values[np.isfinite(values) & (values > 0)]
    return positive.size > 0 and bool(positive.max() > factor * positive.min())


def scale(axes: Axes, which: Literal["x", "y"], log: bool) -> None:
    """Set one axis to linear or logarithmic, with its ticks; to be called when the data are drawn."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    if not log:
        return few_ticks(axis)
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    log_ticks(axis)


def counts_axis(axes: Axes, label: str) -> None:
    """A vertical axis for counts from 0 to many: linear to 1, logarithmic above, so that a lone code stays visible."""
    axes.set_yscale("symlog", linthresh=1, linscale=0.4)
    axes.set_ylim(bottom=0)
    powers = 10.0 ** np.arange(0, 9)
    axes.set_yticks([0.0, *powers[powers <= 2 * axes.get_ylim()[1]]])
    axes.yaxis.set_major_formatter(FuncFormatter(short))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel(label)


def stacked(rows: int, height: float = 2.3, width: float = 7.5) -> tuple[Figure, list[Axes]]:
    """A figure with ``rows`` axes above each other that share the axis of steps."""
    figure = Figure(figsize=(width, height * rows + 0.7), layout="constrained")
    axes = list(figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0])
    axes[-1].set_xlabel("optimizer step")
    few_ticks(axes[-1].xaxis, 8)
    return figure, axes


def single(height: float = 4.2, width: float = 7.5) -> tuple[Figure, Axes]:
    """A figure with one pair of axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def looks(names: Iterable[str]) -> dict[str, dict]:
    """A colour and a line style for every name, so that lines differ in grey print and past ten names too."""
    return {
        name: {"color": PALETTE[i % len(PALETTE)], "linestyle": _LINES[(i // len(PALETTE) + i) % len(_LINES)]}
        for i, name in enumerate(names)
    }


def legend_beside(axes: Axes, **options: object) -> None:
    """The legend to the right of the axes, where it hides no data."""
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize="small", **options)


def legend_above(axes: Axes) -> None:
    """The legend in one line above the axes, which keep the whole width."""
    names = axes.get_legend_handles_labels()[1]
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=len(names), fontsize="small", borderpad=0.1)


def dot(n: int) -> dict:
    """How a curve of ``n`` points is drawn besides its line: one point alone has no line, and is a dot."""
    return {"marker": "o", "markersize": 4} if n == 1 else {}


def spread(n: int) -> NDArray[np.floating]:
    """Places in [0, 1) that part points which would hide each other: multiples of the golden ratio."""
    return np.arange(n) * 0.6180339887 % 1

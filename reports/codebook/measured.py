"""What is drawn of tables: curves of their columns over the steps, the numbers of a single row."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ...diagnostics.recording.rows import Row
from ..page.sections import Table, lay_cells
from ..page.style import dot, legend_above, looks, scale, spans_decades


def there(frame: pd.DataFrame, *columns: str) -> bool:
    """Whether one of the columns was measured at all."""
    return bool(frame[[*columns]].notna().to_numpy().any())


def last(frame: pd.DataFrame, column: str) -> float:
    """The last value that was measured, NaN where none was."""
    values = frame[column].dropna()
    return float(values.iloc[-1]) if len(values) else float("nan")


def brief(value: float) -> str:
    """A number in a sentence: three significant digits, or that it was not measured."""
    return "not measured" if np.isnan(value) else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def cell(value: Any) -> str:
    """A value in a table, whatever its kind; a dash where there is none."""
    if isinstance(value, str):
        return value
    if pd.isna(value):
        return "–"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    return brief(float(value))


def draw_lines(axes: Axes, frame: pd.DataFrame, names: Mapping[str, str], log: bool = False) -> None:
    """The columns of ``frame`` that were measured, each under its name; a single one takes no legend.

    Args:
        axes: Where they are drawn.
        frame: Rows by step.
        names: What to call each column.
        log: Whether the vertical axis is logarithmic where the values, then all of one sign, span decades.
    """
    drawn: list[np.ndarray] = [np.zeros(0)]
    for (column, name), look in zip(names.items(), looks(names).values(), strict=True):
        values = frame[column].dropna().astype(float)
        if len(values):
            axes.plot(values.index, values, label=name, linewidth=1.4, **look, **dot(len(values)))
            drawn.append(values.to_numpy())
    scale(axes, "y", log=log and spans_decades(np.concatenate(drawn), 10))
    if len(axes.lines) > 1:
        legend_above(axes)


def single_row(frame: pd.DataFrame, kind: type[Row], codebook: str, folder: Path) -> Table:
    """The numbers of a table that has one row: there is no curve of them."""
    columns = {name: told for name, told in kind.columns().items() if there(frame, name)}
    row = frame.iloc[0]
    numbers = {name: row[name] for name in columns if np.ndim(row[name]) == 0}
    cells = [cell(value) for value in numbers.values()]
    units, meanings = zip(*(columns[name] for name in numbers), strict=True)
    heads = {"quantity": [*numbers], "value": [*numbers.values()], "unit": [*units], "meaning": [*meanings]}
    text = pd.DataFrame({name.capitalize(): values for name, values in (heads | {"value": cells}).items()})
    title = f"{kind.table.capitalize()}, measured once (step {frame.index[0]:,})"
    return lay_cells(pd.DataFrame(heads), text, [], title, f"{codebook}-{kind.table}", folder)

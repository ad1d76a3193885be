"""Tables: quantizers compared over seeds, the last numbers of a run, and their files."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ...diagnostics.files import write_atomically


class Metric(NamedTuple):
    """A column of the comparison.

    Attributes:
        key: Where it stands in the evaluation.
        heading: What it is called.
        decimals: None for three significant digits.
        ceiling: Where the most that it could be stands, told with it; both are percentages then.
    """

    key: str
    heading: str
    decimals: int | None
    ceiling: str | None = None


METRICS = (
    Metric("usage_split", "Usage (whole {split} split)", 1, ceiling="usage_ceiling_split"),
    Metric("codes_used_split", "Codes used (whole {split} split)", 1),
    Metric("perplexity_split", "Perplexity (whole {split} split)", 1),
    Metric("perplexity_corrected_split", "Corrected perplexity", 1),
    Metric("l2", "L2 ↓", None),
    Metric("ssim", "SSIM ↑", 3),
    Metric("psnr", "PSNR (dB) ↑", 2),
    Metric("rfid", "rFID ↓", 2),
    Metric("device_hours_per_epoch", "Device-hours per epoch", None),
    Metric("trainable_parameters", "Trainable parameters", 0),
)


def plus_minus(mean: float, sd: float = math.nan, decimals: int | None = None) -> str:
    """``mean ± sd`` with equal decimals; the mean alone without an sd; "–" without a mean.

    Without ``decimals`` the mean gets three significant digits; a whole number without an sd gets no decimals.
    """
    if math.isnan(mean):
        return "–"
    if decimals is None:
        decimals = max(0, 2 - math.floor(math.log10(abs(mean)))) if mean and math.isfinite(mean) else 0
    if math.isnan(sd):
        return f"{mean:,.0f}" if float(mean).is_integer() and decimals <= 1 else f"{mean:,.{decimals}f}"
    return f"{mean:,.{decimals}f} ± {sd:,.{decimals}f}"


def spreads(means: Sequence[float], sds: Sequence[float], decimals: int | None = None) -> list[str]:
    """``plus_minus`` for a column.

    A column of whole numbers in which runs of one row never differ counts what is given and not measured, such as
    parameters: their ± 0 would say nothing, and is left out.
    """
    given = all(math.isnan(mean) or float(mean).is_integer() for mean in means) and not any(sd > 0 for sd in sds)
    spread = [math.nan] * len(means) if given else sds
    return [plus_minus(*pair, decimals=decimals) for pair in zip(means, spread, strict=True)]


def for_people(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """A frame as text cells, and its footnotes: the columns of each metric joined, the notes taken out.

    A frame without metrics keeps its columns.
    """
    joined = {metric.key: metric for metric in METRICS if f"{metric.key}_mean" in frame}
    ceilings = {f"{metric.ceiling}_mean" for metric in joined.values()}
    text = pd.DataFrame(index=frame.index)
    for column in frame.columns:
        key, _, part = column.rpartition("_")
        if key in joined and part == "mean":
            metric = joined[key]
            split = frame["split"].iloc[0] if len(frame) else ""
            columns = [*frame[column]], [*frame[f"{key}_sd"]]
            if metric.ceiling:
                cells = [*map(_of_ceiling, *columns, frame[f"{metric.ceiling}_mean"])]
            else:
                cells = spreads(*columns, metric.decimals)
            text[metric.heading.format(split=split)] = cells
        elif column not in ("notes", "split", *ceilings) and not (key in joined and part == "sd"):
            text["Runs (n)" if column == "n" else column.capitalize()] = [_cell(value) for value in frame[column]]
    return text, _footnotes(frame)


def _of_ceiling(mean: float, sd: float, ceiling: float) -> str:
    if math.isnan(mean):
        return "–"
    spread = "" if math.isnan(sd) else f" ± {sd:.1f}"
    return f"{mean:.1f}{spread} % of a {ceiling:.1f} % ceiling"


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:,.0f}" if value.is_integer() else f"{value:,.6g}"
    return f"{value:,}" if isinstance(value, int | np.integer) else str(value)


def _footnotes(frame: pd.DataFrame) -> list[str]:
    """One line per reason, naming the rows that it is true of where they are not all."""
    if "notes" not in frame:
        return []
    rows: dict[str, list[str]] = {}
    for name, notes in zip(frame["quantizer"], frame["notes"], strict=True):
        for note in notes.split("; ") if notes else []:
            rows.setdefault(note, []).append(name)
    lines = [
        f"{note}." if len(names) == len(frame) else f"{note} ({', '.join(names)})." for note, names in rows.items()
    ]
    spread = "Mean ± sample standard deviation over the n runs, which differ by seed"
    return [f"{spread}; one run has no ±, nor have counts that no seed changes.", *lines]


def write_table(frame: pd.DataFrame, stem: Path) -> list[Path]:
    """Write ``stem`` + ``.csv`` (every number in full), ``.md`` and ``.tex`` (booktabs), both rounded for people.

    Args:
        frame: Such as ``comparison`` or ``final_numbers`` return.
        stem: Path of the files without their endings; its folder is made.
    """
    return write_cells(frame, *for_people(frame), stem)


def write_cells(frame: pd.DataFrame, text: pd.DataFrame, notes: Sequence[str], stem: Path) -> list[Path]:
    """As ``write_table``, the Markdown and LaTeX from ``text`` cells and ``notes`` of their own."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    contents = {".csv": frame.to_csv(index=False), ".md": markdown(text, notes), ".tex": latex(text, notes)}
    paths = [stem.with_name(stem.name + ending) for ending in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        write_atomically(path, content)
    return paths


def markdown(text: pd.DataFrame, notes: Sequence[str] = ()) -> str:
    """A pipe table with its footnotes beneath."""
    rows = [list(text.columns), ["---"] * len(text.columns), *text.to_numpy().tolist()]
    lines = ["| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([*lines, "", *notes]).rstrip() + "\n"


_LATEX = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}"}
    | {">": r"\textgreater{}", "±": r"$\pm$", "–": "--", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "|": r"\textbar{}"}
    | {"−": "$-$", "×": r"$\times$"}
)


def latex(text: pd.DataFrame, notes: Sequence[str] = ()) -> str:
    """A booktabs table (it needs that package) with its footnotes beneath; every cell escaped."""
    rows = [" & ".join(cell.translate(_LATEX) for cell in row) + r" \\" for row in text.to_numpy().tolist()]
    heads = " & ".join(column.translate(_LATEX) for column in text.columns) + r" \\"
    columns = "l" + "r" * (len(text.columns) - 1)
    head = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", heads, r"\midrule"]
    table = [*head, *rows, r"\bottomrule", r"\end{tabular}"]
    below = [r"\par\smallskip\footnotesize " + note.translate(_LATEX) for note in notes]
    return "\n".join([r"\begin{table}[t]", r"\centering", *table, *below, r"\end{table}"]) + "\n"

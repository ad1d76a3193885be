"""What moves the codes of each model and pulls its encoder, side by side: the recorded tables in a row each."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pandas as pd

from ...diagnostics.errors import InputError
from ...diagnostics.recording.rows import BoundaryRow, GeometryRow, LatentsRow, MovementRow
from ...diagnostics.run import RunDirectory
from ..codebook.boundary import known
from ..codebook.measured import cell, last
from ..page.facts import RunFacts
from ..page.records import read_rows
from ..page.sections import Table, lay_cells

NOTES = [
    "Medians over the steps that were measured. Estimator: which of straight-through, cosine and rotation explains the"
    " gradient to the encoder in most of them. Gain: coefficient of the decoder's gradient there, 1 where it arrives"
    " whole, more where it takes other ways too, as through the later layers of a residual quantizer. Commitment:"
    " weight of the loss mean |z - sg q|² that the gradients show. Attraction: share of the way to the centroid of its"
    " latents that a used code goes in a step.",
    "At step 0: scale is |e| over |z|, offset the distance of the centres in spreads of the latents, rank the effective"
    " rank of the latents. Growth: mean |z| at the end over that of the first window.",
]


def mechanisms(runs: Sequence[tuple[str, RunFacts]], folder: Path) -> Table:
    """One row per codebook of every run, each with what it is called; a dash where something was not recorded."""
    rows = [
        {"run": name, "codebook": codebook, **_row(fact.run, codebook)}
        for name, fact in runs
        for codebook in fact.run.codebook_names()
    ]
    frame = pd.DataFrame(rows)
    text = pd.DataFrame({str(column).capitalize(): [cell(value) for value in frame[column]] for column in frame})
    return lay_cells(frame, text, NOTES, "What moves the codes", "mechanisms", folder)


def _row(run: RunDirectory, codebook: str) -> dict[str, object]:
    boundary, movement, latents, geometry = (
        _rows(run, kind, codebook) for kind in (BoundaryRow, MovementRow, LatentsRow, GeometryRow)
    )
    named, start = boundary["estimator"].dropna(), geometry[geometry.index == 0]
    return {
        "estimator": named.mode().iloc[0] if known(boundary) else None,
        "gain": boundary["gain"].median() if known(boundary) else None,
        "commitment": boundary["commitment"].median() if known(boundary) else None,
        "moved by": _moved_by(movement),
        "lr": last(movement, "lr"),
        "attraction": movement["attraction"].median(),
        "scale": last(start, "scale"),
        "offset": last(start, "offset"),
        "rank": last(start, "effective_rank"),
        "growth": last(latents, "mean_norm") / latents["mean_norm"].iloc[0] if len(latents) else None,
    }


def _rows(run: RunDirectory, kind: type, codebook: str) -> pd.DataFrame:
    with suppress(InputError):  # what is wrong with it is told on the page of the run
        return read_rows(run, kind, codebook)
    return pd.DataFrame(columns=[*kind.columns()])


def _moved_by(movement: pd.DataFrame) -> str | None:
    held = movement["in_optimizer"].dropna()
    if not len(held):
        return None
    return "optimizer" if held.iloc[-1] else "itself" if movement["moved_max"].max() > 0 else "nothing"

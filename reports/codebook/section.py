"""The section of one codebook: everything that a run has recorded of it, and what cannot be known."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from ...diagnostics.errors import InputError
from ...diagnostics.recording.recent import Recent, recent
from ...diagnostics.recording.rows import BoundaryRow, DigitsRow, GeometryRow, LatentsRow, MovementRow, Row, TermRow
from ...diagnostics.recording.trace import CodebookTrace
from ...diagnostics.run import RunDirectory
from ..page.records import read_rows
from ..page.sections import Panel, Section, hang
from ..page.words import counted
from .boundary import boundary_panels
from .digits import digits_panels
from .geometry_curves import geometry_panels
from .geometry_table import geometry_table
from .latents import latents_panels
from .measured import single_row
from .movement import movement_panels, unmoved
from .panels import trace_panels
from .snapshots import snapshot_panels
from .survival import add_life_histories
from .terms import terms_panels, terms_table

#: The tables that are drawn over the steps, each with its figures.
CURVES: dict[type[Row], Callable[[str, pd.DataFrame], Iterator[Panel]]] = {
    BoundaryRow: boundary_panels,
    MovementRow: movement_panels,
    LatentsRow: latents_panels,
}


def codebook_section(run: RunDirectory, codebook: str, folder: Path) -> Section:
    """Figures and tables of one codebook; one file that is broken hides nothing but what is in it."""
    section = Section(f"Codebook {codebook}")
    end = _add_trace(section, run, codebook, folder)
    _add_curves(section, run, codebook, folder)
    _add_terms(section, run, codebook, folder)
    _add_digits(section, run, codebook, folder)
    _add_geometry(section, run, codebook, folder, end)
    return section


def _add_trace(section: Section, run: RunDirectory, codebook: str, folder: Path) -> Recent | None:
    """What the trace shows, and its last records; None where there is none."""
    if not (run.trace / codebook).is_dir():
        section.text.append("It has too many codes to count each of them: its digits are counted, and no code alone.")
        return None
    with _going_on(section):
        trace = CodebookTrace.load(run.trace / codebook, ["norm", "grad_norm", "pull_norm", "resets"])
        end = recent(trace)
        section.text += unknowns(trace)
        section.pictures += hang(trace_panels(trace, end), folder)
        add_life_histories(section, trace, folder)
        return end
    return None


def _add_curves(section: Section, run: RunDirectory, codebook: str, folder: Path) -> None:
    for kind, panels in CURVES.items():
        with _going_on(section):
            rows = read_rows(run, kind, codebook)
            if kind is MovementRow:
                section.text += unmoved(rows)
            if len(rows) == 1:
                section.tables.append(single_row(rows, kind, codebook, folder))
            elif len(rows):
                section.pictures += hang(panels(codebook, rows), folder)


def _add_terms(section: Section, run: RunDirectory, codebook: str, folder: Path) -> None:
    with _going_on(section):
        if len(rows := read_rows(run, TermRow, codebook)):
            section.pictures += hang(terms_panels(codebook, rows), folder)
            section.tables.append(terms_table(codebook, rows, folder))


def _add_digits(section: Section, run: RunDirectory, codebook: str, folder: Path) -> None:
    with _going_on(section):
        if len(rows := read_rows(run, DigitsRow, codebook)):
            section.pictures += hang(digits_panels(codebook, rows), folder)


def _add_geometry(section: Section, run: RunDirectory, codebook: str, folder: Path, end: Recent | None) -> None:
    with _going_on(section):
        rows = read_rows(run, GeometryRow, codebook)
        rows = rows[~rows.index.duplicated(keep="last")]  # a single pass has one of every batch
        if len(rows):
            section.pictures += hang(geometry_panels(codebook, rows), folder)
            section.tables.append(geometry_table(codebook, rows, folder))
    with _going_on(section):
        section.pictures += hang(snapshot_panels(run, codebook, end), folder)


def unknowns(trace: CodebookTrace) -> list[str]:
    """What the instrument could not see of a codebook from outside, in sentences."""
    told = []
    if not np.isfinite(trace.norm).any():
        told.append("It has no table of codes that could be read: there are no norms, and no code moves.")
    unknown = np.isnan(trace.resets)
    if unknown.all():
        told.append("Whether its codes are re-initialised cannot be known from outside.")
    elif unknown.any():
        records = int(unknown.any(1).sum())
        told.append(
            f"In {counted(records, 'record')} of {len(unknown):,} some codes without hits jumped to where no latent"
            " of the batch was, or lay on a latent when they were first seen: whether that was a reset cannot be known,"
            " and it is not counted as one."
        )
    return told


@contextmanager
def _going_on(section: Section) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        section.missing.append(f"Not shown: {error}.")

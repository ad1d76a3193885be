"""What the records of a run say of it where no config does."""

import math

import pandas as pd

from ...diagnostics.errors import InputError
from ...diagnostics.recording import parts
from ...diagnostics.recording.rows import DigitsRow, Row
from ...diagnostics.recording.tables import read_table
from ...diagnostics.recording.trace import hits_in_time
from ...diagnostics.run import RunDirectory


def read_rows(run: RunDirectory, kind: type[Row], codebook: str) -> pd.DataFrame:
    """The rows of one codebook by step, with every column of today; what was not measured is NaN.

    Raises:
        InputError: A part cannot be read.
    """
    frame = read_table(run.table(kind.table) / codebook).set_index("step")
    return frame.reindex(columns=[*kind.columns()])


def codebook_size(run: RunDirectory, codebook: str) -> int:
    """K.

    Raises:
        InputError: Nothing is recorded of the codebook, or it cannot be read.
    """
    if (run.trace / codebook).is_dir():
        for hits in hits_in_time(run.trace / codebook):
            return len(hits)
    for levels in read_rows(run, DigitsRow, codebook)["levels"]:
        return math.prod(int(values) for values in levels)
    raise InputError(f"no codebook trace in {run.trace / codebook}")


def last_step(run: RunDirectory, codebook: str) -> int:
    """The step of a codebook's last record, 0 where there is none."""
    folders = (run.trace / codebook, run.table(DigitsRow.table) / codebook)
    return max(parts.last_step(folder) or 0 for folder in folders)

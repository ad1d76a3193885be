"""Traces on disk, both ends: ``TraceWriter``, and ``CodebookTrace`` and ``TokenTrace`` for the two kinds of record.

A trace is a folder of plain Parquet files, tidy: one row per record and code, rows ordered by step and then by code.
Each part is written beside its place and renamed into it, so that a kill at any moment leaves whole parts only.
"""

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ..errors import InputError, unknown
from .parquet import column_names, read_columns, write_table
from .records import CodebookRecord, Columns, IntArray, Record, TokenRecord

if TYPE_CHECKING:
    import pandas as pd

_PART = re.compile(r"part-(\d+)\.parquet")


def _schema(columns: Columns) -> pa.Schema:
    return pa.schema(
        [("step", pa.int64()), ("window", pa.int64()), ("code", pa.int32())]
        + [(name, pa.from_numpy_dtype(dtype)) for name, dtype in columns.items()]
    )


def _table(records: Sequence[Record]) -> pa.Table:
    codes, schema = records[0].codes, _schema(records[0].columns())
    columns = {
        "step": np.repeat([record.step for record in records], codes),
        "window": np.repeat([record.window for record in records], codes),
        "code": np.tile(np.arange(codes, dtype=np.int32), len(records)),
    }
    arrays = {name: pa.array(column) for name, column in columns.items()}
    for name in records[0].columns():
        # NaN means "not there": null on disk, so that other tools' means and counts leave it out.
        arrays[name] = pa.array(np.concatenate([getattr(record, name) for record in records]), from_pandas=True)
    return pa.table([arrays[name] for name in schema.names], schema=schema)


class TraceWriter:
    """Appends the records of one codebook, of either kind, to ``folder``, one Parquet part per flush.

    Args:
        folder: The codebook's folder, made with its parents.
        rows_per_part: Rows (records x codes) after which a part is written without being asked.
        seconds_per_part: Seconds after which one is, so that a run can be looked at while it goes on.
    """

    def __init__(self, folder: Path, rows_per_part: int = 1 << 18, seconds_per_part: float = 30.0):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.rows_per_part = rows_per_part
        self.seconds_per_part = seconds_per_part
        self._written_at = time.monotonic()
        self._pending: list[Record] = []

    def write(self, record: Record) -> None:
        """Keep a record for the next part."""
        self._pending.append(record)
        full = len(self._pending) * record.codes >= self.rows_per_part
        if full or time.monotonic() - self._written_at >= self.seconds_per_part:
            self.flush()

    def flush(self) -> None:
        """Write the pending records as one part."""
        if self._pending:
            write_part(self.folder, _table(self._pending))
            self._pending = []
        self._written_at = time.monotonic()

    def rewind(self, step: int) -> None:
        """Drop every record after ``step``, in memory and on disk: what a resumed run will record again."""
        self._pending = [record for record in self._pending if record.step <= step]
        rewind_parts(self.folder, step)


def rewind_parts(folder: Path, step: int) -> None:
    """Drop the rows after ``step`` from the parts in ``folder``."""
    for part in parts_of(folder):
        table = pq.read_table(part)
        keep = table.filter(pc.field("step") <= step)
        if keep.num_rows == table.num_rows:
            continue
        if keep.num_rows:
            write_part(folder, keep)
        part.unlink()


def write_part(folder: Path, table: pa.Table) -> None:
    """Write rows to ``folder`` as a part. Parts are named by their last step, so that their names sort in time."""
    write_table(table, folder / f"part-{table['step'][-1].as_py():010d}.parquet", compression="zstd")


def parts_of(folder: Path) -> list[Path]:
    """The parts in ``folder``, in time."""
    return sorted(path for path in Path(folder).iterdir() if _PART.fullmatch(path.name))


@dataclass(frozen=True)
class Trace:
    """The records of one codebook with time in front.

    Each column that was loaded is an attribute of its name, an array (T, K): ``trace.hits``.

    Attributes:
        record: The kind of record that it is of.
        codebook: Name of the codebook.
        steps: (T,) optimizer step that closed each window.
        window: (T,) optimizer steps that each window covers.
        arrays: The columns that were loaded, (T, K) each, by the names of the record's fields.
    """

    record: ClassVar[type[Record]]

    codebook: str
    steps: IntArray
    window: IntArray
    arrays: dict[str, NDArray[Any]]

    def __getattr__(self, name: str) -> NDArray[Any]:
        if name in (arrays := self.__dict__.get("arrays", {})):
            return arrays[name]
        if name in self.record.columns():
            raise AttributeError(f"column {name} of the trace {self.codebook} was not loaded, or is not in it")
        raise AttributeError(f"{type(self).__name__} has no attribute {name}")

    @classmethod
    def load(cls, folder: Path, columns: Iterable[str] | None = None) -> Self:
        """Read a trace, part by part. One that was written by an older version may lack columns.

        Args:
            folder: ``RUN/trace/CODEBOOK``.
            columns: The columns to load besides the first; fewer take less memory. None for all that there are.

        Raises:
            InputError: The folder has no trace of this kind, a column is missing, or a part of it cannot be read.
        """
        folder = Path(folder)
        if not folder.is_dir() or not (parts := parts_of(folder)):
            raise InputError(f"no codebook trace in {folder}")
        kinds = cls._kinds(folder, parts[0], columns)
        codes = int(read_columns(parts[0], ["code"])["code"].to_numpy().max()) + 1
        records = sum(read_columns(part, ["step"]).num_rows for part in parts) // codes
        arrays = {name: np.empty((records, codes), kind) for name, kind in kinds.items()}
        steps, window = np.empty(records, np.int64), np.empty(records, np.int64)
        start = 0
        for part in parts:  # one part in memory at a time: a long trace of a large codebook is gigabytes
            table = read_columns(part, ["step", "window", *kinds])
            stop = start + table.num_rows // codes
            steps[start:stop] = table["step"].to_numpy()[::codes]
            window[start:stop] = table["window"].to_numpy()[::codes]
            for name in kinds:
                arrays[name][start:stop] = table[name].to_numpy().reshape(-1, codes)
            start = stop
        return cls(folder.name, steps, window, arrays)

    @classmethod
    def _kinds(cls, folder: Path, part: Path, asked: Iterable[str] | None) -> Columns:
        """The columns to load with their types, those that are asked for and the first one."""
        known, found = cls.record.columns(), column_names(part)
        first = next(iter(known))
        if first not in found:
            kinds = [kind.__name__ for kind in Trace.__subclasses__() if next(iter(kind.record.columns())) in found]
            hint = f": {', '.join(kinds)} reads it" if kinds else ""
            raise InputError(f"{folder} is no {cls.__name__}, it has the columns {', '.join(found)}{hint}")
        if asked is None:
            return {name: kind for name, kind in known.items() if name in found}
        wanted = dict.fromkeys([first, *asked])
        for name in wanted:
            if name not in known:
                raise unknown(f"column of a {cls.__name__}", name, known)
            if name not in found:
                raise InputError(f"{folder} has no column {name}: it was written by another version of vqtool")
        return {name: known[name] for name in wanted}

    def frame(self) -> "pd.DataFrame":
        """Tidy DataFrame: one row per record and code, the columns of the Parquet files that were loaded."""
        import pandas as pd

        codes = next(iter(self.arrays.values())).shape[1]
        columns = {
            "step": np.repeat(self.steps, codes),
            "window": np.repeat(self.window, codes),
            "code": np.tile(np.arange(codes, dtype=np.int32), len(self.steps)),
        }
        return pd.DataFrame(columns | {name: array.ravel() for name, array in self.arrays.items()})


class CodebookTrace(Trace):
    """The trace of a codebook: its columns are the fields of ``CodebookRecord``."""

    record = CodebookRecord


class TokenTrace(Trace):
    """The trace of a second stage's tokens: its columns are the fields of ``TokenRecord``."""

    record = TokenRecord


def hits_in_time(folder: Path) -> Iterator[IntArray]:
    """The (K,) hits of each record of a codebook's trace, in order, with one part in memory at a time.

    Raises:
        InputError: A part cannot be read.
    """
    for part in parts_of(folder):
        table = read_columns(part, ["code", "hits"])
        yield from table["hits"].to_numpy().reshape(-1, int(table["code"].to_numpy().max()) + 1)

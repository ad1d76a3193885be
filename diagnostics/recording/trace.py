"""Traces on disk, both ends: ``TraceWriter``, and ``CodebookTrace`` and ``TokenTrace`` for the two kinds of record.

A trace is a folder of plain Parquet files, tidy: one row per record and code, rows ordered by step and then by code.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..errors import InputError, unknown
from .parquet import column_names, read_columns
from .parts import PartWriter, parts_of
from .records import CodebookRecord, Columns, IntArray, Record, TokenRecord

if TYPE_CHECKING:
    import pandas as pd


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


class TraceWriter(PartWriter[Record]):
    """Appends the records of one codebook, of either kind, to its folder; see ``PartWriter``."""

    #: K of the trace that is there; None where it is not known yet.
    _codes: int | None = None

    def write(self, item: Record) -> None:
        """Keep a record for the next part.

        Raises:
            InputError: The trace in the folder is of another number of codes.
        """
        if self._codes is None:
            self._codes = _codes(found[-1]) if (found := parts_of(self.folder)) else item.codes
        if item.codes != self._codes:
            raise InputError(
                f"the trace in {self.folder} is of {self._codes} codes, the record of step {item.step} of {item.codes}:"
                " go on with the model that it is of, or choose another folder"
            )
        super().write(item)

    def _table(self, items: Sequence[Record]) -> pa.Table:
        return _table(items)

    def _rows(self, item: Record) -> int:
        return item.codes


def _codes(part: Path) -> int:
    """K of the records in a part.

    Raises:
        InputError: It cannot be read.
    """
    return int(read_columns(part, ["code"])["code"].to_numpy().max()) + 1


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
        if not folder.is_dir() or not (found := parts_of(folder)):
            raise InputError(f"no codebook trace in {folder}")
        kinds = cls._kinds(folder, found[0], columns)
        codes = _codes(found[0])
        records = sum(read_columns(part, ["step"]).num_rows for part in found) // codes
        arrays = {name: np.empty((records, codes), kind) for name, kind in kinds.items()}
        steps, window = np.empty(records, np.int64), np.empty(records, np.int64)
        start = 0
        for part in found:  # one part in memory at a time: a long trace of a large codebook is gigabytes
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

"""Tables of rows on disk, both ends: ``TableWriter`` and ``read_table``.

A table is a folder of Parquet parts, ``RUN/TABLE/CODEBOOK/part-*.parquet``, ordered by step; as in a trace, each part
is there whole or not at all.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import GenericAlias, NoneType
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import pyarrow as pa

from .parquet import column_names, read_columns
from .rows import Row
from .trace import parts_of, rewind_parts, write_part

if TYPE_CHECKING:
    import pandas as pd

_ON_DISK = {int: pa.int64(), float: pa.float64(), bool: pa.bool_(), str: pa.string()}


def _schema(kind: type[Row]) -> pa.Schema:
    hints = get_type_hints(kind)
    return pa.schema([("step", pa.int64())] + [(name, _type(hints[name])) for name in kind.columns()])


def _type(hint: Any) -> pa.DataType:
    (kind,) = (part for part in get_args(hint) if part is not NoneType)
    if isinstance(kind, GenericAlias):
        return pa.list_(_ON_DISK[get_args(kind)[0]])
    return _ON_DISK[kind]


class TableWriter:
    """Appends the rows of one codebook to ``folder``, one Parquet part per flush.

    Args:
        kind: The rows' table.
        folder: ``RUN/TABLE/CODEBOOK``, made with its parents.
        rows_per_part: Rows after which a part is written without being asked.
    """

    def __init__(self, kind: type[Row], folder: Path, rows_per_part: int = 256):
        self.kind, self.folder = kind, Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.rows_per_part = rows_per_part
        self._pending: list[Row] = []

    def write(self, row: Row) -> None:
        """Keep a row for the next part."""
        self._pending.append(row)
        if len(self._pending) >= self.rows_per_part:
            self.flush()

    def flush(self) -> None:
        """Write the pending rows as one part."""
        if self._pending:
            schema = _schema(self.kind)
            rows = [{name: asdict(row)[name] for name in schema.names} for row in self._pending]
            write_part(self.folder, pa.Table.from_pylist(rows, schema=schema))
            self._pending = []

    def rewind(self, step: int) -> None:
        """Drop every row that was measured after optimizer step ``step``, in memory and on disk."""
        last = step - 1 if self.kind.before else step
        self._pending = [row for row in self._pending if row.step <= last]
        rewind_parts(self.folder, last)


def read_table(folder: Path, columns: Sequence[str] | None = None) -> "pd.DataFrame":
    """The rows of one codebook in one table, ordered by step; empty where there are none.

    Args:
        folder: ``RUN/TABLE/CODEBOOK``.
        columns: The columns to read besides ``step``; None for all that there are.

    Raises:
        InputError: A part cannot be read, or lacks one of ``columns``.
    """
    parts = parts_of(folder) if Path(folder).is_dir() else []
    tables = [read_columns(part, column_names(part) if columns is None else ["step", *columns]) for part in parts]
    if not tables:
        import pandas as pd

        return pd.DataFrame({name: [] for name in ["step", *(columns or ())]})
    return pa.concat_tables(tables, promote_options="default").to_pandas()

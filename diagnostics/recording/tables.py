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
from .parts import PartWriter, parts_of
from .rows import Row

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


class TableWriter(PartWriter[Row]):
    """Appends the rows of one codebook in one table to its folder; see ``PartWriter``.

    Args:
        kind: The rows' table.
        folder: ``RUN/TABLE/CODEBOOK``, made with its parents.
        options: Of ``PartWriter``.
    """

    def __init__(self, kind: type[Row], folder: Path, **options: Any):
        super().__init__(folder, **options)
        self.kind = kind

    def _table(self, items: Sequence[Row]) -> pa.Table:
        schema = _schema(self.kind)
        return pa.Table.from_pylist(
            [{name: asdict(row)[name] for name in schema.names} for row in items], schema=schema
        )

    def _rows(self, item: Row) -> int:
        return 1


def read_table(folder: Path, columns: Sequence[str] | None = None) -> "pd.DataFrame":
    """The rows of one codebook in one table, ordered by step; empty where there are none.

    Args:
        folder: ``RUN/TABLE/CODEBOOK``.
        columns: The columns to read besides ``step``; None for all that there are.

    Raises:
        InputError: A part cannot be read, or lacks one of ``columns``.
    """
    parts = parts_of(Path(folder))
    tables = [read_columns(part, column_names(part) if columns is None else ["step", *columns]) for part in parts]
    if not tables:
        import pandas as pd

        return pd.DataFrame({name: [] for name in ["step", *(columns or ())]})
    return pa.concat_tables(tables, promote_options="default").to_pandas()

"""Parquet files as the instrument reads and writes them: errors in one line, and no file that is half written."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import InputError
from ..files import replacing


def column_names(path: Path) -> list[str]:
    """The columns of a file.

    Raises:
        InputError: It cannot be read.
    """
    with _reading(path):
        return pq.read_schema(path).names


def read_columns(path: Path, columns: Sequence[str]) -> pa.Table:
    """Some columns of a file.

    Raises:
        InputError: It cannot be read, or lacks one of ``columns``.
    """
    with _reading(path):
        names = pq.read_schema(path).names
        if lacking := [name for name in columns if name not in names]:
            raise InputError(f"cannot read {path}: it has no column {', '.join(lacking)}")
        return pq.read_table(path, columns=list(columns))


def write_table(table: pa.Table, path: Path, compression: str) -> None:
    """Write ``table`` to ``path``, whole or not at all."""
    with replacing(path) as beside:
        pq.write_table(table, beside, compression=compression)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"cannot read {path}: {str(error).splitlines()[0]}") from None

"""Where records go."""

from pathlib import Path
from typing import Protocol, TypeVar

from ..run import RunDirectory, folders_in
from .records import Record
from .rows import TABLES, Row
from .snapshots import Snapshot, SnapshotWriter
from .tables import TableWriter
from .trace import TraceWriter

R = TypeVar("R", bound=Record, contravariant=True)


class Sink(Protocol[R]):
    """Takes records of one kind. A monitor with no sinks records for nobody, which is what ranks other than 0 do."""

    def write(self, record: R) -> None:
        """Take one record."""
        ...

    def flush(self) -> None:
        """Put down what is held."""
        ...


class TraceSink:
    """The trace of every codebook under ``RUN/trace``, and its tables beside it, ``RUN/boundary`` and the others.

    Args:
        run: The run folder.
        resume_at: Optimizer step that the run goes on from: what was recorded after it is dropped. None for a new run.
    """

    def __init__(self, run: str | Path, resume_at: int | None = None):
        self.run = RunDirectory(Path(run))
        self.folder = self.run.trace
        self._writers: dict[str, TraceWriter] = {}
        self._tables: dict[tuple[str, str], TableWriter] = {}
        if resume_at is not None:
            self._rewind(resume_at)

    def _rewind(self, step: int) -> None:
        for path in self.run.codebooks():
            self._writer(path.name).rewind(step)
        for kind in TABLES.values():
            for path in folders_in(self.run.table(kind.table)):
                self._table(kind, path.name).rewind(step)
        for path in folders_in(self.run.snapshots):
            SnapshotWriter(path).rewind(step)

    def _table(self, kind: type[Row], codebook: str) -> TableWriter:
        if (kind.table, codebook) not in self._tables:
            self._tables[kind.table, codebook] = TableWriter(kind, self.run.table(kind.table) / codebook)
        return self._tables[kind.table, codebook]

    def _writer(self, codebook: str) -> TraceWriter:
        if codebook not in self._writers:
            self._writers[codebook] = TraceWriter(self.folder / codebook)
        return self._writers[codebook]

    def write(self, record: Record) -> None:
        """Hand the record to its codebook's writer."""
        self._writer(record.codebook).write(record)

    def write_row(self, row: Row) -> None:
        """Hand the row to the writer of its table and codebook."""
        self._table(type(row), row.codebook).write(row)

    def write_snapshot(self, snapshot: Snapshot) -> None:
        """Put a snapshot down."""
        SnapshotWriter(self.run.snapshots / snapshot.codebook).write(snapshot)

    def flush(self) -> None:
        """Write the pending records of every codebook."""
        for writer in (*self._writers.values(), *self._tables.values()):
            writer.flush()

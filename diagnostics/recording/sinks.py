"""Where records go."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ..errors import InputError
from ..run import RunDirectory, folders_in
from .parts import PartWriter, flush_below, last_step, remove_parts, rewind_parts
from .records import Record
from .rows import TABLES, Row
from .scalars import scalars
from .snapshots import Snapshot, SnapshotWriter
from .tables import TableWriter
from .trace import TraceWriter

R = TypeVar("R", bound=Record, contravariant=True)

#: The tables with rows of each window, at the step that closed it. A codebook may have no trace: see ``DigitsRow``.
_WITH_RECORDS = ("trace", *(name for name, kind in TABLES.items() if "window" in kind.columns()))


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

    Records that wait are written within seconds, and when the interpreter exits: a run that forgets to close its
    monitor leaves its trace all the same.

    Args:
        run: The run folder. One that holds records already is refused, unless one of the next two says what is to
            become of them.
        resume_at: Optimizer step that the run goes on from: what was recorded after it is dropped. None for a new run.
        overwrite: Remove the records that are there; nothing else in the folder is touched.

    Raises:
        InputError: The folder holds records of another run, or both of the two are given.
    """

    def __init__(self, run: str | Path, resume_at: int | None = None, *, overwrite: bool = False):
        self.run = RunDirectory(Path(run))
        self._writers: dict[Path, PartWriter] = {}
        if resume_at is not None and overwrite:
            raise InputError("resume_at keeps the records up to a step, overwrite removes all: give one of the two")
        flush_below(self.run.path)
        if resume_at is not None:
            self.rewind(resume_at)
        elif overwrite:
            self._remove()
        else:
            self._refuse()

    def _refuse(self) -> None:
        steps = [step for folder in self._folders() if (step := last_step(folder)) is not None]
        if steps:
            raise InputError(
                f"{self.run.path} holds the records of a run already, up to step {max(steps)}: "
                "go on with it (resume_at=STEP), replace them (overwrite=True) or choose another folder"
            )

    def _remove(self) -> None:
        for folder in self._folders():
            remove_parts(folder)
        for folder in folders_in(self.run.snapshots):
            SnapshotWriter(folder).rewind(0)

    def _folders(self) -> list[Path]:
        """The folders of parts that are there, of the trace and of every table."""
        tables = [self.run.trace, *(self.run.table(name) for name in TABLES)]
        return [folder for table in tables for folder in folders_in(table)]

    def write(self, record: Record) -> None:
        """Hand the record to its codebook's writer.

        Raises:
            InputError: The trace that is gone on with is of another number of codes.
        """
        folder = self.run.trace / record.codebook
        if folder not in self._writers:
            self._writers[folder] = TraceWriter(folder)
        self._writers[folder].write(record)

    def write_row(self, row: Row) -> None:
        """Hand the row to the writer of its table and codebook."""
        folder = self.run.table(row.table) / row.codebook
        if folder not in self._writers:
            self._writers[folder] = TableWriter(type(row), folder)
        self._writers[folder].write(row)

    def write_snapshot(self, snapshot: Snapshot) -> None:
        """Put a snapshot down."""
        SnapshotWriter(self.run.snapshots / snapshot.codebook).write(snapshot)

    def flush(self) -> None:
        """Write what is pending of every codebook."""
        for writer in self._writers.values():
            writer.flush()

    def rewind(self, step: int) -> None:
        """Drop what came after optimizer step ``step``: what a run that goes back to a checkpoint will record again."""
        flush_below(self.run.path)
        self._writers.clear()
        for name in _WITH_RECORDS:
            for folder in folders_in(self.run.table(name)):
                rewind_parts(folder, step)
        # All else goes with the records: what is later than the last one is in the checkpoint, and comes with the next.
        for name in TABLES.keys() - _WITH_RECORDS:
            for folder in folders_in(self.run.table(name)):
                last = self._last_record(folder.name)
                rewind_parts(folder, last - 1 if TABLES[name].before else last)
        for folder in folders_in(self.run.snapshots):
            SnapshotWriter(folder).rewind(self._last_record(folder.name))

    def _last_record(self, codebook: str) -> int:
        steps = [last_step(self.run.table(name) / codebook) for name in _WITH_RECORDS]
        return max((step for step in steps if step is not None), default=0)


class LogSink:
    """Hands the scalars of each record to the logger of an experiment, the same as in TensorBoard.

        LogSink(lambda values, step: wandb.log(values, step=step))
        LogSink(lambda values, step: mlflow.log_metrics(values, step=step))

    Args:
        log: Takes numbers by their names, such as ``codebook/quantize/perplexity_window``, and the optimizer step; it
            is called once per codebook and record.
    """

    def __init__(self, log: Callable[[dict[str, float], int], Any]):
        self._log = log

    def write(self, record: Record) -> None:
        """Log one record."""
        self._log(scalars(record), record.step)

    def write_row(self, row: Row) -> None:
        """Log one row of a table."""
        self._log(row.scalars(), row.step)

    def flush(self) -> None:
        """Nothing is held."""

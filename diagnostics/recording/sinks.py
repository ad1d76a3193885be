"""Where records go."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ..errors import InputError
from ..run import RunDirectory, folders_in
from .parts import PartWriter, flush_below, last_step, remove_parts, rewind_parts
from .records import Record
from .rows import TABLES, DigitsRow, Row
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
        last_record: Step of the last record before that, ``CodebookMonitor.last_record``, for a checkpoint from within
            a window that was recorded when the run broke off: that short record is dropped too.
        overwrite: Remove the records that are there; nothing else in the folder is touched.

    Raises:
        InputError: The folder holds records of another run, or both of the two are given.
    """

    def __init__(
        self,
        run: str | Path,
        resume_at: int | None = None,
        *,
        last_record: int | None = None,
        overwrite: bool = False,
    ):
        self.run = RunDirectory(Path(run))
        self._writers: dict[Path, PartWriter] = {}
        if resume_at is not None and overwrite:
            raise InputError("resume_at keeps the records up to a step, overwrite removes all: give one of the two")
        flush_below(self.run.path)
        if resume_at is not None:
            self.rewind(resume_at, last_record)
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

    def rewind(self, step: int, last_record: int | None = None) -> None:
        """Drop what came after optimizer step ``step``: what a run that goes back to a checkpoint will record again.

        Args:
            step: The step of the checkpoint.
            last_record: See the class.
        """
        flush_below(self.run.path)
        self._writers.clear()
        for name in _WITH_RECORDS:
            for folder in folders_in(self.run.table(name)):
                rewind_parts(folder, step if last_record is None else last_record)
        # Other rows wait for a record: those later than the last one are in the checkpoint, and come with the next.
        for name in TABLES.keys() - _WITH_RECORDS:
            for folder in folders_in(self.run.table(name)):
                rewind_parts(folder, step - 1 if TABLES[name].before else self._last_record(folder.name))
        for folder in folders_in(self.run.snapshots):
            SnapshotWriter(folder).rewind(step)

    def _last_record(self, codebook: str) -> int:
        steps = [last_step(self.run.table(name) / codebook) for name in _WITH_RECORDS]
        return max((step for step in steps if step is not None), default=0)


class LogSink:
    """Hands the scalars of each record to the logger of an experiment, the same as in TensorBoard.

        LogSink(lambda values, step: wandb.log(values, step=step))
        LogSink(lambda values, step: mlflow.log_metrics(values, step=step))

    Loggers want steps that never go back, so the newest row of each table goes with the next record, at its step.

    Args:
        log: Takes numbers by their names, such as ``codebook/quantize/perplexity_window``, and the optimizer step; it
            is called once per codebook and record.
    """

    def __init__(self, log: Callable[[dict[str, float], int], Any]):
        self._log = log
        self._newest: dict[tuple[str, str], dict[str, float]] = {}

    def write(self, record: Record) -> None:
        """Log one record, with the rows that wait for it."""
        self._log(scalars(record) | self._taken(record.codebook), record.step)

    def write_row(self, row: Row) -> None:
        """Keep the newest row of a table for the next record; that of a codebook without records is one itself."""
        self._newest[row.codebook, row.place] = row.scalars()
        if isinstance(row, DigitsRow) and not row.counted_exactly:
            self._log(self._taken(row.codebook), row.step)

    def _taken(self, codebook: str) -> dict[str, float]:
        mine = [key for key in self._newest if key[0] == codebook]
        return {name: value for key in mine for name, value in self._newest.pop(key).items()}

    def flush(self) -> None:
        """What waits for a record goes with that record."""

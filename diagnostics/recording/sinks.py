"""Where records go."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ..errors import InputError
from ..run import RunDirectory
from .parts import flush_below, last_step, remove_parts, rewind_parts
from .records import Record
from .scalars import scalars
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
    """The trace of every codebook under ``RUN/trace``.

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
        self._writers: dict[str, TraceWriter] = {}
        if resume_at is not None and overwrite:
            raise InputError(
                "resume_at keeps the records up to a step, overwrite removes them all: give one of the two"
            )
        flush_below(self.run.path)
        if resume_at is not None:
            self.rewind(resume_at)
        elif overwrite:
            for folder in self.run.tables():
                remove_parts(folder)
        else:
            _refuse_records(self.run)

    def write(self, record: Record) -> None:
        """Hand the record to its codebook's writer.

        Raises:
            InputError: The trace that is gone on with is of another number of codes.
        """
        if record.codebook not in self._writers:
            self._writers[record.codebook] = TraceWriter(self.run.trace / record.codebook)
        self._writers[record.codebook].write(record)

    def flush(self) -> None:
        """Write the pending records of every codebook."""
        for writer in self._writers.values():
            writer.flush()

    def rewind(self, step: int) -> None:
        """Drop every record after ``step``: what a run that goes back to a checkpoint will record again."""
        flush_below(self.run.path)
        self._writers.clear()
        for folder in self.run.tables():
            rewind_parts(folder, step)


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

    def flush(self) -> None:
        """Nothing is held."""


def _refuse_records(run: RunDirectory) -> None:
    steps = [step for folder in run.tables() if (step := last_step(folder)) is not None]
    if steps:
        raise InputError(
            f"{run.path} holds the records of a run already, up to step {max(steps)}: "
            "go on with it (resume_at=STEP), replace them (overwrite=True) or choose another folder"
        )

"""Where records go."""

from pathlib import Path
from typing import Protocol, TypeVar

from ..run import RunDirectory
from .records import Record
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

    Args:
        run: The run folder.
        resume_at: Optimizer step that the run goes on from: what was recorded after it is dropped. None for a new run.
    """

    def __init__(self, run: str | Path, resume_at: int | None = None):
        self.folder = RunDirectory(Path(run)).trace
        self._writers: dict[str, TraceWriter] = {}
        if resume_at is not None:
            for path in RunDirectory(Path(run)).codebooks():
                self._writer(path.name).rewind(resume_at)

    def _writer(self, codebook: str) -> TraceWriter:
        if codebook not in self._writers:
            self._writers[codebook] = TraceWriter(self.folder / codebook)
        return self._writers[codebook]

    def write(self, record: Record) -> None:
        """Hand the record to its codebook's writer."""
        self._writer(record.codebook).write(record)

    def flush(self) -> None:
        """Write the pending records of every codebook."""
        for writer in self._writers.values():
            writer.flush()

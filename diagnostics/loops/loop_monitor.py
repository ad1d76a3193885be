"""What the callbacks of training loops have in common."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import nn

from ..ranks import in_group
from ..recording.board import BoardSink
from ..recording.codebook_monitor import CodebookMonitor
from ..recording.sinks import Sink, TraceSink


class LoopMonitor:
    """A ``CodebookMonitor`` that comes and goes with a training loop, and is part of the loop's checkpoints.

    Args:
        run: The run folder of the trace, or None for no trace. It is opened when training starts: a run that goes on
            from a checkpoint goes on with the records that are there, a new one is refused where there are any.
        sinks: Where records go besides.
        every: Optimizer steps per record.
        overwrite: Whether a new run removes the records that are there.
        **options: Further arguments of ``CodebookMonitor``.

    Attributes:
        monitor: The monitor while training is under way, else None.
    """

    def __init__(
        self,
        run: str | Path | None,
        sinks: Iterable[Sink] = (),
        *,
        every: int = 100,
        overwrite: bool = False,
        **options: Any,
    ):
        self.run, self.sinks, self.overwrite = run, list(sinks), overwrite
        self.options = {"every": every, **options}
        self.monitor: CodebookMonitor | None = None
        self._state: dict[str, Any] | None = None

    def _begin(
        self, model: nn.Module, optimizers: Any, *, state: dict[str, Any] | None, first_rank: bool, **options: Any
    ) -> None:
        """Attach a monitor, with the ``state`` of a checkpoint where training goes on from one.

        Raises:
            InputError: No codebook is recognised, or the run folder holds the records of another run.
        """
        self._break_off()
        monitor = CodebookMonitor(model, optimizers, **self.options, **options)
        if state:
            monitor.load_state_dict(state)
        try:
            monitor.sinks = self._open_sinks(monitor, goes_on=bool(state)) if first_rank else []
        except BaseException:
            monitor.detach()
            raise
        self.monitor = monitor

    def _open_sinks(self, monitor: CodebookMonitor, goes_on: bool) -> list[Sink]:
        if self.run is None:
            return self.sinks
        if not goes_on:
            return [TraceSink(self.run, overwrite=self.overwrite), *self.sinks]
        trace = TraceSink(self.run, resume_at=monitor.step, last_record=monitor.last_record)
        for sink in self.sinks:
            if isinstance(sink, BoardSink):
                sink.recall(trace.run)
        return [trace, *self.sinks]

    def _end(self) -> None:
        """Record a last window that is not full, and leave model and optimizer as if never watched."""
        if self.monitor is not None:
            self._state = self.monitor.state_dict()
            self.monitor.close()
            self.monitor = None

    def _break_off(self) -> None:
        """Leave them in the middle of a step: what was recorded is kept, an open window is no record."""
        if self.monitor is not None:
            self._state = None if in_group() else self.monitor.state_dict()  # the other ranks may be gone
            self.monitor.detach()
            self.monitor.flush()
            self.monitor = None

    def state_dict(self) -> dict[str, Any]:
        """The state of the monitor for a checkpoint, by every rank; all records before it are on disk."""
        if self.monitor is not None:
            self.monitor.flush()
            return self.monitor.state_dict()
        return self._state or {}

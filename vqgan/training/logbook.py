"""What a run writes down about itself: metrics, pictures, findings, TensorBoard."""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torchvision.utils import save_image

from ...diagnostics import Sink, TraceSink
from ...diagnostics.findings import Finding, append_finding
from ...diagnostics.recording.board import BoardSink
from ...diagnostics.run import RunDirectory, write_atomically


class SampleGrid(NamedTuple):
    """What a look shows: the stem of its file, its title, and its pixels (3, height, width) in [0, 1]."""

    name: str
    title: str
    pixels: Tensor


class Logbook:
    """What a run writes down about itself. This one writes nothing: it is what ranks other than the first have."""

    def sinks(self, board: Callable[[SummaryWriter], BoardSink]) -> list[Sink]:
        """Where the instrument's records go: the trace, and ``board`` where TensorBoard is written."""
        return []

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One line of metrics at ``step``; numbers that are not finite are written as null."""

    def show(self, step: int, grid: SampleGrid) -> None:
        """A picture that a look at the validation split left."""

    def on_board(self, draw: Callable[[SummaryWriter], None]) -> None:
        """Have ``draw`` put something of its own on TensorBoard."""

    def add_finding(self, finding: Finding) -> None:
        """One thing that went wrong."""

    def finish(self, evaluation: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
        """The evaluation of the test split, and ``DONE``."""

    def close(self) -> None:
        """Put everything down."""


class RunLogbook(Logbook):
    """Keeps ``metrics.jsonl``, ``samples/``, findings and evaluation of a run, mirrored in TensorBoard.

    Args:
        run: The run folder.
        resume_at: Optimizer step that the run goes on from; what was logged after it is dropped. None for a new run.
        tensorboard: Whether to write TensorBoard files.

    Raises:
        InputError: A new run is to begin in a folder that holds the records of another.
    """

    def __init__(self, run: RunDirectory, resume_at: int | None, tensorboard: bool):
        self.run, self.resume_at = run, resume_at
        self._trace = TraceSink(run.path, resume_at)  # before anything is written
        for folder in (run.samples, run.checkpoints):
            folder.mkdir(parents=True, exist_ok=True)
        run.done.unlink(missing_ok=True)
        if resume_at is not None:
            kept = [row for row in run.read_metrics() if row["step"] <= resume_at]
            write_atomically(run.metrics, "".join(json.dumps(row) + "\n" for row in kept))
        purge = None if resume_at is None else resume_at + 1
        self._writers = [SummaryWriter(str(run.tensorboard), purge_step=purge)] if tensorboard else []

    def sinks(self, board: Callable[[SummaryWriter], BoardSink]) -> list[Sink]:
        boards = [board(writer) for writer in self._writers]
        if self.resume_at is not None:
            for sink in boards:
                sink.recall(self.run)
        return [self._trace, *boards]

    def write(self, step: int, values: Mapping[str, float]) -> None:
        row = {name: value if math.isfinite(value) else None for name, value in values.items()}
        with self.run.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **row}) + "\n")
        for writer in self._writers:
            for name, value in values.items():
                writer.add_scalar(name, value, step)

    def show(self, step: int, grid: SampleGrid) -> None:
        save_image(grid.pixels, self.run.samples / f"{grid.name}-{step:07d}.png")
        self.on_board(lambda writer: writer.add_image(grid.title, grid.pixels, step))

    def on_board(self, draw: Callable[[SummaryWriter], None]) -> None:
        for writer in self._writers:
            draw(writer)

    def add_finding(self, finding: Finding) -> None:
        append_finding(self.run.findings, finding)

    def finish(self, evaluation: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
        self.run.write_json(self.run.evaluation("test"), evaluation)
        self.run.write_json(self.run.done, summary)

    def close(self) -> None:
        for writer in self._writers:
            writer.close()

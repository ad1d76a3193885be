"""What the monitors have in common: a record every so many steps of an optimizer."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

import torch
from torch.utils.hooks import RemovableHandle

from .records import Record
from .sinks import Sink

R = TypeVar("R", bound=Record)


class StepMonitor(ABC, Generic[R]):
    """Counts the steps of an optimizer with a pre-hook, and hands a record to the sinks at every ``every``-th.

    Attributes:
        sinks: Where records go.
        every: Optimizer steps per record.
        step: Optimizer steps so far.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, sinks: Iterable[Sink[R]], every: int):
        self.sinks = list(sinks)
        self.every = every
        self.step = 0
        self._optimizer = optimizer
        self._stepped = False
        self._handles: list[RemovableHandle] = []

    @abstractmethod
    def _read_step(self) -> None:
        """Take in what the optimizer is about to use."""

    @abstractmethod
    def _skip_step(self) -> None:
        """Close a step of which the optimizer used nothing."""

    @abstractmethod
    def _steps_open(self) -> int:
        """Steps since the last record."""

    @abstractmethod
    def _close_windows(self) -> Iterable[R]:
        """The records of the windows that end here."""

    def attach(self) -> None:
        """Hang the hooks on; the constructor has done it, and only after ``detach`` is it of use again."""
        self._handles = [self._optimizer.register_step_pre_hook(self._end_step)]

    @torch.no_grad()
    def _end_step(self, *_: Any) -> None:
        self._stepped = True
        self.step += 1
        self._read_step()
        self._record_where_due()

    @torch.no_grad()
    def step_over(self) -> None:
        """Tell that a step of the training loop is over; for loops in which a gradient scaler may skip the optimizer's.

        A skipped step then counts as a step: its tokens were seen, its gradients were not used. Who never calls this
        has the steps of the optimizer counted.
        """
        if not self._stepped:
            self.step += 1
            self._skip_step()
            self._record_where_due()
        self._stepped = False

    def _record_where_due(self) -> None:
        if self.step % self.every == 0:
            self._record()

    def _record(self) -> None:
        for record in self._close_windows():
            for sink in self.sinks:
                sink.write(record)

    def flush(self) -> None:
        """Have every sink put down what it holds."""
        for sink in self.sinks:
            sink.flush()

    def detach(self) -> None:
        """Take the hooks away: the model and the optimizer are as if never watched."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    @torch.no_grad()
    def close(self) -> None:
        """Record a last window that is not full, detach and flush."""
        if self._steps_open():
            self._record()
        self.detach()
        self.flush()

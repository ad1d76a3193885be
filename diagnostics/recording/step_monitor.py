"""What the monitors have in common: a record every so many steps of an optimizer."""

import atexit
import warnings
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import partial
from typing import Any, Generic, TypeVar

import torch

from ..errors import InputError
from ..ranks import rank_and_size
from .optimizer_steps import GradientState, OptimizerSteps, plain_optimizers
from .records import Record
from .sinks import Sink

R = TypeVar("R", bound=Record)

#: One optimizer, or several of which the steps of the first are counted; wrapped ones too.
Optimizers = torch.optim.Optimizer | list[torch.optim.Optimizer] | tuple[torch.optim.Optimizer, ...]


class StepMonitor(ABC, Generic[R]):
    """Counts the steps of an optimizer with its hooks, and hands a record to the sinks at every ``every``-th.

    Attributes:
        optimizers: Those that train the model, without what wraps them; steps are counted on the first.
        sinks: Where records go.
        every: Optimizer steps per record.
        step: Optimizer steps so far, with those that a gradient scaler skipped.
    """

    def __init__(
        self, optimizer: Optimizers, sinks: Iterable[Sink[R]], every: int, scaler: torch.amp.GradScaler | None = None
    ):
        self.optimizers = plain_optimizers(optimizer)
        self.sinks = _checked_sinks(sinks)
        self.every = _checked_every(every)
        if scaler is not None and not isinstance(scaler, torch.amp.GradScaler):
            raise InputError(f"scaler should be a torch.amp.GradScaler, got {scaler!r:.80}")
        self.step = 0
        self._stepped = False
        self._at_exit = partial(_leave_at_exit, weakref.ref(self))
        self._steps = OptimizerSteps(self.optimizers[0], scaler, self._on_gradients, self._on_step, self._on_skip)

    @abstractmethod
    def _read_gradients(self, state: GradientState) -> None:
        """Take in what the optimizer is about to use; only the last call before ``_close_step`` counts."""

    @abstractmethod
    def _close_step(self) -> None:
        """Close a step that the optimizer has taken."""

    @abstractmethod
    def _skip_step(self) -> None:
        """Close a step of which the optimizer used nothing."""

    @abstractmethod
    def _forwards_open(self) -> int:
        """Forwards seen since the last step."""

    @abstractmethod
    def _steps_open(self) -> int:
        """Steps since the last record."""

    @abstractmethod
    def _close_windows(self) -> Iterable[R]:
        """The records of the windows that end here."""

    @property
    def last_record(self) -> int:
        """The step of the last record, or of the start."""
        return self.step - self._steps_open()

    def attach(self) -> None:
        """Hang the hooks on; the constructor has done it, and only after ``detach`` is it of use again."""
        self._steps.attach()
        atexit.register(self._at_exit)

    @torch.no_grad()
    def _on_gradients(self, state: GradientState) -> None:
        self._read_gradients(state)

    @torch.no_grad()
    def _on_step(self) -> None:
        self._stepped = True
        self.step += 1
        self._close_step()
        self._record_where_due()

    @torch.no_grad()
    def _on_skip(self, steps: int) -> None:
        # A step has a forward: writes to the scale that no forward goes with, such as a loaded state, are no step.
        for _ in range(min(steps, self._forwards_open())):
            self.step += 1
            self._skip_step()
            self._record_where_due()

    @torch.no_grad()
    def step_over(self) -> None:
        """Tell that a step of the training loop is over; for loops that may leave out the optimizer's.

        One that was left out then counts as a step: its tokens were seen, its gradients were not used. What a
        ``torch.amp.GradScaler`` leaves out is noticed without it.
        """
        if not self._stepped:
            self.step += 1
            self._skip_step()
            self._record_where_due()
        self._stepped = False
        self._steps.forget_skips()

    def _record_where_due(self) -> None:
        if self.step % self.every == 0:
            self._record()

    def _record(self) -> None:
        for record in self._close_windows():
            self._hand_over("write", record)

    def _hand_over(self, method: str, item: Any) -> None:
        """Give ``item`` to the sinks that take such items by ``method``."""
        for sink in self.sinks:
            if (take := getattr(sink, method, None)) is not None:
                take(item)

    def flush(self) -> None:
        """Have every sink put down what it holds."""
        for sink in self.sinks:
            sink.flush()

    def detach(self) -> None:
        """Take the hooks away: the model and the optimizer are as if never watched."""
        self._steps.detach()
        atexit.unregister(self._at_exit)

    @torch.no_grad()
    def close(self) -> None:
        """Record a last window that is not full, detach and flush."""
        self._steps.settle()
        if self._steps_open():
            self._record()
        self.detach()
        self.flush()

    def leave(self) -> None:
        """``close`` for a run that forgot it; of several ranks, which may not all come by, ``flush`` alone."""
        if rank_and_size()[1] == 1:
            self.close()
        else:
            self.flush()


def _leave_at_exit(reference: "weakref.ref[StepMonitor]") -> None:
    """Do for a run what it forgot, where its model is still there."""
    monitor = reference()
    if monitor is not None:
        try:
            monitor.leave()
        except OSError as error:
            warnings.warn(f"vqtool could not write the last records: {error}", stacklevel=1)


def _checked_sinks(sinks: Any) -> list[Any]:
    several = list(sinks) if isinstance(sinks, Iterable) and not isinstance(sinks, str) else [sinks]
    if not isinstance(sinks, Iterable) or not all(callable(getattr(sink, "write", None)) for sink in several):
        raise InputError(f"sinks should be a list of sinks, [TraceSink('runs/mine')], got {sinks!r:.80}")
    return several


def _checked_every(every: Any) -> int:
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise InputError(f"every should be a number of optimizer steps, 1 or more, got {every!r:.80}")
    return every

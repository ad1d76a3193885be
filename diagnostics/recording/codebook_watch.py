"""Everything that is recorded of one codebook, put together."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import InputError
from ..probes import CodebookReading, WatchedCodebook
from ..ranks import rank_and_size
from .boundary import Boundary
from .codebook_window import Window
from .digits import MOST_COUNTED, DigitWindow, digits_row
from .jumps import Jumps
from .latents import Latents
from .movement import Movement
from .optimizer_steps import GradientState
from .records import CodebookRecord
from .rows import DigitsRow, GeometryRow, Row
from .snapshots import Snapshot, geometry_row, snapshot_due
from .terms import LossTerms, Terms


class Detail(NamedTuple):
    """What is recorded beside the counters of every code, and how often.

    Attributes:
        every: Optimizer steps between two looks at the boundary and at the codes' movement; the first four steps are
            looked at all the same.
        sample: Latents in a snapshot.
    """

    every: int = 10
    sample: int = 512

    def due(self, step: int) -> bool:
        """Whether step ``step``, counted from 1, is looked at."""
        return step <= 4 or step % self.every == 0

    def terms_due(self, step: int) -> bool:
        """Whether the terms of the loss are, where they are named."""
        return step <= 4 or step % (10 * self.every) == 0


class CodebookWatch:
    """One codebook under watch, from its first reading on.

    Args:
        name: The codebook's name.
        codebook: How it is read.
        optimizers: Those that train the model.
        detail: What to record beside the counters; None for nothing.
        late: Whether the optimizer had taken steps before the instrument came.
    """

    def __init__(
        self,
        name: str,
        codebook: WatchedCodebook,
        optimizers: Sequence[torch.optim.Optimizer],
        detail: Detail | None,
        late: bool,
    ):
        self.name, self.codebook, self.detail = name, codebook, detail
        self.window: Window | DigitWindow | None = None
        self.last_hits: Any = None
        self._snapshots: list[Snapshot] = []
        self._before: Tensor | None = None
        self._latents: Latents | None = None
        self._jumps: Jumps | None = Jumps()
        self._boundary, self._movement, self._terms = Boundary(), Movement(codebook, optimizers, late), Terms()
        self._gradient_state = GradientState()
        self._state: dict[str, Any] | None = None  # of a checkpoint, until there is a window to put it into

    def add(self, reading: CodebookReading, step: int) -> None:
        """Take in one forward of optimizer step ``step``, counted from 1."""
        if len(reading.indices) == 0:
            return
        codes = None if self.codebook.computed else self._codes()
        window = self._opened(reading)
        first = window.forwards_open == 0
        window.add(reading)
        if self._jumps is not None and codes is not None and isinstance(window, Window):
            window.see_jumps(self._jumps.look(codes, reading))
        if self.detail is None or self._latents is None:
            return
        self._latents.add(reading)
        self._movement.add(reading)
        if self.detail.due(step):
            self._boundary.add(reading)
        if first and snapshot_due(step - 1):
            # Some codes move within their forward: those that it started from are the ones that it assigned.
            before, self._before = self._before, None
            self._take_snapshot(step - 1, reading, self._codes() if before is None else before)

    def _codes(self) -> Tensor | None:
        codes = self.codebook.codes()
        if codes is not None and len(codes) != self.codebook.size:
            raise InputError(
                f"{self.name} has {len(codes):,} codes now and had {self.codebook.size:,}: attach a new monitor"
            )
        return codes

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the gradients alone that come by meanwhile: those of a single term, not of the loss."""
        crossings = self._boundary.crossings
        for crossing in crossings:
            crossing.paused = True
        try:
            yield
        finally:
            for crossing in crossings:
                crossing.paused = False

    def add_terms(self, terms: LossTerms, step: int) -> None:
        """Take in the terms of the loss of optimizer step ``step``, before its backward pass."""
        if self.detail is not None and self.detail.terms_due(step):
            self._terms.add(step, terms, self._boundary.crossings)

    def _take_snapshot(self, step: int, reading: CodebookReading, codes: Tensor | None) -> None:
        if rank_and_size()[0] == 0 and self.detail is not None:
            self._snapshots.append(Snapshot.take(self.name, step, reading, codes, self.detail.sample))

    def _opened(self, reading: CodebookReading) -> Window | DigitWindow:
        if self.window is None:
            dim, device = reading.latents.shape[1], reading.latents.device
            levels = self.codebook.levels
            if levels is not None and self.codebook.size > MOST_COUNTED:
                self.window = DigitWindow(levels, device)
            else:
                self.window = Window(self.codebook.size, dim, device, self.codebook.codes() is not None)
            self._latents = Latents(dim, device)
            if self._state is not None:
                self._put(self._state)
        return self.window

    def read_gradients(self, state: GradientState) -> None:
        """Take in what the optimizer is about to use."""
        if self.window is not None:
            self.window.read_gradient(self.codebook.gradient(), state)
            self._gradient_state = state

    def read_codes(self) -> None:
        """Take in the codes that the next record tells of."""
        if isinstance(self.window, Window) and (codes := self._codes()) is not None:
            self.window.read_codes(codes)

    def close_step(self, step: int) -> None:
        """Close optimizer step ``step``, which was taken."""
        if self.window is None:
            return
        norms = self.window.close_step()
        self._boundary.close_step(step, self._gradient_state)
        self._movement.close_step(step, norms)
        self._open_next(step + 1)

    def close_batch(self) -> None:
        """Close a batch of a pass without an optimizer."""
        if self.window is not None:
            self.window.close_step()
        self._boundary.drop()

    def skip_step(self, step: int) -> None:
        """Close a step of which the optimizer used nothing."""
        if self.window is None:
            return
        self.window.skip_step()
        self._boundary.drop()
        self._movement.drop()
        self._open_next(step + 1)

    def _open_next(self, step: int) -> None:
        if self.detail is None or not (self.detail.due(step) or snapshot_due(step - 1)):
            return
        codes = self._codes()
        if codes is not None and self.detail.due(step):
            self._movement.open_step(codes)
        if codes is not None and snapshot_due(step - 1):
            self._before = codes.clone()

    def tell_resets(self, codes: Tensor) -> None:
        """Count ``codes`` (R,) as re-initialised. Who tells once tells always: jumps are no longer looked for."""
        self._jumps = None
        if isinstance(self.window, Window):
            self.window.resets[codes] += 1

    @property
    def forwards_open(self) -> int:
        """Forwards counted since the last step."""
        return 0 if self.window is None else self.window.forwards_open

    @property
    def steps_open(self) -> int:
        """Steps since the last record."""
        if self.window is None:  # a state that waits for its first reading
            return 0 if self._state is None else int(self._state["window"]["steps"])
        return self.window.steps

    def close_window(self, step: int, reference: dict[str, float]) -> tuple[CodebookRecord | None, list[Row]]:
        """The record of the window and the rows since the last one. Here the host waits for the device.

        An implicit codebook with too many codes has no record, only rows.

        Args:
            step: The optimizer step that closes it.
            reference: What the reference batch says, as columns of ``LatentsRow``.
        """
        assert self.window is not None
        if not self.window.codes_read:
            self.read_codes()
        if isinstance(self.window, Window):
            looked = not self.codebook.computed and self.window.codes_read
            closed = self.window.close(self.name, step, resets_known=looked or self._jumps is None)
        else:
            closed = self.window.close(self.name, step)
        kinds = (self._boundary, self._movement, self._terms)
        rows: list[Row] = [row for kind in kinds for row in kind.rows(self.name)]
        if self.detail is not None and self._latents is not None:
            rows.append(self._latents.close(self.name, step, closed.window, closed.forwards, **reference))
        if isinstance(closed, DigitsRow):
            return None, [*rows, closed]
        self.last_hits = closed.hits
        return closed, rows if self.codebook.levels is None else [*rows, digits_row(closed, self.codebook.levels)]

    def take_snapshots(self) -> list[tuple[Snapshot, GeometryRow]]:
        """The snapshots since the last call, each with its geometry."""
        taken = [(snapshot, geometry_row(snapshot)) for snapshot in self._snapshots]
        self._snapshots = []
        return taken

    def state_dict(self) -> dict[str, Any] | None:
        """What an uninterrupted run would go on from; None before the first reading."""
        if self.window is None or self._latents is None:
            return self._state
        jumps = None if self._jumps is None else self._jumps.state_dict()
        return {
            "window": self.window.state_dict(),
            "latents": self._latents.state_dict(),
            "jumps": jumps,
            "boundary": self._boundary.state_dict(),
            "movement": self._movement.state_dict(),
            "terms": self._terms.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Go on from ``state_dict``."""
        self._state = state
        if state is not None and self.window is not None:
            self._put(state)

    def _put(self, state: dict[str, Any]) -> None:
        assert self.window is not None
        assert self._latents is not None
        self._state = None
        self.window.load_state_dict(state["window"])
        if "latents" in state:  # an older version knew the window alone
            self._latents.load_state_dict(state["latents"])
            self._boundary.load_state_dict(state["boundary"])
            self._movement.load_state_dict(state["movement"])
            self._terms.load_state_dict(state["terms"])
            jumps = state["jumps"]
            self._jumps = None if jumps is None else Jumps()
            if self._jumps is not None and jumps is not None:
                self._jumps.load_state_dict(jumps, self.window.hits.device)

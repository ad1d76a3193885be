"""One codebook of the copy under trial: what is kept of it, step by step."""

from torch import Tensor, nn

from ..probes import Call, CodebookReading, WatchedCodebook
from ..probes.base import Tap
from ..recording.codebook_watch import CodebookWatch, Detail
from ..recording.optimizer_steps import GradientState
from ..recording.snapshots import Snapshot, geometry_row
from .averages import averages_of, begun, kept_by
from .evidence import Seen
from .holders import holders_of
from .places import file_of, path_of, place_of
from .subject import Subject
from .watching import CallReader, Repeatable, forward_of, rows_of

#: Latents that the geometry at the start is judged by.
_SAMPLE = 1024


class Part:
    """One codebook of the copy under trial.

    Args:
        name: Its name.
        codebook: How it is read.
        subject: The copy.
    """

    def __init__(self, name: str, codebook: WatchedCodebook, subject: Subject):
        self.codebook = codebook
        self.watch = CodebookWatch(name, codebook, subject.optimizers, Detail(every=1), late=False)
        self.reader = CallReader(codebook, self._take)
        self.seen = _nothing_yet(name, codebook, subject.model)
        self.seen.averages_begun = begun(codebook)
        self.readings: list[CodebookReading] = []  # of the open step
        self.call: Call | None = None  # the last one of the quantizer itself
        self.repeatable: Repeatable | None = None
        self.step = 0
        self.subject = subject
        self.left_gradients: bool | None = None  # whether a parameter had a gradient after the first call
        self._before: Tensor | None = None

    @property
    def tap(self) -> Tap:
        """The call that is the quantizer's own: its forward, or the first of the methods that it is used by."""
        forwards = any(tap.method == "forward" for tap in self.codebook.taps)
        return Tap(self.codebook.module) if forwards else self.codebook.taps[0]

    def open_step(self, step: int) -> None:
        """Begin a step; what is held of the one before is let go."""
        self.step, self.readings, self.call = step, [], None
        codes = self._codes()
        self._before = None if codes is None else codes.clone()
        self._remember_state(codes)

    def _remember_state(self, codes: Tensor | None) -> None:
        if codes is not None:
            self.seen.tables.append(rows_of(codes))
            averages = None if self.codebook.computed else averages_of(self.codebook, codes)
            if averages is not None:
                kept = kept_by(self.codebook)
                self.seen.averages_path = path_of(self.subject.model, kept.module if kept else self.codebook.module)
                self.seen.averages.append(averages)

    def _codes(self) -> Tensor | None:
        """The codes, not before they may be asked for: a property of a stranger may compute and cache."""
        return self.codebook.codes() if self.step > 1 or not self.codebook.computed else None

    def _take(self, reading: CodebookReading) -> None:
        if not self.codebook.module.training:
            self.seen.called_in_eval = True
            return
        self.watch.add(reading, self.step)
        if not self.readings:
            self.seen.steps.append(forward_of(self.step, reading, self._before, self.codebook.codes()))
            if self.step == 1:
                self._look_at_start(reading)
        self.readings.append(reading)

    def _look_at_start(self, reading: CodebookReading) -> None:
        """Keep the geometry of the first call, with the codes that it began with, or has just made."""
        codes = self._before if self.seen.averages_begun else self.codebook.codes()
        snapshot = Snapshot.take(self.seen.name, 0, reading, codes, _SAMPLE)
        self.seen.start = geometry_row(snapshot)

    def on_call(self, call: Call) -> None:
        """Keep the last call of the quantizer, and its arguments."""
        self.call, self.repeatable = call, Repeatable.of(call)
        if self.step == 1 and self.left_gradients is None:
            self.left_gradients = any(p.grad is not None for p in self.subject.model.parameters())

    def close_gradients(self) -> None:
        """Take in the gradients that the optimizer is about to use."""
        self.watch.read_gradients(GradientState())
        gradient = self.codebook.gradient()
        self.seen.gradients.append(None if gradient is None else rows_of(gradient.to_dense()))
        self.seen.holders = holders_of(self.codebook, self.seen.path, self.subject, self.seen.holders)

    def close(self) -> None:
        """Take in what is there after the last step."""
        self.readings, self.call = [], None
        self._remember_state(self._codes())
        if self.watch.window is not None:
            _, rows = self.watch.close_window(self.step, {})
            self.seen.boundary = [row for row in rows if row.table == "boundary"]  # type: ignore[misc]


def _nothing_yet(name: str, codebook: WatchedCodebook, model: nn.Module) -> Seen:
    kind, codes = type(codebook.module), None if codebook.computed else codebook.codes()
    return Seen(
        name=name,
        path=path_of(model, codebook.module),
        table=place_of(model, codes) or path_of(model, codebook.module) or "the model itself",
        kind=kind.__name__,
        file=file_of(kind),
        size=codebook.size,
        levels=codebook.levels,
        fixed=codebook.fixed,
    )


def seen_before(name: str, codebook: WatchedCodebook, model: nn.Module) -> Seen:
    """What there is to see of a codebook without a step; nothing that computes is asked."""
    seen = _nothing_yet(name, codebook, model)
    seen.asked, seen.averages_begun = False, begun(codebook)
    if not codebook.computed and (codes := codebook.codes()) is not None:
        averages = averages_of(codebook, codes)
        seen.averages = [] if averages is None else [averages]
    return seen

"""Three training steps on a copy, and everything that is seen of each codebook meanwhile."""

import inspect
import itertools
import os
from contextlib import ExitStack

import numpy as np
from torch import Tensor, nn

from ..errors import InputError
from ..probes import Call, CodebookReading, WatchedCodebook
from ..probes.base import Tap
from ..probes.find import FoundCodebooks
from ..recording.codebook_watch import CodebookWatch, Detail
from ..recording.hooks import watch
from ..recording.optimizer_steps import GradientState
from ..recording.snapshots import Snapshot, geometry_row
from .averages import averages_of, begun
from .evidence import Holder, Rows, Seen, Trial
from .graph import layers_of, losses_on_output, to_parameters
from .subject import Subject
from .watching import CallReader, Repeatable, forward_of, path_of, watched

#: Training steps that are taken.
STEPS = 3
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
        self.readings: list[CodebookReading] = []  # of the open step
        self.call: Call | None = None  # the last one of the quantizer itself
        self.repeatable: Repeatable | None = None
        self.step = 0
        self.backward = False  # whether the gradients that come by are those of the loss
        self._before: Tensor | None = None

    def open_step(self, step: int) -> None:
        """Begin a step; what is held of the one before is let go."""
        self.step, self.readings, self.call = step, [], None
        codes = self._codes()
        self._before = None if codes is None else codes.clone()
        self._remember_state(codes)

    def _remember_state(self, codes: Tensor | None) -> None:
        if codes is not None:
            self.seen.tables.append(_array(codes))
            averages = None if self.codebook.computed else averages_of(self.codebook, codes)
            if averages is not None:
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
                self._await_gradient(reading)
                self._look_at_start(reading)
        self.readings.append(reading)

    def _look_at_start(self, reading: CodebookReading) -> None:
        """Keep the geometry of the first call, with the codes that it began with, or has just made."""
        codes = self._before if self.seen.averages_begun else self.codebook.codes()
        snapshot = Snapshot.take(self.seen.name, 0, reading, codes, _SAMPLE)
        self.seen.start = geometry_row(snapshot)

    def _await_gradient(self, reading: CodebookReading) -> None:
        """Keep the gradient of the loss at the quantized output of the first call."""
        leaving = reading.leaving
        if leaving is not None and leaving.tensor.requires_grad:

            def keep(gradient: Tensor) -> None:
                if self.backward:
                    tokens, before = _array(leaving.tokens(gradient)), self.seen.output_gradient
                    self.seen.output_gradient = tokens if before is None else before + tokens

            leaving.tensor.register_hook(keep)

    def on_call(self, call: Call) -> None:
        """Keep the last call of the quantizer, and its arguments."""
        self.call, self.repeatable = call, Repeatable.of(call)

    def close_gradients(self) -> None:
        """Take in the gradients that the optimizer is about to use."""
        self.watch.read_gradients(GradientState())
        gradient = self.codebook.gradient()
        self.seen.gradients.append(None if gradient is None else _array(gradient.to_dense()))

    def close(self) -> None:
        """Take in what is there after the last step."""
        self.readings, self.call = [], None
        self._remember_state(self._codes())
        if self.watch.window is not None:
            _, rows = self.watch.close_window(STEPS, {})
            self.seen.boundary = [row for row in rows if row.table == "boundary"]  # type: ignore[misc]
            self.seen.movement = [row for row in rows if row.table == "movement"]  # type: ignore[misc]
        self.seen.unreadable = self.reader.unreadable


def run_trial(subject: Subject, found: FoundCodebooks, passed: str | None) -> tuple[Trial, dict[str, Part]]:
    """Take the steps on ``subject``, which is changed by it.

    Args:
        subject: A copy.
        found: Its codebooks; what turns out to be none is dropped.
        passed: Class of the optimizer that the user passed.

    Raises:
        InputError: The loss cannot be computed, or reaches nothing of the model.
    """
    parts = {name: Part(name, codebook, subject) for name, codebook in found.items()}
    losses, left = [], []
    for part in parts.values():
        part.seen.averages_begun = begun(part.codebook)
    with ExitStack() as stack:
        for part in parts.values():
            stack.enter_context(watched(part.reader))
            stack.callback(watch(_own_tap(part.codebook), part.on_call).remove)
        for step in range(1, STEPS + 1):
            for part in parts.values():
                part.open_step(step)
            subject.zero_grad()
            value = subject.value()
            _drop_refused(found, parts)
            if step == 1:
                left = [name for name, p in subject.model.named_parameters() if p.grad is not None]
                _ask_graph(subject.model, parts)
            for part in parts.values():
                part.backward = True
            value.backward()
            if step == 1:
                _check_reached(subject)
            for part in parts.values():
                part.close_gradients()
            _note_gradients(subject, parts)
            for optimizer in subject.optimizers:
                optimizer.step()
            for part in parts.values():
                part.watch.close_step(step)
            losses.append(float(value.detach()))
    for part in parts.values():
        part.close()
    return Trial({name: part.seen for name, part in parts.items()}, losses, left, passed), parts


def _drop_refused(found: FoundCodebooks, parts: dict[str, Part]) -> None:
    """Watch no longer what turned out to be no quantizer, or cannot be read."""
    for name in [name for name, part in parts.items() if part.reader.refused]:
        found.drop(name, parts.pop(name).reader.refused)
    if not parts:
        raise InputError("no quantizer can be read: " + "; ".join(f"{n}: {why}" for n, why in found.unread.items()))


def _own_tap(codebook: WatchedCodebook) -> Tap:
    """The call that is the quantizer's own: its forward, or the first of the methods that it is used by."""
    forwards = any(tap.method == "forward" for tap in codebook.taps)
    return Tap(codebook.module) if forwards else codebook.taps[0]


def _ask_graph(model: nn.Module, parts: dict[str, Part]) -> None:
    """Ask the graph of the first step, without the instrument taking the answers for gradients of the loss."""
    seen = {name: part for name, part in parts.items() if part.readings}
    with ExitStack() as stack:
        for part in seen.values():
            stack.enter_context(part.watch.paused())
        for part in seen.values():
            if part.call is not None and len(part.readings) == 1:
                part.seen.losses_on_output = losses_on_output(part.call, part.readings[0])
        for names in layers_of(parts):
            _ask_layers([parts[name] for name in names], model)


def _ask_layers(parts: list[Part], model: nn.Module) -> None:
    """Ask of the layers of a residual quantizer how each reaches what learns before it."""
    for number, part in enumerate(parts):
        part.seen.layer, part.seen.last_layer = number, number == len(parts) - 1
    paths = [part.seen.path.split(".") for part in parts]
    stem = ".".join(pieces[0] for pieces in itertools.takewhile(lambda p: len({*p}) == 1, zip(*paths, strict=False)))
    within = f"{stem}." if stem else "nothing of that name"
    before = [p for path, p in model.named_parameters() if p.requires_grad and not path.startswith(within)]
    reached = [to_parameters(part.readings[0], before) if part.readings else None for part in parts]
    if reached[0]:
        for part, norm in zip(parts[1:], reached[1:], strict=True):
            part.seen.to_encoder = None if norm is None else norm / reached[0]


def _check_reached(subject: Subject) -> None:
    """Refuse a loss that trains something else."""
    parameters = [p for p in subject.model.parameters() if p.requires_grad]
    if parameters and all(p.grad is None for p in parameters):
        raise InputError(
            "loss(model, batch) gives no parameter of the model that it is given a gradient: does it use its argument?"
        )


def _note_gradients(subject: Subject, parts: dict[str, Part]) -> None:
    """Keep for every parameter of the codes the largest gradient so far, and who is to move it."""
    paths = {id(p): path for path, p in subject.model.named_parameters(remove_duplicate=False)}
    groups = {
        id(p): (optimizer, group)
        for optimizer in subject.optimizers
        for group in optimizer.param_groups
        for p in group["params"]
    }
    for part in parts.values():
        before = {holder.path: holder.gradient for holder in part.seen.holders}
        part.seen.holders = [
            _holder(paths.get(id(p), part.seen.path), p, part.codebook.size, before, groups.get(id(p)))
            for p in part.codebook.parameters()
        ]


def _holder(path: str, parameter: Tensor, size: int, before: dict[str, float | None], held: tuple | None) -> Holder:
    largest = [value for value in (before.get(path), _largest(parameter.grad)) if value is not None]
    table = size in parameter.shape[:-1] and parameter.ndim > 1
    gradient = max(largest) if largest else None
    if held is None:
        return Holder(path, table, gradient, optimized=False)
    optimizer, group = held
    decoupled = not type(optimizer).__name__.startswith("Adam") or bool(group.get("decoupled_weight_decay"))
    decoupled = decoupled or type(optimizer).__name__ == "AdamW"
    lr = float(group["lr"]) if group.get("lr") is not None else None
    return Holder(path, table, gradient, True, lr, float(group.get("weight_decay", 0)), decoupled)


def _largest(gradient: Tensor | None) -> float | None:
    if gradient is None:
        return None
    values = gradient.coalesce().values() if gradient.is_sparse else gradient
    return float(values.abs().max()) if values.numel() else 0.0


def _nothing_yet(name: str, codebook: WatchedCodebook, model: nn.Module) -> Seen:
    kind = type(codebook.module)
    return Seen(
        name=name,
        path=path_of(model, codebook.module),
        kind=kind.__name__,
        file=_file_of(kind),
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


def _file_of(kind: type) -> str:
    """Where a class is written, as short as it can be found by."""
    try:
        path, (_, line) = inspect.getsourcefile(kind), inspect.getsourcelines(kind)
    except (OSError, TypeError):
        return "unknown"
    module = kind.__module__.replace(".", os.sep) + ".py"
    shown = module if path and path.endswith(module) else os.path.relpath(path or "unknown")
    return f"{shown}:{line}"


def _array(tensor: Tensor) -> Rows:
    return np.array(tensor.detach().float().cpu().numpy())

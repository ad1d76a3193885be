"""Three training steps on a copy, and everything that is seen of each codebook meanwhile."""

import itertools
from contextlib import ExitStack

from torch import nn

from ..errors import InputError
from ..probes.find import FoundCodebooks
from ..recording.hooks import watch
from ..recording.ladders import ladders
from .decoder import before_calls
from .evidence import Trial
from .graph import losses_on_output, to_parameters
from .group import Group
from .part import Part
from .subject import Subject
from .watching import watched

#: Training steps that are taken.
STEPS = 3


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
    losses, left, before = [], [], set()
    with ExitStack() as stack:
        for part in parts.values():
            stack.enter_context(watched(part.reader))
            stack.callback(watch(part.tap, part.on_call).remove)
        for step in range(1, STEPS + 1):
            for part in parts.values():
                part.open_step(step)
            subject.zero_grad()
            value = subject.value()
            _drop_refused(found, parts, subject.group)
            _check_calls(parts, subject.group)
            if step == 1:
                left = [name for name, p in subject.model.named_parameters() if p.grad is not None]
                before = _ask_graph(subject.model, parts)
            subject.backward(value)
            if step == 1:
                _check_reached(subject)
            for part in parts.values():
                part.close_gradients()
            for optimizer in subject.optimizers:
                optimizer.step()
            for part in parts.values():
                part.watch.close_step(step)
            losses.append(float(value.detach()))
    for part in parts.values():
        part.close()
    by = next((name for name, part in parts.items() if part.left_gradients), None)
    return Trial({name: part.seen for name, part in parts.items()}, losses, left, passed, before, by), parts


def _drop_refused(found: FoundCodebooks, parts: dict[str, Part], group: Group) -> None:
    """Watch no longer what turned out to be no quantizer, or cannot be read, on any rank."""
    refused = {name: part.reader.refused for name, part in parts.items() if part.reader.refused}
    for told in group.exchange(refused):
        for name in [name for name in told if name in parts]:
            found.drop(name, told[name])
            del parts[name]
    if not parts:
        raise InputError("no quantizer can be read: " + "; ".join(f"{n}: {why}" for n, why in found.unread.items()))


def _check_calls(parts: dict[str, Part], group: Group) -> None:
    """Refuse ranks that call different quantizers: sums over ranks would wait for those that do not."""
    called = group.exchange([name for name, part in parts.items() if part.readings])
    for rank, names in enumerate(called):
        if names != called[0]:
            own, other = (", ".join(each) or "none" for each in (called[0], names))
            raise InputError(f"ranks call different quantizers in the same step: rank 0 {own}, rank {rank} {other}")


def _ask_graph(model: nn.Module, parts: dict[str, Part]) -> set[str]:
    """Ask the graph of the first step, without the instrument taking the answers for gradients of the loss.

    Returns:
        Names of the parameters that the calls' inputs depend on.
    """
    seen = {name: part for name, part in parts.items() if part.readings}
    with ExitStack() as stack:
        for part in seen.values():
            stack.enter_context(part.watch.paused())
        for part in seen.values():
            if part.call is not None and len(part.readings) == 1:
                part.seen.losses_on_output = losses_on_output(part.call, part.readings[0])
        for ladder in ladders(parts):
            if ladder.layered and len(ladder.codebooks) > 1:
                _ask_layers([parts[name] for name in ladder.codebooks], model)
        return before_calls(model, [part.call for part in parts.values() if part.call is not None])


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

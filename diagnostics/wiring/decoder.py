"""Does the encoder hear of the decoder? What learns after the quantizers is changed, and gradients are compared."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..probes import Call
from ..probes.round_trip import leaves
from .outcome import Outcome, outcome, same_gradients
from .subject import Subject


def before_calls(model: torch.nn.Module, calls: Sequence[Call]) -> set[str]:
    """Names of the parameters that what these calls were given depends on, asked of its graph."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    given = [leaf for call in calls for _, leaf in leaves((call.args, dict(call.kwargs))) if leaf.requires_grad]
    if not given or not named:
        return set()
    ones = [torch.ones_like(value) for value in given]
    found = torch.autograd.grad(given, [p for _, p in named], ones, retain_graph=True, allow_unused=True)
    return {name for (name, _), gradient in zip(named, found, strict=True) if gradient is not None}


def downstream(model: torch.nn.Module, base: Outcome, before: set[str], own: set[str]) -> set[str]:
    """Names of the parameters with a gradient that are neither before the quantizers nor their own."""
    names = [name for name, _ in model.named_parameters()]
    return {name for name, g in zip(names, base[1], strict=True) if g is not None} - before - own


def decoder_heard(after: Subject, base: Outcome, before: set[str], later: set[str]) -> bool | None:
    """Whether the gradients of the parameters before the quantizers change with those after them.

    Where they do not, to the bit, nothing that the decoder says reaches the encoder, wherever and however gradients are
    meant to be carried past the choice of a code.

    Args:
        after: The model after its steps; copies are made of it.
        base: Its ``baseline``.
        before: Names of the parameters before the quantizers.
        later: Names of those after them.

    Returns:
        None where nothing learns on one of the sides.
    """
    names = [name for name, _ in after.model.named_parameters()]
    gradients = base[1]
    kept = [place for place, name in enumerate(names) if name in before and gradients[place] is not None]
    if not kept or not later:
        return None
    _, others = outcome(_changed(after, later, lambda p: p.mul_(1.5).add_(0.1)))
    return not same_gradients([gradients[place] for place in kept], [others[place] for place in kept])


def without_decoder(after: Subject, later: set[str]) -> Subject:
    """A copy in which all that learns after the quantizers is zero: no gradient comes through it."""
    return _changed(after, later, lambda p: p.zero_())


def _changed(after: Subject, names: set[str], change: Callable[[Tensor], object]) -> Subject:
    copy = after.copy()
    with torch.no_grad():
        for name, parameter in copy.model.named_parameters():
            if name in names:
                change(parameter)
    return copy

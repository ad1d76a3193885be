"""Does a weight in a model's settings do anything? It is doubled, and the loss and its gradients are compared."""

import re
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..errors import InputError
from .evidence import Weight
from .places import file_of
from .subject import Subject

#: A loss, and the gradient of each parameter.
Outcome = tuple[Tensor, list[Tensor | None]]

_WEIGHT = re.compile(r"(^|_)(weight|coef|coeff|lambda|beta|cost)s?$")


def weights_of(subject: Subject) -> list[Weight]:
    """What doubling does for each weight that a module of the model holds as a plain number.

    Args:
        subject: What copies are made of.

    Raises:
        InputError: The same step gives other gradients each time.
    """
    names = [*_settings(subject.model)]
    if not names:
        return []
    base = outcome(subject.copy())
    if not _same(base, outcome(subject.copy())):
        raise InputError("the same step gives other gradients each time")
    return [_doubled(subject.copy(), base, *each) for each in names]


def _doubled(copy: Subject, base: Outcome, module: str, name: str, value: float) -> Weight:
    holder = copy.model.get_submodule(module)
    setattr(holder, name, 2 * value)
    loss, gradients = outcome(copy)
    told = ".".join(part for part in (module, name) if part)
    return Weight(
        told, file_of(type(holder)), value, not torch.equal(loss, base[0]), not same_gradients(gradients, base[1])
    )


def _settings(model: nn.Module) -> Iterator[tuple[str, str, float]]:
    for path, module in model.named_modules():
        if type(module).__module__.startswith("torch."):
            continue
        for name, value in vars(module).items():
            if _WEIGHT.search(name) and isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
                yield path, name, float(value)


def outcome(copy: Subject) -> Outcome:
    """The loss and the gradients of one forward and backward pass."""
    torch.manual_seed(0)
    copy.zero_grad()
    loss = copy.value()
    loss.backward()
    return loss.detach(), [None if p.grad is None else p.grad.to_dense() for p in copy.model.parameters()]


def _same(one: Outcome, other: Outcome) -> bool:
    return torch.equal(one[0], other[0]) and same_gradients(one[1], other[1])


def same_gradients(one: list[Tensor | None], other: list[Tensor | None]) -> bool:
    """Whether they are the same, bit by bit."""
    return all(
        (a is None and b is None) or (a is not None and b is not None and torch.equal(a, b))
        for a, b in zip(one, other, strict=True)
    )

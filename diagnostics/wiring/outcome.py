"""One step, made again: its loss and its gradients, from the same random numbers."""

import torch
from torch import Tensor

from ..errors import InputError
from .subject import Subject, seed_all

#: A loss, and the gradient of each parameter.
Outcome = tuple[Tensor, list[Tensor | None]]


def baseline(subject: Subject) -> Outcome:
    """What a step of ``subject`` gives, made on copies of it.

    Raises:
        InputError: It gives something else the second time: no change in it could be laid to anything.
    """
    one, other = outcome(subject.copy()), outcome(subject.copy())
    same = torch.equal(one[0], other[0]) and same_gradients(one[1], other[1])
    if not all(subject.group.exchange(same)):
        raise InputError("the same step gives another loss or other gradients each time")
    return one


def outcome(copy: Subject) -> Outcome:
    """The loss and the gradients of one forward and backward pass."""
    seed_all(0)
    copy.zero_grad()
    loss = copy.value()
    copy.backward(loss)
    return loss.detach(), [None if p.grad is None else p.grad.to_dense() for p in copy.model.parameters()]


def same_gradients(one: list[Tensor | None], other: list[Tensor | None]) -> bool:
    """Whether they are the same, bit by bit."""
    return all(
        (a is None and b is None) or (a is not None and b is not None and torch.equal(a, b))
        for a, b in zip(one, other, strict=True)
    )

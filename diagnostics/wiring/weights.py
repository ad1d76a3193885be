"""Does a weight in a quantizer's settings do anything? It is doubled, and the loss and its gradients are compared."""

import re
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..errors import InputError
from .evidence import Weight
from .subject import Subject

_WEIGHT = re.compile(r"(^|_)(weight|coef|coeff|lambda|beta|cost)s?$")


def weights_of(subject: Subject, path: str) -> Iterator[Weight]:
    """What doubling does for each weight of the quantizer at ``path``, of what is inside it and of what it is inside.

    Args:
        subject: What copies are made of.
        path: Of the quantizer in the model.
    """
    names = [*_settings(subject.model, path)]
    if not names:
        return
    base = _outcome(subject.copy())
    if not _same(base, _outcome(subject.copy())):
        raise InputError("the same step gives other gradients each time")
    for module, name, value in names:
        copy = subject.copy()
        setattr(copy.model.get_submodule(module), name, 2 * value)
        loss, gradients = _outcome(copy)
        told = ".".join(part for part in (module, name) if part)
        yield Weight(told, value, not torch.equal(loss, base[0]), not _same_gradients(gradients, base[1]))


def _settings(model: nn.Module, quantizer: str) -> Iterator[tuple[str, str, float]]:
    for path, module in model.named_modules():
        around = path == "" or quantizer == path or quantizer.startswith(f"{path}.")
        inside = path.startswith(f"{quantizer}.") or quantizer == ""
        if type(module).__module__.startswith("torch.") or not (around or inside):
            continue
        for name, value in vars(module).items():
            if _WEIGHT.search(name) and isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
                yield path, name, float(value)


def _outcome(copy: Subject) -> tuple[Tensor, list[Tensor | None]]:
    """The loss and the gradients of one forward and backward pass."""
    torch.manual_seed(0)
    copy.zero_grad()
    loss = copy.value()
    loss.backward()
    return loss.detach(), [None if p.grad is None else p.grad.to_dense() for p in copy.model.parameters()]


def _same(one: tuple[Tensor, list[Tensor | None]], other: tuple[Tensor, list[Tensor | None]]) -> bool:
    return torch.equal(one[0], other[0]) and _same_gradients(one[1], other[1])


def _same_gradients(one: list[Tensor | None], other: list[Tensor | None]) -> bool:
    return all(
        (a is None and b is None) or (a is not None and b is not None and torch.equal(a, b))
        for a, b in zip(one, other, strict=True)
    )

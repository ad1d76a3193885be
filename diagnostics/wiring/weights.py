"""Does a weight in a model's settings do anything? It is doubled, and the loss and its gradients are compared."""

import re
from collections.abc import Iterator

import torch
from torch import nn

from .evidence import Weight
from .outcome import Outcome, outcome, same_gradients
from .places import file_of
from .subject import Subject

_WEIGHT = re.compile(r"(^|_)(weight|coef|coeff|lambda|beta|cost)s?$")


def weights_of(subject: Subject, base: Outcome) -> list[Weight]:
    """What doubling does for each weight that a module of the model holds as a plain number.

    Args:
        subject: What copies are made of.
        base: Its ``baseline``.
    """
    return [_doubled(subject.copy(), base, *each) for each in _settings(subject.model)]


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

"""What is linted, and copies of it: nothing that is done to a copy reaches the original."""

import copy
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError, in_short
from .group import Group, average_gradients, averaged_by_itself

#: Of a model and a batch the loss, a scalar.
Loss = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class Subject:
    """A model with what trains it.

    Attributes:
        model: Any module.
        batch: What ``loss`` takes beside it.
        loss: Of a model and a batch the scalar that is minimised.
        optimizers: Those that train the model; none where none was passed.
        group: The ranks that do the same, each with a batch of its own.
    """

    model: nn.Module
    batch: Any
    loss: Loss
    optimizers: Sequence[torch.optim.Optimizer]
    group: Group

    def copy(self) -> "Subject":
        """Model, batch and optimizers anew, their tensors and references to each other as in the original.

        Hooks of the optimizers are left out: what they close over is the original.

        Raises:
            InputError: Something in them cannot be copied.
        """
        memo: dict[int, Any] = {id(value): value.detach().clone() for value in _not_leaves(self.model)}
        memo |= {id(hooks): type(hooks)() for hooks in self.hooks()}
        try:
            model, batch, optimizers = copy.deepcopy((self.model, self.batch, [*self.optimizers]), memo)
        except Exception as error:
            raise InputError(
                f"{type(self.model).__name__} cannot be copied, and the lint works on copies: {in_short(error)}"
            ) from error
        return replace(self, model=model, batch=batch, optimizers=optimizers)

    def value(self) -> Tensor:
        """The loss.

        Raises:
            InputError: It is no scalar with a gradient, or computing it fails.
        """
        try:
            value = self.loss(self.model, self.batch)
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"loss(model, batch) failed: {in_short(error)}") from error
        if not isinstance(value, Tensor) or value.numel() != 1 or not value.is_floating_point():
            shown = f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise InputError(f"loss(model, batch) should be a scalar tensor, not {shown}")
        if not value.requires_grad:
            raise InputError("loss(model, batch) has no gradient: nothing that was passed can be trained by it")
        self.group.exchange(None)  # a rank that failed is heard of before the others wait for its gradients
        return value.reshape(())

    def backward(self, value: Tensor) -> None:
        """The gradients of ``value``, averaged over ranks: by what is in the model, or else by hand."""
        value.backward()
        if self.group.size > 1 and not averaged_by_itself(self.model):
            average_gradients(self.model)

    def hooks(self) -> Iterator[dict[int, Any]]:
        """What is called around the steps of the optimizers, by number."""
        for optimizer in self.optimizers:
            yield optimizer._optimizer_step_pre_hooks
            yield optimizer._optimizer_step_post_hooks

    def zero_grad(self) -> None:
        """Forget the gradients of every parameter."""
        for parameter in self.model.parameters():
            parameter.grad = None

    def tensors(self) -> Iterator[Tensor]:
        """Parameters and buffers."""
        yield from self.model.parameters()
        yield from self.model.buffers()


def _not_leaves(model: nn.Module) -> Iterator[Tensor]:
    """Tensors in plain attributes that carry a graph, such as a codebook that is cached: they do not copy."""
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor) and value.grad_fn is not None:
                yield value


@contextmanager
def untouched(subject: Subject) -> Iterator[None]:
    """Everything about ``subject`` is afterwards as before, and so are the random numbers of torch, NumPy and Python.

    Raises:
        InputError: What was done inside reached the original: its loss does not use the model that it is given.
    """
    before = [tensor.detach().clone() for tensor in subject.tensors()]
    gradients = [None if p.grad is None else p.grad.clone() for p in subject.model.parameters()]
    training = [module.training for module in subject.model.modules()]
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 (whoever still draws from it)
    devices = {tensor.device.index or 0 for tensor in subject.tensors() if tensor.device.type == "cuda"}
    try:
        with torch.random.fork_rng([*devices]):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        touched = _put_back(subject, before, gradients)
        for module, mode in zip(subject.model.modules(), training, strict=True):
            module.training = mode
    if touched:
        raise InputError(
            "loss(model, batch) does not train the model that it is given, but one from outside: use its argument"
        )


def _put_back(subject: Subject, before: list[Tensor], gradients: list[Tensor | None]) -> bool:
    """Undo what a loss did to the original; whether it did anything."""
    touched = False
    with torch.no_grad():
        for now, then in zip(subject.tensors(), before, strict=True):
            if not torch.equal(_bits(now), _bits(then)):
                now.copy_(then)
                touched = True
    for parameter, then in zip(subject.model.parameters(), gradients, strict=True):
        now = parameter.grad
        if (now is None) != (then is None) or (now is not None and then is not None and not torch.equal(now, then)):
            parameter.grad = then
            touched = True
    return touched


def _bits(tensor: Tensor) -> Tensor:
    """Its bytes, by which NaN equals itself."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def seed_all(seed: int) -> None:
    """Begin the random numbers of torch, NumPy and Python anew."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)

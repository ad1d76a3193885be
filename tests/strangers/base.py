"""What a stranger is to the tests: a quantizer of another library, how to run it, what it does by its own account."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Tokens(NamedTuple):
    """What one codebook did in one call, as the test saw it: indices (N,), latents (N, D), codes (N, D), kept (N,)."""

    indices: Tensor
    latents: Tensor
    codes: Tensor
    kept: Tensor | None = None


Seen = Callable[..., None]


class Host(nn.Module):
    """A model of one number and a quantizer."""

    def __init__(self, vq: nn.Module, call: Callable[..., Any] | None = None):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))
        self.vq = vq
        self._call = call

    def forward(self, x: Tensor) -> Any:
        x = x * self.gain
        return self.vq(x) if self._call is None else self._call(self.vq, x)


@dataclass
class Stranger:
    """A quantizer of another library in one configuration.

    Attributes:
        build: Makes the quantizer.
        shape: Of a batch of its latents.
        spy: Hangs hooks of the test's own on the quantizer, which tell ``seen(name, Tokens)``.
        tables: The quantizer -> the codes that its decoder sees, by name; what has none is left out.
        call: How the quantizer is called; as a module by default.
        refused: A part of the one line by which it is refused; None for one that is read.
        levels: What its codebooks give as levels.
    """

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    spy: Callable[[nn.Module, Seen], None] = lambda module, seen: None
    tables: Callable[[nn.Module], dict[str, Tensor]] = lambda module: {}
    call: Callable[..., Any] | None = None
    refused: str | None = None
    levels: tuple[int, ...] | None = None

    def host(self) -> Host:
        torch.manual_seed(0)
        return Host(self.build(), self.call)

    def batches(self, count: int = 3) -> Tensor:
        return torch.randn(count, *self.shape, generator=torch.Generator().manual_seed(1))


def floats(output: Any) -> list[Tensor]:
    """The differentiable tensors in what a quantizer returned."""
    if isinstance(output, Tensor):
        return [output] if output.requires_grad else []
    if isinstance(output, dict):
        output = list(output.values())
    if isinstance(output, list | tuple):
        return [leaf for part in output for leaf in floats(part)]
    return floats(list(vars(output).values())) if hasattr(output, "__dataclass_fields__") else []


def loss(output: Any) -> Tensor:
    return sum((leaf.float().square().sum() for leaf in floats(output)), torch.zeros((), requires_grad=True))


def flat(tensor: Tensor, axis: int = -1) -> Tensor:
    """(N, D) of a tensor with channels along an axis."""
    return tensor.detach().movedim(axis, -1).reshape(-1, tensor.shape[axis])


def on_return(module: nn.Module, tell: Callable[[tuple, dict, Any], None]) -> None:
    """The test's own forward hook."""
    module.register_forward_hook(lambda _, args, kwargs, output: tell(args, kwargs, output), with_kwargs=True)

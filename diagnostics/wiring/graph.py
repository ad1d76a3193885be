"""Questions to the graph of a training forward, asked between the forward and its backward pass."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..probes import Call, CodebookReading
from ..probes.round_trip import leaves


def losses_on_output(call: Call, reading: CodebookReading) -> dict[str, float]:
    """The losses among what a quantizer returned that are taken on its straight-through output, by where they stand.

    Such a loss either hands a gradient to the output that the quantizer returned, or, where that was reshaped
    afterwards, drives the latents away from their codes. What is given is the norm of that gradient.
    """
    if reading.entering is None or reading.leaving is None or not reading.entering.tensor.requires_grad:
        return {}
    entering, leaving = reading.entering, reading.leaving
    found: dict[str, float] = {}
    for path, loss in leaves(call.output):
        if not loss.is_floating_point() or loss.numel() > 64 or not loss.requires_grad or loss is leaving.tensor:
            continue
        outputs = [leaving.tensor, entering.tensor] if leaving.tensor.requires_grad else [entering.tensor]
        gradients = torch.autograd.grad(loss.sum(), outputs, retain_graph=True, allow_unused=True)
        at_output = gradients[0] if leaving.tensor.requires_grad else None
        if at_output is not None and bool(at_output.any()):
            found[_told(path)] = float(at_output.norm())
        elif gradients[-1] is not None and _repels(entering.tokens(gradients[-1]), reading):
            found[_told(path)] = float(gradients[-1].norm())
    return found


def _repels(gradient: Tensor, reading: CodebookReading) -> bool:
    """Whether a gradient (N, D) at the latents is one away from the codes, and nothing else."""
    away = reading.kept(reading.latents - reading.codes).double()
    g = reading.kept(gradient).double()
    along = (g * away).sum()
    return bool(along < 0 and along.square() > 0.9 * g.square().sum() * away.square().sum())


def _told(path: tuple[Any, ...]) -> str:
    return "output" + "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)


def to_parameters(reading: CodebookReading, parameters: Sequence[Tensor]) -> float | None:
    """Norm of what a gradient of noise at the latents gives ``parameters``; None where they cannot be reached."""
    if reading.entering is None or not parameters:
        return None
    latents = reading.entering.tensor
    if not latents.requires_grad:
        return 0.0
    v = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0)).to(latents)
    found = torch.autograd.grad(latents, parameters, v, retain_graph=True, allow_unused=True)
    return float(sum(float(g.double().square().sum()) for g in found if g is not None) ** 0.5)

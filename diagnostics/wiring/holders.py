"""The parameters that codes are made of, and who moves them."""

import torch
from torch import Tensor

from ..probes import WatchedCodebook
from .evidence import Holder
from .subject import Subject


def holders_of(codebook: WatchedCodebook, path: str, subject: Subject, before: list[Holder]) -> list[Holder]:
    """Every parameter of the codes, with the largest gradient so far, and who is to move it.

    Args:
        codebook: Whose codes, after a backward pass.
        path: What a tensor is called that has no path in the model.
        subject: The model and its optimizers.
        before: What was found in the step before.
    """
    paths = {id(p): name for name, p in subject.model.named_parameters(remove_duplicate=False)}
    held = {
        id(p): (optimizer, group)
        for optimizer in subject.optimizers
        for group in optimizer.param_groups
        for p in group["params"]
    }
    largest = {holder.path: holder.gradient for holder in before}
    found = []
    for parameter in codebook.parameters():
        name = paths.get(id(parameter), path)
        gradients = [value for value in (largest.get(name), _largest(parameter.grad)) if value is not None]
        table = codebook.size in parameter.shape[:-1] and parameter.ndim > 1
        one = Holder(name, table, max(gradients, default=None), optimized=False)
        found.append(_optimized(one, *held[id(parameter)]) if id(parameter) in held else one)
    return found


def _optimized(holder: Holder, optimizer: torch.optim.Optimizer, group: dict) -> Holder:
    """The same with the settings of its group."""
    kind, lr = type(optimizer).__name__, group.get("lr")
    coupled = kind.startswith("Adam") and kind != "AdamW" and not group.get("decoupled_weight_decay")
    return holder._replace(
        optimized=True,
        lr=None if lr is None else float(lr),
        weight_decay=float(group.get("weight_decay", 0)),
        decoupled=not coupled,
    )


def _largest(gradient: Tensor | None) -> float | None:
    """Largest absolute value."""
    if gradient is None:
        return None
    values = gradient.coalesce().values() if gradient.is_sparse else gradient
    return float(values.abs().max()) if values.numel() else 0.0

"""Evaluation for a moment: everything about a model is afterwards as it was."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, module by module back again at the end, and no random number of the user's drawn."""
    training = [module for module in model.modules() if module.training]
    devices = {p.device.index for p in model.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng([device for device in devices if device is not None]):
        for module in training:
            module.training = False
        try:
            yield
        finally:
            for module in training:
                module.training = True

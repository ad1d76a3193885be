"""The optimizer and its learning rate, a pure function of the step."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from .settings import OptimizerSettings


def adam(parameters: Iterable[nn.Parameter], settings: OptimizerSettings) -> torch.optim.Adam:
    """Adam (Kingma & Ba 2015, arXiv:1412.6980) without weight decay: decay would move codes that nothing else moves."""
    return torch.optim.Adam(parameters, lr=settings.lr, betas=settings.betas)


def learning_rate(settings: OptimizerSettings, step: int, steps: int) -> float:
    """Rate for optimizer step ``step`` (from 0) of ``steps``: linear warm-up, then constant, a half cosine, or noam.

    Cosine: Loshchilov & Hutter 2017 (arXiv:1608.03983), eq. 5, with one period. Noam: Vaswani et al. 2017
    (arXiv:1706.03762), eq. 3, scaled so that the peak, at the end of the warm-up, is ``settings.lr``.
    """
    if step < settings.warmup_steps:
        return settings.lr * (step + 1) / settings.warmup_steps
    if settings.schedule == "constant":
        return settings.lr
    if settings.schedule == "noam":
        return settings.lr * math.sqrt(settings.warmup_steps / (step + 1))
    progress = (step - settings.warmup_steps) / max(1, steps - settings.warmup_steps)
    least = settings.min_lr_share * settings.lr
    return least + (settings.lr - least) * (1 + math.cos(math.pi * progress)) / 2


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Put ``rate`` into every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = rate

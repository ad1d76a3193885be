"""Where and in what precision a run computes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning_fabric import Fabric, wrappers
from lightning_fabric.strategies.ddp import DDPStrategy

from ...diagnostics.errors import InputError
from .settings import TrainSettings


def open_fabric(settings: TrainSettings) -> Fabric:
    """The devices and the precision that the settings ask for.

    Raises:
        InputError: There are not as many devices, or they do not know the precision.
    """
    return Fabric(
        accelerator=_accelerator(settings),
        devices=settings.devices,
        precision=_precision(settings),
        # Buffers stay each rank's own: averages are reduced where they are made, once per step.
        strategy=DDPStrategy(start_method="spawn", broadcast_buffers=False) if settings.devices > 1 else "auto",
    )


def _accelerator(settings: TrainSettings) -> str:
    """The device's name, where there are as many as asked for."""
    available = torch.cuda.device_count()
    device = ("cuda" if available else "cpu") if settings.device == "auto" else settings.device
    if device == "cuda" and settings.devices > available:
        raise InputError(f"train.devices {settings.devices} on cuda: {available} found; choose cpu or fewer devices")
    return device


def _precision(settings: TrainSettings) -> Any:
    if settings.precision == "16" and _accelerator(settings) == "cpu":
        raise InputError("train.precision 16 needs a CUDA device; choose bf16 or 32")
    return {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}[settings.precision]


@contextmanager
def gradients_by_hand() -> Iterator[None]:
    """Within the block ``torch.autograd.grad`` may take gradients of what Fabric's modules gave.

    In mixed precision Fabric refuses every backward pass but ``fabric.backward``, lest a loss be left unscaled. A loss
    that is scaled by hand has no other way in than the flag that ``fabric.backward`` sets.
    """
    before = getattr(wrappers, "_in_fabric_backward", False)
    wrappers._in_fabric_backward = True
    try:
        yield
    finally:
        wrappers._in_fabric_backward = before


def available_device(name: str) -> str:
    """The device that ``auto``, ``cpu`` or ``cuda`` means here.

    Raises:
        InputError: There is none.
    """
    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise InputError("device 'cuda' is not there; choose cpu or auto")
    return ("cuda" if found else "cpu") if name == "auto" else name

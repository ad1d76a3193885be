"""A batch that is always the same: how its codes and latents change while the model learns."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..probes import Call, CodebookReading, WatchedCodebook
from .hooks import watch
from .modes import evaluating


class _Encoded(NamedTuple):
    """Indices (N,) and latents (N, D) of the batch."""

    indices: Tensor
    latents: Tensor


class ReferenceBatch:
    """Encodes a fixed batch now and then, and compares.

    Args:
        model: Put into evaluation mode for it, module by module back again afterwards.
        encode: Runs the model on the batch; what it returns is not used.
        codebooks: Whose codes are compared.
    """

    def __init__(self, model: nn.Module, encode: Callable[[], Any], codebooks: Mapping[str, WatchedCodebook]):
        self._model, self._encode, self._codebooks = model, encode, codebooks
        self._before: dict[str, _Encoded] = {}

    def compare(self) -> dict[str, dict[str, float]]:
        """For each codebook churn and drift since the last call, as columns of ``LatentsRow``; none at first."""
        now = {name: _joined(readings) for name, readings in self._read().items() if readings}
        changes = {name: _change(self._before[name], batch) for name, batch in now.items() if name in self._before}
        self._before = now
        return changes

    def _read(self) -> dict[str, list[CodebookReading]]:
        readings: dict[str, list[CodebookReading]] = {name: [] for name in self._codebooks}
        handles = []
        for name, codebook in self._codebooks.items():
            for number, tap in enumerate(codebook.taps):
                handles.append(watch(tap, _keeper(readings[name], codebook, number)))
        try:
            with evaluating(self._model), torch.no_grad():
                self._encode()
        finally:
            for handle in handles:
                handle.remove()
        return readings

    def state_dict(self) -> dict[str, tuple[Tensor, Tensor]]:
        """What the next comparison needs."""
        return {name: (batch.indices, batch.latents) for name, batch in self._before.items()}

    def load_state_dict(self, state: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Go on from ``state_dict``."""
        self._before = {name: _Encoded(*batch) for name, batch in state.items()}


def _keeper(kept: list[CodebookReading], codebook: WatchedCodebook, number: int) -> Callable[[Call], None]:
    def keep(call: Call) -> None:
        reading = codebook.read(number, call)
        if reading is not None:
            kept.append(reading)

    return keep


def _joined(readings: list[CodebookReading]) -> _Encoded:
    return _Encoded(torch.cat([r.indices for r in readings]), torch.cat([r.latents for r in readings]).float())


def _change(before: _Encoded, now: _Encoded) -> dict[str, float]:
    if before.indices.shape != now.indices.shape:
        return {}
    indices, latents = before.indices.to(now.indices.device), before.latents.to(now.latents.device)
    moved = torch.linalg.vector_norm(now.latents - latents, dim=1).mean()
    spread = (latents - latents.mean(0)).square().sum(1).mean().sqrt()
    return {"churn": float((now.indices != indices).float().mean()), "encoder_drift": float(moved / spread)}

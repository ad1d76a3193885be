"""Losses between two readings."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...diagnostics.ranks import mean_over_ranks


class Meter:
    """Means of losses since the last reading, over steps and ranks; on the device until they are read."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Take in the losses of one step."""
        for name, loss in losses.items():
            self.sums[name] = self.sums.get(name, 0) + loss.double()
            self.counts[name] = self.counts.get(name, 0) + 1

    def _sums_of_mean_rank(self) -> Tensor:
        return mean_over_ranks(torch.stack(list(self.sums.values())))

    def read(self) -> dict[str, float]:
        """The means; here the host waits for the device, and the ranks for each other."""
        if not self.sums:
            return {}
        return {
            name: total / self.counts[name]
            for name, total in zip(self.sums, self._sums_of_mean_rank().tolist(), strict=True)
        }

    def clear(self) -> None:
        """Start anew."""
        self.sums, self.counts = {}, {}

    def state_dict(self) -> dict[str, Any]:
        """The sums so far; to be taken by every rank."""
        sums = dict(zip(self.sums, self._sums_of_mean_rank().unbind(), strict=True)) if self.sums else {}
        return {"sums": {name: value.clone() for name, value in sums.items()}, "counts": dict(self.counts)}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Go on from ``state_dict``."""
        self.sums = {name: value.to(device) for name, value in state["sums"].items()}
        self.counts = dict(state["counts"])

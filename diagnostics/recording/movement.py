"""The codebook's side of a step: how far it moved the codes, and whether towards their latents."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..probes import CodebookReading, WatchedCodebook
from ..ranks import sum_over_ranks
from .rows import MovementRow
from .velocity import Velocity

_NAMES = (
    *("moved_mean", "moved_median_used", "moved_max", "moved_share", "grad_share", "attraction", "attraction_r2"),
    *("code_velocity", "centroid_velocity"),
)


class Movement:
    """The rows of the steps in which the codes' movement is watched. Nothing waits for the device until ``rows``.

    Args:
        codebook: Whose codes.
        optimizers: Those that train the model.
        late: Whether the optimizer had taken steps before.
    """

    def __init__(self, codebook: WatchedCodebook, optimizers: Sequence[torch.optim.Optimizer], late: bool):
        self._codebook, self._optimizers, self._late = codebook, optimizers, late
        self._before: Tensor | None = None
        self._hits: Tensor | None = None
        self._centroids: Tensor | None = None
        self._velocity = Velocity()
        self._done: list[tuple[int, Tensor, dict[str, Any]]] = []

    def open_step(self, codes: Tensor) -> None:
        """Keep the (K, D) codes that a watched step starts from."""
        self._before = codes.clone()
        self._hits = codes.new_zeros(len(codes), dtype=torch.float32)
        self._centroids = torch.zeros_like(codes, dtype=torch.float32)

    def add(self, reading: CodebookReading) -> None:
        """Take in one forward of a watched step."""
        if self._hits is None or self._centroids is None:
            return
        indices = reading.indices.clamp(min=0)
        self._hits.index_add_(0, indices, reading.counted.float())
        self._centroids.index_add_(0, indices, reading.kept(reading.latents).to(self._centroids.dtype))

    def close_step(self, step: int, gradient_norms: Tensor | None) -> None:
        """Close a watched step, with the (K,) norms of the gradient rows where the codes have some."""
        if self._before is None or self._hits is None or self._centroids is None:
            return
        codes = self._codebook.codes()
        if codes is not None:
            hits, sums = sum_over_ranks(self._hits), sum_over_ranks(self._centroids)
            values = _figures(self._before, codes, hits, sums, gradient_norms)
            speeds = self._velocity.look(step, self._before, hits, sums)
            self._done.append((step, torch.cat([values, speeds]), self._groups()))
        self.drop()

    def drop(self) -> None:
        """Close a step without a row."""
        self._before = self._hits = self._centroids = None

    def _groups(self) -> dict[str, Any]:
        """In which group of which optimizer what moves the codes is."""
        wanted = {id(parameter) for parameter in self._codebook.parameters()}
        if not wanted:
            return {"in_optimizer": False, "attached_late": self._late}
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                if any(id(parameter) in wanted for parameter in group["params"]):
                    lr, decay = group.get("lr"), group.get("weight_decay", 0)
                    rates = {"lr": None if lr is None else float(lr), "weight_decay": float(decay)}
                    return {"in_optimizer": True, "attached_late": self._late} | rates
        return {"in_optimizer": False, "attached_late": self._late}

    def rows(self, codebook: str) -> Iterator[MovementRow]:
        """The rows of the steps since the last call. Here the host waits for the device."""
        for step, values, groups in self._done:
            figures = {
                name: value for name, value in zip(_NAMES, values.tolist(), strict=True) if value == value
            }  # NaN: not there
            yield MovementRow(codebook=codebook, step=step, **figures, **groups)
        self._done = []

    def state_dict(self) -> dict[str, Any]:
        """The rows that are not written yet, the codes that a watched step starts from, and whether we came late."""
        velocity = self._velocity.state_dict()
        return {"done": list(self._done), "before": self._before, "late": self._late, "velocity": velocity}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state_dict``."""
        self._done = [tuple(row) for row in state["done"]]
        self._late = state.get("late", self._late)  # a resumed optimizer has taken steps, all of them watched
        self.drop()
        if (codes := self._codebook.codes()) is not None:
            self._velocity.load_state_dict(state["velocity"], codes.device)
            if state["before"] is not None:
                self.open_step(state["before"].to(codes.device))


def _figures(before: Tensor, after: Tensor, hits: Tensor, sums: Tensor, gradient_norms: Tensor | None) -> Tensor:
    """(7,) the first figures of ``_NAMES``; NaN for what is not there."""
    before, after = before.float(), after.float()
    moved = after - before
    lengths = torch.linalg.vector_norm(moved, dim=1)
    used = hits > 0
    towards = (sums / hits.clamp(min=1).unsqueeze(1) - before).where(used.unsqueeze(1), 0)
    # Sums over used codes, each weighted by its hits: noisy centroids of few latents count for little.
    along, length2, moved2 = (
        ((a * b).sum(1) * hits).double().sum() for a, b in ((moved, towards), (towards, towards), (moved, moved))
    )
    nothing = torch.full((), torch.nan, dtype=torch.float64, device=before.device)
    return torch.stack(
        [
            lengths.mean().double(),
            lengths.where(used, torch.nan).nanmedian().double(),
            lengths.max().double(),
            (lengths > 0).double().mean(),
            nothing if gradient_norms is None else (gradient_norms > 0).double().mean(),
            along / length2,
            along.square() / (length2 * moved2),
        ]
    )

"""Whether codes keep up with their latents: how fast each moves from one look to the next."""

from typing import Any

import torch
from torch import Tensor

#: Codes that are followed, those with the most hits: the centroids of few latents jump about by chance.
_FOLLOWED = 256


class Velocity:
    """Follows the busiest codes, and the centroids of their latents, from one look to the next."""

    def __init__(self) -> None:
        self._step = 0
        self._which: Tensor | None = None
        self._codes: Tensor | None = None
        self._centroids: Tensor | None = None

    def look(self, step: int, codes: Tensor, hits: Tensor, sums: Tensor) -> Tensor:
        """How fast they moved since the last look.

        Args:
            step: The optimizer step.
            codes: (K, D) that it starts from.
            hits: (K,) its tokens.
            sums: (K, D) sums of the latents of those.

        Returns:
            (2,) medians over the codes followed that were hit again of |movement| a step, of codes and of centroids;
            NaN at the first look.
        """
        speeds = torch.full((2,), torch.nan, dtype=torch.float64, device=codes.device)
        if self._which is not None and self._codes is not None and self._centroids is not None:
            again = hits[self._which] > 0
            centroids = sums[self._which] / hits[self._which].clamp(min=1).unsqueeze(1)
            moved = [codes[self._which] - self._codes, centroids - self._centroids]
            lengths = [torch.linalg.vector_norm(each, dim=1).where(again, torch.nan) for each in moved]
            speeds = torch.stack([each.nanmedian().double() / (step - self._step) for each in lengths])
        self._follow(step, codes, hits, sums)
        return speeds

    def _follow(self, step: int, codes: Tensor, hits: Tensor, sums: Tensor) -> None:
        self._step, self._which = step, hits.topk(min(_FOLLOWED, len(hits))).indices
        self._codes = codes[self._which].float()
        self._centroids = sums[self._which] / hits[self._which].clamp(min=1).unsqueeze(1)

    def state_dict(self) -> dict[str, Any]:
        """What the next look needs."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Go on from ``state_dict``."""
        for name, value in state.items():
            setattr(self, name, value.to(device) if isinstance(value, Tensor) else value)

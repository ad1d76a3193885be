"""Resets that nobody tells of: codes that jump."""

import torch
from torch import Tensor

from ..probes import CodebookReading

#: Leading coordinates by which codes and latents are compared. Four floats agree by chance in no run.
_COORDINATES = 4
#: Spreads of the latents, in one of those coordinates, that a code without hits does not move by itself.
_JUMP = 0.5


class Jumps:
    """Sees codes jump from one forward to the next.

    A code that has come to lie on a latent of this batch or of the one before was reset onto it: expiry inside a
    forward takes latents of its own batch, a remedy after the optimizer's step those of the batch just used. A code
    without hits in both forwards that has moved far, onto no latent, was reset or overwritten in a way that cannot be
    told from outside. The host is never waited for.
    """

    def __init__(self) -> None:
        self._codes: Tensor | None = None
        self._latents: Tensor | None = None
        self._hit: Tensor | None = None

    def look(self, codes: Tensor, reading: CodebookReading) -> tuple[Tensor, Tensor]:
        """After a forward: which of the (K, D) codes have landed on a latent, and which have jumped elsewhere.

        Returns:
            Two (K,) float tensors of zeros and ones. At the first look, before which nothing is known, a code that lies
            on a latent may have been reset or initialised there: it counts among the latter.
        """
        codes = codes[:, :_COORDINATES].float().clone()
        latents = reading.latents[:, :_COORDINATES].float()
        latents = latents[latents[:, 0].argsort()]
        hit = torch.zeros(len(codes), dtype=torch.bool, device=codes.device)
        hit[reading.indices.clamp(min=0)] = True
        seen = torch.zeros(len(codes), device=codes.device), _lie_on(codes, latents).float()
        if self._codes is not None and self._latents is not None and self._hit is not None:
            moved = (codes - self._codes).abs()
            landed = (_lie_on(codes, latents) | _lie_on(codes, self._latents)) & (moved > 0).any(1)
            far = (moved > _JUMP * latents.std(0)).any(1)
            seen = landed.float(), (far & ~landed & ~hit & ~self._hit).float()
        self._codes, self._latents, self._hit = codes, latents, hit
        return seen

    def state_dict(self) -> dict[str, Tensor | None]:
        """What the next look needs."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Tensor | None], device: torch.device) -> None:
        """Go on from ``state_dict``."""
        for name, value in state.items():
            setattr(self, name, None if value is None else value.to(device))


def _lie_on(codes: Tensor, latents: Tensor) -> Tensor:
    """(K,) bool: one of the two nearest in the first coordinate, of latents sorted by it, agrees in all."""
    place = torch.searchsorted(latents[:, 0].contiguous(), codes[:, 0].contiguous())
    nearest = latents[torch.stack([place - 1, place]).clamp_(0, len(latents) - 1)]
    return ((nearest - codes).abs() <= 1e-6 * codes.abs()).all(2).any(0)

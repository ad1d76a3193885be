"""Resets that nobody tells of: codes that jump."""

import torch
from torch import Tensor

from ..probes import CodebookReading

#: Leading coordinates by which codes and latents are compared. Four floats agree by chance in no run.
_COORDINATES = 4
#: In spreads of the latents, by coordinate: what moves less was not reset, and what moves more without a hit was.
_STILL, _JUMP = 0.05, 0.5


class Jumps:
    """Sees codes jump from one forward to the next.

    A code that has come to lie on a latent of this batch or of the one before was reset onto it: expiry inside a
    forward takes latents of its own batch, a remedy after the optimizer's step those of the batch just used. A code
    without hits in both forwards that has moved far, onto no latent, was reset or overwritten in a way that cannot be
    told from outside. Where latents are not compared with codes, and given as NaN, no jump can be judged: each code
    counts as jumped.
    """

    def __init__(self) -> None:
        self._codes: Tensor | None = None
        self._latents: Tensor | None = None
        self._hit: Tensor | None = None

    def look(self, codes: Tensor, reading: CodebookReading) -> tuple[Tensor, Tensor] | None:
        """After a forward: which of the (K, D) codes have landed on a latent, and which have jumped elsewhere.

        Returns:
            Two (K,) float tensors of zeros and ones, None for nothing at all. At the first look, before which nothing
            is known, a code that lies on a latent may have been reset or initialised there: it counts among the latter.
        """
        codes = codes[:, :_COORDINATES].to(torch.float32, copy=True)
        latents = reading.latents[:, :_COORDINATES].to(torch.float32, copy=True)
        hits = torch.zeros(len(codes), dtype=torch.int64, device=codes.device)
        hit = hits.index_add_(0, reading.indices.clamp(min=0), reading.counted.long()) > 0
        before, self._codes = self._codes, codes
        last_latents, self._latents = self._latents, latents
        last_hit, self._hit = self._hit, hit
        if before is None or last_latents is None or last_hit is None:
            return torch.zeros(len(codes), device=codes.device), _lie_on(codes, latents).float()
        spread = latents.std(0, correction=0)  # of one token zero: whatever moves, moves far
        moved = (codes - before).abs() / spread
        stirred, blind = (moved > _STILL).any(1), spread.isnan().any()
        if codes.device.type == "cpu" and not stirred.any() and not blind:
            return None  # where asking costs nothing, most steps end here
        landed = stirred & (_lie_on(codes, latents) | _lie_on(codes, last_latents))
        return landed.float(), (blind | ((moved > _JUMP).any(1) & ~landed & ~hit & ~last_hit)).float()

    def state_dict(self) -> dict[str, Tensor | None]:
        """What the next look needs."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Tensor | None], device: torch.device) -> None:
        """Go on from ``state_dict``."""
        for name, value in state.items():
            setattr(self, name, None if value is None else value.to(device))


def _lie_on(codes: Tensor, latents: Tensor) -> Tensor:
    """(K,) bool: of the latents the two nearest in the first coordinate are asked; one of them agrees in all."""
    latents = latents[latents[:, 0].argsort()]
    place = torch.searchsorted(latents[:, 0].contiguous(), codes[:, 0].contiguous())
    nearest = latents[torch.stack([place - 1, place]).clamp_(0, len(latents) - 1)]
    return ((nearest - codes).abs() <= 1e-6 * codes.abs()).all(2).any(0)

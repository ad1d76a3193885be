"""Images from the transformer: codes drawn under a condition, whole or completed."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..transformer.model import CodeTransformer
from .decoding import Drawing, Guidance, complete, sliding_window_sample


class Choice(NamedTuple):
    """How codes are chosen.

    Attributes:
        known: (A,) int64: the codes that may be sampled, those that occur in the training data. Of another code the
            model has learned nothing but that it does not come.
        scale: Scale of classifier-free guidance; 1: none.
        drawing: Temperature, filters and generator, see ``draw``.
    """

    known: Tensor
    scale: float
    drawing: Drawing

    def guidance(self, model: CodeTransformer, prefix: Tensor) -> Guidance | None:
        """The other side of the guidance, where there is any."""
        return None if self.scale == 1 else Guidance(model.no_condition(prefix), self.scale)


def known_codes(train_hits: NDArray[np.int64], device: torch.device) -> Tensor:
    """The codes with a hit in the training data, (A,) int64."""
    return torch.from_numpy(np.flatnonzero(train_hits)).to(device)


def seed_of(*numbers: int) -> int:
    """One seed for a generator from several numbers, another for every other list of them."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def draw_codes(model: CodeTransformer, prefix: Tensor, choice: Choice, given: Tensor | None = None) -> Tensor:
    """Grids of codes (B, h, w) after ``prefix`` (B, P); the first G in the model's order may be ``given`` (B, G)."""
    given = prefix.new_empty(len(prefix), 0) if given is None else given
    total = model.grid[0] * model.grid[1]
    guidance = choice.guidance(model, prefix)
    sequence = complete(model.gpt, prefix, given, total, guidance=guidance, allowed=choice.known, **choice.drawing)
    return model.arranged(sequence)


def draw_large(
    model: CodeTransformer, prefix: Tensor, grid: tuple[int, int], window: tuple[int, int], choice: Choice
) -> Tensor:
    """Grids of codes (B, H, W) larger than the model's, through a sliding window; ``prefix`` (B, P) or (B, H, W)."""
    guidance = choice.guidance(model, prefix)
    return sliding_window_sample(
        model.gpt, prefix, *grid, window=window, guidance=guidance, allowed=choice.known, **choice.drawing
    )

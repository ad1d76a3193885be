"""Images from the transformer: codes drawn under a condition, whole or completed."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..transformer.model import CodeTransformer
from .decoding import complete, sliding_window_sample
from .settings import DrawingSettings


class Choice(NamedTuple):
    """How codes are chosen.

    Attributes:
        known: (A,) int64: the codes that may be sampled, those that occur in the training data. Of another code the
            model has learned nothing but that it does not come.
        drawing: How they are drawn.
        generator: On the device of the model; None: the global one.
    """

    known: Tensor
    drawing: DrawingSettings
    generator: torch.Generator | None = None


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
    sequence = complete(
        model.gpt,
        prefix,
        given,
        total,
        choice.drawing,
        unconditional=model.no_condition(prefix),
        allowed=choice.known,
        generator=choice.generator,
    )
    return model.arranged(sequence)


def draw_large(
    model: CodeTransformer, prefix: Tensor, grid: tuple[int, int], window: tuple[int, int], choice: Choice
) -> Tensor:
    """Grids of codes (B, H, W) larger than the model's, through a sliding window; ``prefix`` (B, P) or (B, H, W)."""
    return sliding_window_sample(
        model.gpt,
        prefix,
        *grid,
        choice.drawing,
        window=window,
        unconditional=model.no_condition(prefix),
        allowed=choice.known,
        generator=choice.generator,
    )

"""The remedy that revives dead codes: ``DeadCodeReset``."""

from typing import Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from ...diagnostics.ranks import from_first_rank, rank_and_size, sum_over_ranks
from ...diagnostics.recomputation import recomputing
from ..config.base import Settings
from ..config.layers import validated
from .base import LearnedQuantizer, QuantizerOutput, to_tokens
from .kmeans import jitter, kmeans, sample_rows
from .rebirth import Rebirth


class ResetSettings(Settings):
    """The settings of ``DeadCodeReset``."""

    every: PositiveInt = 100
    """Optimizer steps between two resets, and the window over which hits are counted."""
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the mean hits below which a code is dead."""
    source: Literal["latents", "codes", "kmeans"] = "latents"
    """Where new codes come from: latents of the last batch, codes in use by their hits, or k-means of those latents."""
    noise: NonNegativeFloat = 0.01
    """Standard deviation of the noise added to the drawn vectors, as a share of their spread."""


class DeadCodeReset:
    """Every ``every`` optimizer steps, redraws the codes that got too few hits since the last time.

    A code is dead when its hits over the window are below ``threshold`` times the mean hits of a code: a share of the
    mean, so that the batch size and the number of codes do not change its meaning (as in Mimi, Defossez et al. 2024,
    arXiv:2410.00037; the idea is the random restart of Jukebox, Dhariwal et al. 2020, arXiv:2005.00341, sec. 3.1).
    Works on any ``LearnedQuantizer`` through ``overwrite``, so that EMA sums and counts follow; for the optimizer the
    rows begin anew, see ``Rebirth``: the momentum of the dead code would drag the new one away.

    Args:
        quantizer: Whose codes are watched and rewritten.
        optimizer: For which the rows of revived codes begin anew; None where the codebook is not trained by one.
        seed: Seeds the draws. They use a generator of their own: the model's random numbers stay as they were.
        **settings: The fields of ``ResetSettings``.

    Attributes:
        revived: How many codes the last reset that found any has rewritten.
        repeats: How many of them share their latent with another, parted by the noise alone: where more codes are dead
            than there are latents, each latent is drawn before one is drawn again.

    Raises:
        InputError: There is no such setting, or a value is out of range.
    """

    settings_type = ResetSettings

    def __init__(
        self,
        quantizer: LearnedQuantizer,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        seed: int = 0,
        **settings: Any,
    ):
        self.quantizer = quantizer
        self.settings = validated(ResetSettings, settings)
        self.seed = seed
        self.steps = 0
        self.hits = torch.zeros(quantizer.codebook_size, dtype=torch.int64, device=quantizer.codebook.device)
        self.revived = self.repeats = 0
        self._rebirth = None if optimizer is None else Rebirth(optimizer, _rows_of_codes(quantizer))
        self._latents: Tensor | None = None
        self._hook = quantizer.register_forward_hook(self._observe)

    def _observe(self, module: torch.nn.Module, inputs: tuple[Tensor], output: QuantizerOutput) -> None:
        if not module.training or recomputing():
            return
        indices = output.indices.flatten()
        self.hits = self.hits.to(indices.device)
        self.hits.index_add_(0, indices, torch.ones_like(indices))
        if (self.steps + 1) % self.settings.every == 0:
            self._latents = inputs[0].detach()

    @torch.no_grad()
    def step(self) -> Tensor | None:
        """Call once per optimizer step, after it. Returns the (R,) codes that were reset, None where none was."""
        self.steps += 1
        if self.steps % self.settings.every or self._latents is None:
            return None
        hits, latents = self._hits_of_all_ranks(), to_tokens(self._latents.float())
        self.hits.zero_()
        self._latents = None
        alive = hits >= self.settings.threshold * hits.float().mean()
        dead = (~alive).nonzero().squeeze(1)
        if len(dead) == 0:
            return None
        vectors = from_first_rank(self._draw(len(dead), latents, hits * alive))  # each drew from latents of its own
        self.quantizer.overwrite(dead, vectors)
        if self._rebirth is not None:
            self._rebirth.begin(dead)
        self.revived, self.repeats = len(dead), self._repeats(len(dead), len(latents))
        return dead

    def _repeats(self, count: int, latents: int) -> int:
        """How many of ``count`` new codes share their latent with another: there are only so many."""
        return max(0, count - latents) if self.settings.source != "codes" else 0

    def _hits_of_all_ranks(self) -> Tensor:
        return sum_over_ranks(self.hits.clone())

    def _draw(self, count: int, latents: Tensor, hits: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.steps)
        if self.settings.source == "kmeans":
            return jitter(kmeans(latents, count, generator), self.settings.noise, latents, generator)
        if self.settings.source == "codes":
            chosen = torch.multinomial(hits.double().cpu(), count, replacement=True, generator=generator)
            codes = self.quantizer.codebook
            return jitter(codes[chosen.to(codes.device)], self.settings.noise, latents, generator)
        return jitter(sample_rows(latents, count, generator), self.settings.noise, latents, generator)

    def state_dict(self) -> dict[str, Any]:
        """The window's hits and the number of steps; to be taken between two steps, by every rank."""
        rebirth = None if self._rebirth is None else self._rebirth.state_dict()
        return {"steps": self.steps, "hits": self._hits_of_all_ranks(), "rebirth": rebirth}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state_dict``: the first rank with the hits of all, the others from none."""
        self.steps = state["steps"]
        self.hits.copy_(state["hits"])
        if rank_and_size()[0] > 0:
            self.hits.zero_()
        if self._rebirth is not None and state.get("rebirth") is not None:  # older checkpoints have none
            self._rebirth.load_state_dict(state["rebirth"])


def _rows_of_codes(quantizer: LearnedQuantizer) -> list[nn.Parameter]:
    return [p for p in quantizer.parameters() if p.shape[0] == quantizer.codebook_size]

"""The quantizer whose codebook follows the latents by exponential moving averages."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor, nn

from ...diagnostics.ranks import sum_over_ranks
from ...diagnostics.recomputation import recomputing
from ..config.base import Decay, Settings
from .base import LearnedQuantizer, QuantizerOutput, output_dtype, straight_through, to_map, to_tokens, working_dtype
from .search import nearest_codes


class EMASettings(Settings):
    """The settings of ``EMAQuantizer``."""

    commitment_weight: NonNegativeFloat = 0.25
    """beta, on the commitment term |z - sg[e]|^2."""
    decay: Decay = 0.99
    """g, of the running counts and sums, per optimizer step."""
    eps: PositiveFloat = 1e-5
    """Laplace smoothing of the counts."""


class EMACodebook(nn.Module):
    """Codes with the running count and the running sum of the latents that they stand for.

    The count starts at one and the sum at the code itself, so that ``weight == embed_avg / cluster_size`` holds from
    the beginning: a count of zero would divide the sum of an unused code by next to nothing and blow the code up.
    """

    weight: Tensor
    cluster_size: Tensor
    embed_avg: Tensor

    def __init__(self, codebook_size: int, dim: int):
        super().__init__()
        weight = torch.empty(codebook_size, dim).uniform_(-1 / codebook_size, 1 / codebook_size)
        self.register_buffer("weight", weight)
        self.register_buffer("cluster_size", torch.ones(codebook_size))
        self.register_buffer("embed_avg", weight.clone())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "EMACodebook":
        """What ``to`` and its like do, but the averages never go below float32.

        A step moves an average by 1 - decay of the way, which is less than the last digit of a bfloat16 one: in half
        precision it would stand still. The codes follow the cast, and are rounded from the averages at each step.
        """
        averages = {"cluster_size": self.cluster_size, "embed_avg": self.embed_avg}
        super()._apply(fn, recurse)
        for name, exact in averages.items():
            cast = getattr(self, name)
            if torch.finfo(cast.dtype).bits < 32:
                setattr(self, name, exact.to(cast.device, torch.float32))
        return self


class EMAQuantizer(LearnedQuantizer):
    """Nearest code, straight-through gradient, codebook moved by exponential moving averages.

    N_k <- g N_k + (1 - g) n_k,  m_k <- g m_k + (1 - g) sum z,  e_k = m_k / N_k
    (van den Oord et al. 2017, arXiv:1711.00937, appendix A.1). The division uses the Laplace-smoothed count
    (N_k + eps) / (N + K eps) N, which is not stored back. Sums and counts are taken over all micro-batches and ranks of
    an optimizer step and enter the averages once, in ``end_step``; a forward that activation checkpointing repeats for
    the backward pass adds nothing.

    loss = beta |z - sg[e]|^2.
    """

    settings_type = EMASettings
    settings: EMASettings

    def __init__(self, codebook_size: int, dim: int, **settings: Any):
        super().__init__(codebook_size, dim, **settings)
        self.embedding = EMACodebook(codebook_size, dim)
        # (K, D + 1) sums of latents and, in the last column, counts since the last step. A plain attribute: as a buffer
        # it would be overwritten by rank 0's at every forward under DistributedDataParallel.
        self._pending: Tensor | None = None

    @property
    def codebook(self) -> Tensor:
        return self.embedding.weight

    def forward(self, latents: Tensor) -> QuantizerOutput:
        with torch.autocast(latents.device.type, enabled=False):
            codebook = self.codebook.to(working_dtype(latents, self.codebook))
            tokens = to_tokens(latents.to(codebook.dtype))
            indices = nearest_codes(tokens, codebook)
            codes = F.embedding(indices, codebook)
            if self.training and not recomputing():
                self._accumulate(tokens.detach(), indices)
            commitment = F.mse_loss(tokens, codes)
            quantized = straight_through(codes, tokens).to(output_dtype(latents, self.codebook))
        B, _, H, W = latents.shape
        return QuantizerOutput(
            to_map(quantized, latents.shape),
            indices.view(B, H, W),
            self.settings.commitment_weight * commitment,
            {"commitment": commitment},
        )

    def _accumulate(self, tokens: Tensor, indices: Tensor) -> None:
        pending = tokens.new_zeros(self.codebook_size, self.dim + 1) if self._pending is None else self._pending
        self._pending = pending.index_add_(0, indices, F.pad(tokens, (0, 1), value=1.0).to(pending.dtype))

    @torch.no_grad()
    def end_step(self) -> None:
        """Let the sums and counts of the step, over all ranks, into the moving averages."""
        if self._pending is None:
            return
        sum_over_ranks(self._pending)
        book = self.embedding
        pending = self._pending.to(book.embed_avg.dtype)
        book.embed_avg.lerp_(pending[:, :-1], 1 - self.settings.decay)
        book.cluster_size.lerp_(pending[:, -1], 1 - self.settings.decay)
        total = book.cluster_size.sum()
        smoothed = (book.cluster_size + self.settings.eps) / (total + self.codebook_size * self.settings.eps) * total
        book.weight.copy_(book.embed_avg / smoothed.unsqueeze(1))
        self._pending = None

    @torch.no_grad()
    def overwrite(self, codes: Tensor, vectors: Tensor) -> None:
        """Put ``vectors`` (R, D) in the place of ``codes`` (R,), as heavy as the average code.

        The running sum and count follow: without them the next step would put the old code back.
        """
        super().overwrite(codes, vectors)
        mean = self.embedding.cluster_size.mean()
        self.embedding.cluster_size[codes] = mean
        self.embedding.embed_avg[codes] = vectors.to(self.embedding.embed_avg.dtype) * mean

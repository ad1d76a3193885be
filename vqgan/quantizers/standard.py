"""The straight-through quantizer of VQ-VAE."""

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat
from torch import Tensor, nn

from ..config.base import Settings
from .base import LearnedQuantizer, QuantizerOutput, output_dtype, straight_through, to_map, to_tokens, working_dtype
from .search import nearest_codes


class StandardSettings(Settings):
    """The settings of ``StandardQuantizer``."""

    commitment_weight: NonNegativeFloat = 0.25
    """beta, on the commitment term |z - sg[e]|^2."""
    legacy: bool = False
    """Put beta on the codebook term instead, the order that taming-transformers trains with by default."""


class StandardQuantizer(LearnedQuantizer):
    """Nearest code, straight-through gradient, codebook moved by its own loss.

    loss = |sg[z] - e|^2 + beta |z - sg[e]|^2, both as means over tokens and dimensions
    (van den Oord et al. 2017, arXiv:1711.00937, eq. 3).
    """

    settings_type = StandardSettings
    settings: StandardSettings

    def __init__(self, codebook_size: int, dim: int, **settings: Any):
        super().__init__(codebook_size, dim, **settings)
        self.embedding = nn.Embedding(codebook_size, dim)
        nn.init.uniform_(self.embedding.weight, -1 / codebook_size, 1 / codebook_size)

    @property
    def codebook(self) -> Tensor:
        return self.embedding.weight

    def forward(self, latents: Tensor) -> QuantizerOutput:
        with torch.autocast(latents.device.type, enabled=False):
            codebook = self.codebook.to(working_dtype(latents, self.codebook))
            tokens = to_tokens(latents.to(codebook.dtype))
            indices = nearest_codes(tokens, codebook)
            codes = F.embedding(indices, codebook)
            losses = self.losses(tokens, codes, codebook)
            quantized = straight_through(codes, tokens).to(output_dtype(latents, self.codebook))
        B, _, H, W = latents.shape
        return QuantizerOutput(to_map(quantized, latents.shape), indices.view(B, H, W), self.weighted(losses), losses)

    def losses(self, tokens: Tensor, codes: Tensor, codebook: Tensor) -> dict[str, Tensor]:
        """The unweighted parts of the loss for (N, D) tokens, their (N, D) codes and all (K, D) codes, in one dtype."""
        return {
            "codebook": F.mse_loss(codes, tokens.detach()),
            "commitment": F.mse_loss(tokens, codes.detach()),
        }

    def weighted(self, losses: dict[str, Tensor]) -> Tensor:
        """Their weighted sum."""
        beta = self.settings.commitment_weight
        if self.settings.legacy:
            return beta * losses["codebook"] + losses["commitment"]
        return losses["codebook"] + beta * losses["commitment"]

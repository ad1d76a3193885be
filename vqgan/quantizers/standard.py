"""The straight-through quantizer of VQ-VAE."""

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat
from torch import Tensor, nn

from ..config.base import Settings
from .base import Quantizer, QuantizerOutput, output_dtype, straight_through, to_map, to_tokens, working_dtype
from .search import nearest_codes


class StandardSettings(Settings):
    """See ``StandardQuantizer``."""

    commitment_weight: NonNegativeFloat = 0.25
    legacy: bool = False


class StandardQuantizer(Quantizer):
    """Nearest code, straight-through gradient, codebook moved by its own loss.

    loss = |sg[z] - e|^2 + beta |z - sg[e]|^2, both as means over tokens and dimensions
    (van den Oord et al. 2017, arXiv:1711.00937, eq. 3).

    Args:
        codebook_size: K.
        dim: D.
        commitment_weight: beta, on the commitment term |z - sg[e]|^2.
        legacy: Put beta on the codebook term instead, the order that taming-transformers trains with by default.
    """

    def __init__(self, codebook_size: int, dim: int, *, commitment_weight: float = 0.25, legacy: bool = False):
        super().__init__(codebook_size, dim)
        self.commitment_weight = commitment_weight
        self.legacy = legacy
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
        if self.legacy:
            return self.commitment_weight * losses["codebook"] + losses["commitment"]
        return losses["codebook"] + self.commitment_weight * losses["commitment"]

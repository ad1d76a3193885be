"""The straight-through quantizer with an entropy penalty, as in MaskGIT."""

import math

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from .chunks import map_chunks
from .standard import StandardQuantizer, StandardSettings


class EntropySettings(StandardSettings):
    """The settings of ``EntropyQuantizer``."""

    temperature: PositiveFloat = 0.01
    """T of the soft assignment."""
    entropy_weight: NonNegativeFloat = 0.1
    """Weight of the mean entropy of the assignments of single tokens."""
    kl_weight: NonNegativeFloat = 0.1
    """Weight of the KL divergence of the batch's mean assignment from the uniform one."""


class EntropyQuantizer(StandardQuantizer):
    """Standard quantizer that is asked for sure assignments and an evenly used book.

    With p(k|z) = softmax_k(-|z - e_k|^2 / T), the loss of the standard quantizer gains

        entropy_weight E_z[H(p(.|z))] + kl_weight (KL(E_z[p(.|z)] || uniform) - ln K)

    The second bracket is -H(E_z[p]), so that equal weights give MaskGIT's ratio * (E H(p) - H(E p))
    (Chang et al. 2022, arXiv:2202.04200, in its published code; Yu et al. 2023, arXiv:2310.05737, sec. 3.2).
    """

    settings_type = EntropySettings
    settings: EntropySettings  # pyright: ignore[reportIncompatibleVariableOverride]

    def losses(self, tokens: Tensor, codes: Tensor) -> dict[str, Tensor]:
        parts = map_chunks(self._soft_assignment, tokens, self.codebook_size)
        mean_entropy = torch.stack([entropy for entropy, _ in parts]).sum() / len(tokens)
        mean_p = torch.stack([p for _, p in parts]).sum(0) / len(tokens)
        # Of a code so far away that its p underflows to 0 the gradient is 0, where that of p ln p would be NaN.
        smallest = torch.finfo(mean_p.dtype).tiny
        kl = math.log(self.codebook_size) - torch.special.entr(mean_p.clamp(min=smallest)).sum()
        return {**super().losses(tokens, codes), "entropy": mean_entropy, "kl": kl}

    def _soft_assignment(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Summed entropy () and summed probabilities (K,) of the soft assignment of (n, D) tokens."""
        half_norms = self.codebook.square().sum(1) / 2
        # |z|^2 is the same for every code and falls out of the softmax.
        logits = torch.addmm(half_norms, tokens, self.codebook.t(), beta=-1) * (2 / self.settings.temperature)
        log_p = F.log_softmax(logits, dim=1)
        p = log_p.exp()
        return -(p * log_p).sum(), p.sum(0)

    def weighted(self, losses: dict[str, Tensor]) -> Tensor:
        return (
            super().weighted(losses)
            + self.settings.entropy_weight * losses["entropy"]
            + self.settings.kl_weight * (losses["kl"] - math.log(self.codebook_size))
        )

"""The straight-through quantizer with an entropy penalty, as in MaskGIT."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from .chunks import fits, log_softmax_and_softmax, slices
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

    def losses(self, tokens: Tensor, codes: Tensor, codebook: Tensor) -> dict[str, Tensor]:
        if fits(tokens, self.codebook_size):
            entropy, p = self._soft_assignment(tokens, codebook)
        else:
            entropy, p = _SoftAssignments.apply(tokens, codebook, 2 / self.settings.temperature)
        mean_entropy, mean_p = entropy / len(tokens), p / len(tokens)
        # Of a code so far away that its p underflows to 0 the gradient is 0, where that of p ln p would be NaN.
        smallest = torch.finfo(mean_p.dtype).tiny
        kl = math.log(self.codebook_size) - torch.special.entr(mean_p.clamp(min=smallest)).sum()
        return {**super().losses(tokens, codes, codebook), "entropy": mean_entropy, "kl": kl}

    def _soft_assignment(self, tokens: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
        """Summed entropy () and summed probabilities (K,) of the soft assignment of (n, D) tokens."""
        half_norms = codebook.square().sum(1) / 2
        # |z|^2 is the same for every code and falls out of the softmax.
        logits = torch.addmm(half_norms, tokens, codebook.t(), beta=-1) * (2 / self.settings.temperature)
        log_p = F.log_softmax(logits, dim=1)
        p = log_p.exp()
        return -(p * log_p).sum(), p.sum(0)

    def weighted(self, losses: dict[str, Tensor]) -> Tensor:
        return (
            super().weighted(losses)
            + self.settings.entropy_weight * losses["entropy"]
            + self.settings.kl_weight * (losses["kl"] - math.log(self.codebook_size))
        )


class _SoftAssignments(Function):
    """``_soft_assignment`` slice by slice, for more tokens than fit, and its gradient from one more pass.

    With G = d loss / d H(p) of a token, g_k = d loss / d sum p_k and logits l,
    d loss / d l_k = p_k (g_k - sum_j p_j g_j - G (ln p_k + H(p))).
    """

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, codebook: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(tokens, codebook)
        ctx.scale = scale
        half_norms = codebook.square().sum(1) / 2
        parts = []
        for rows, (logits, log_p, p) in slices(tokens, len(codebook), 3):
            torch.addmm(half_norms, tokens[rows], codebook.t(), beta=-1, out=logits).mul_(scale)
            log_softmax_and_softmax(logits, log_p, p)
            parts.append((-torch.mul(p, log_p, out=logits).sum(), p.sum(0)))
        entropies, sums = zip(*parts, strict=True)
        return torch.stack(entropies).sum(), torch.stack(sums).sum(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_entropy: Tensor, by_p: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        tokens, codebook = ctx.saved_tensors
        half_norms = codebook.square().sum(1) / 2
        by_tokens, by_codebook, pull = torch.empty_like(tokens), torch.zeros_like(codebook), torch.zeros_like(by_p)
        with torch.autocast(tokens.device.type, enabled=False):
            for rows, (logits, log_p, p) in slices(tokens, len(codebook), 3):
                torch.addmm(half_norms, tokens[rows], codebook.t(), beta=-1, out=logits).mul_(ctx.scale)
                log_softmax_and_softmax(logits, log_p, p)
                minus_entropy = torch.mul(p, log_p, out=logits).sum(1, keepdim=True)
                by_logits = log_p.sub_(minus_entropy).mul_(-by_entropy).add_(by_p).sub_((p @ by_p).unsqueeze(1))
                by_logits.mul_(p).mul_(ctx.scale)
                by_tokens[rows] = by_logits @ codebook
                by_codebook.addmm_(by_logits.t(), tokens[rows])
                pull += by_logits.sum(0)
        return by_tokens, by_codebook.addcmul_(pull.unsqueeze(1), codebook, value=-1), None

"""The quantizer that samples its codes: Gumbel-softmax."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from ..config.base import Settings
from .base import LearnedQuantizer, QuantizerOutput, to_map, to_tokens
from .chunks import map_chunks
from .search import nearest_codes


class GumbelSettings(Settings):
    """The settings of ``GumbelQuantizer``; the steps are optimizer steps."""

    straight_through: bool = True
    """Pass the one-hot sample forward and the gradient of the soft one backward; else the soft one."""
    temperature_start: PositiveFloat = 1.0
    """tau at the first step."""
    temperature_end: PositiveFloat = 1 / 16
    """tau from ``temperature_steps`` on; a half cosine in between."""
    temperature_steps: PositiveInt = 10_000
    """Length of the temperature schedule."""
    kl_weight: NonNegativeFloat = 5e-4
    """Weight of the KL term after its warm-up."""
    kl_warmup_steps: NonNegativeInt = 0
    """Steps over which the KL weight rises linearly from zero."""


class GumbelQuantizer(LearnedQuantizer):
    """Logits over the codes by a 1x1 convolution, a Gumbel-softmax sample in training, the largest logit in evaluation.

    q = softmax((l + g) / tau) E with Gumbel noise g (Jang et al. 2017, arXiv:1611.01144; Maddison et al. 2017,
    arXiv:1611.00712), regularised by the KL divergence of each token's posterior from the uniform one,
    loss = kl_weight mean_tokens sum_k p_k ln(p_k K) (Ramesh et al. 2021, arXiv:2102.12092). It has the parameters of
    taming-transformers' ``GumbelQuantize`` and no K x K projection. The latents are D-dimensional logit features: a
    distance between them and the codes, such as the record's distortion, does not decide the assignment here.

    Temperature and KL weight follow schedules of the number of optimizer steps, which is part of the state.
    """

    settings_type = GumbelSettings
    by_distance = False
    settings: GumbelSettings
    updates: Tensor

    def __init__(self, codebook_size: int, dim: int, **settings: Any):
        super().__init__(codebook_size, dim, **settings)
        self.proj = nn.Conv2d(dim, codebook_size, 1)
        self.embed = nn.Embedding(codebook_size, dim)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    @property
    def codebook(self) -> Tensor:
        return self.embed.weight

    @property
    def temperature(self) -> Tensor:
        """() tau now, on the device: reading it does not wait for the device."""
        progress = (self.updates / self.settings.temperature_steps).clamp(max=1.0)
        return self.settings.temperature_end + (self.settings.temperature_start - self.settings.temperature_end) * (
            (1 + torch.cos(math.pi * progress)) / 2
        )

    @property
    def kl_weight(self) -> Tensor:
        """() weight of the KL term now, on the device."""
        if self.settings.kl_warmup_steps == 0:
            return torch.full((), self.settings.kl_weight, device=self.updates.device)
        return self.settings.kl_weight * (self.updates / self.settings.kl_warmup_steps).clamp(max=1.0)

    @property
    def bias(self) -> Tensor:
        """(K,) constant part of the logits."""
        assert self.proj.bias is not None
        return self.proj.bias

    def logits(self, tokens: Tensor) -> Tensor:
        """(n, D) tokens -> (n, K) logits."""
        return F.linear(tokens, self.proj.weight.flatten(1), self.bias)

    def forward(self, latents: Tensor) -> QuantizerOutput:
        with torch.autocast(latents.device.type, enabled=False):
            tokens = to_tokens(latents.float())
            parts = map_chunks(self._sample if self.training else self._choose, tokens, self.codebook_size)
            quantized, indices, kl_sums = (torch.cat(list(column)) for column in zip(*parts, strict=True))
            kl = kl_sums.sum() / len(tokens)
        B, _, H, W = latents.shape
        return QuantizerOutput(to_map(quantized, latents.shape), indices.view(B, H, W), self.kl_weight * kl, {"kl": kl})

    def _sample(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = self.logits(tokens)
        sample = F.gumbel_softmax(logits, self.temperature, hard=self.settings.straight_through)  # type: ignore[arg-type]
        return sample @ self.codebook, sample.argmax(1), self._kl(logits)

    def _choose(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = self.logits(tokens)
        indices = logits.argmax(1)
        return F.embedding(indices, self.codebook), indices, self._kl(logits)

    def _kl(self, logits: Tensor) -> Tensor:
        """(1,) sum over tokens of KL(p || uniform) = ln K - H(p)."""
        log_p = F.log_softmax(logits, dim=1)
        return (log_p.exp() * (log_p + math.log(self.codebook_size))).sum().view(1)

    @torch.no_grad()
    def end_step(self) -> None:
        """Move the schedules on by one optimizer step."""
        self.updates += 1

    @torch.no_grad()
    def overwrite(self, codes: Tensor, vectors: Tensor) -> None:
        """Put ``vectors`` (R, D) in the place of ``codes`` (R,), each with the logit row of its nearest other code.

        A code is chosen by its row of the projection, not by its place: with the row of a dead code it would stay dead.
        """
        others = torch.ones(self.codebook_size, dtype=torch.bool, device=codes.device)
        others[codes] = False
        others = others.nonzero().squeeze(1)
        if len(others):
            donors = others[nearest_codes(vectors.float(), self.codebook[others])]
            self.proj.weight[codes] = self.proj.weight[donors]
            self.bias[codes] = self.bias[donors]
        super().overwrite(codes, vectors)

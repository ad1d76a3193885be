"""The quantizer that samples its codes: Gumbel-softmax."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.autograd.function import Function, once_differentiable

from ..config.base import Settings
from .base import LearnedQuantizer, QuantizerOutput, output_dtype, to_map, to_tokens, working_dtype
from .chunks import fits, log_softmax_and_softmax, slices
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
        return F.linear(tokens, self.proj.weight.flatten(1).to(tokens.dtype), self.bias.to(tokens.dtype))

    def forward(self, latents: Tensor) -> QuantizerOutput:
        with torch.autocast(latents.device.type, enabled=False):
            tokens = to_tokens(latents.to(working_dtype(latents, self.codebook)))
            quantized, indices, kl_sum = self._assign(tokens)
            quantized = quantized.to(output_dtype(latents, self.codebook))
            kl = kl_sum / len(tokens)
        B, _, H, W = latents.shape
        return QuantizerOutput(to_map(quantized, latents.shape), indices.view(B, H, W), self.kl_weight * kl, {"kl": kl})

    def _assign(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Codes (N, D), indices (N,) and summed KL divergence () of (N, D) tokens."""
        if fits(tokens, self.codebook_size):
            return self._sample(tokens) if self.training else self._choose(tokens)
        weights = (each.to(tokens.dtype) for each in (self.proj.weight.flatten(1), self.bias, self.codebook))
        temperature = self.temperature if self.training else None
        return _Assignments.apply(tokens, *weights, temperature, self.settings.straight_through)

    def _sample(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = self.logits(tokens)
        sample = F.gumbel_softmax(logits, self.temperature, hard=self.settings.straight_through)  # type: ignore[arg-type]
        return sample @ self.codebook.to(sample.dtype), sample.argmax(1), self._kl(logits)

    def _choose(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = self.logits(tokens)
        indices = logits.argmax(1)
        return F.embedding(indices, self.codebook.to(tokens.dtype)), indices, self._kl(logits)

    def _kl(self, logits: Tensor) -> Tensor:
        """() sum over tokens of KL(p || uniform) = ln K - H(p)."""
        log_p = F.log_softmax(logits, dim=1)
        return (log_p.exp() * (log_p + math.log(self.codebook_size))).sum()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:  # type: ignore[override]
        """Weights need not say how far the schedules have come: those of taming-transformers do not."""
        super()._load_from_state_dict({f"{prefix}updates": self.updates} | state_dict, prefix, *args)

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
            donors = others[nearest_codes(vectors, self.codebook[others])]
            self.proj.weight[codes] = self.proj.weight[donors]
            self.bias[codes] = self.bias[donors]
        super().overwrite(codes, vectors)


class _Assignments(Function):
    """``_sample``, or ``_choose`` without a temperature, slice by slice for more tokens than fit, and its gradient.

    The backward pass draws the noise of the forward pass again. With y = softmax((l + g) / tau), s_k = d loss / d y_k,
    p = softmax(l) and G = d loss / d KL: d loss / d l_k = y_k (s_k - sum_j y_j s_j) / tau + G p_k (ln p_k + H(p)).
    """

    @staticmethod
    def forward(
        ctx: Any,
        tokens: Tensor,
        weight: Tensor,
        bias: Tensor,
        codebook: Tensor,
        temperature: Tensor | None,
        straight_through: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.random_state = _random_state(tokens.device)
        ctx.straight_through = straight_through
        K, quantized, kl_sums = len(codebook), torch.empty_like(tokens), []
        indices = torch.empty(len(tokens), dtype=torch.int64, device=tokens.device)
        for rows, (logits, one, other) in slices(tokens, K, 3):
            torch.addmm(bias, tokens[rows], weight.t(), out=logits)
            if temperature is None:
                torch.argmax(logits, 1, out=indices[rows])
                quantized[rows] = codebook[indices[rows]]
            else:
                top, indices[rows] = _gumbel_softmax(logits, temperature, one, out=other).max(1)
                if straight_through:  # the sample is 1 - y + y there, which is not 1 to the last digit, and 0 elsewhere
                    quantized[rows] = codebook[indices[rows]] * ((1 - top) + top).unsqueeze(1)
                else:
                    quantized[rows] = other @ codebook
            log_softmax_and_softmax(logits, one, logits)
            kl_sums.append(logits.mul_(one.add_(math.log(K))).sum())
        ctx.save_for_backward(tokens, weight, bias, codebook, temperature, indices)
        ctx.mark_non_differentiable(indices)
        return quantized, indices, torch.stack(kl_sums).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_quantized: Tensor, _: Tensor, by_kl: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        tokens, weight, bias, codebook, temperature, indices = ctx.saved_tensors
        by_tokens, by_weight, by_bias = torch.empty_like(tokens), torch.zeros_like(weight), torch.zeros_like(bias)
        by_codebook = torch.zeros_like(codebook)
        if temperature is None or ctx.straight_through:
            by_codebook.index_add_(0, indices, by_quantized)
        with _drawing_again(ctx.random_state, tokens.device), torch.autocast(tokens.device.type, enabled=False):
            for rows, (logits, one, other, by_logits) in slices(tokens, len(codebook), 4):
                torch.addmm(bias, tokens[rows], weight.t(), out=logits)
                if temperature is None:
                    by_logits.zero_()
                else:
                    sample = _gumbel_softmax(logits, temperature, one, out=other)
                    if not ctx.straight_through:
                        by_codebook.addmm_(sample.t(), by_quantized[rows])
                    torch.mm(by_quantized[rows], codebook.t(), out=by_logits)
                    mean = torch.mul(sample, by_logits, out=one).sum(1, keepdim=True)
                    by_logits.sub_(mean).mul_(sample).div_(temperature)
                log_softmax_and_softmax(logits, one, logits)
                minus_entropy = torch.mul(logits, one, out=other).sum(1, keepdim=True)
                by_logits.add_(one.sub_(minus_entropy).mul_(logits).mul_(by_kl))
                by_tokens[rows] = by_logits @ weight
                by_weight.addmm_(by_logits.t(), tokens[rows])
                by_bias += by_logits.sum(0)
        return by_tokens, by_weight, by_bias, by_codebook, None, None


def _gumbel_softmax(logits: Tensor, temperature: Tensor, noise: Tensor, out: Tensor) -> Tensor:
    """The soft ``F.gumbel_softmax`` with the same draws, in the memory of ``noise`` and ``out``."""
    noise.exponential_().log_().neg_().add_(logits).div_(temperature)
    return torch.softmax(noise, 1, out=out)


@contextmanager
def _drawing_again(state: Tensor, device: torch.device) -> Iterator[None]:
    """Draws on ``device`` start from ``state`` inside; after it they go on as if there had been none."""
    now = _random_state(device)
    _set_random_state(state, device)
    try:
        yield
    finally:
        _set_random_state(now, device)


def _random_state(device: torch.device) -> Tensor:
    """State of the generator that draws on ``device`` by default."""
    module, where = _random_module(device)
    return module.get_rng_state(*where)


def _set_random_state(state: Tensor, device: torch.device) -> None:
    module, where = _random_module(device)
    module.set_rng_state(state, *where)


def _random_module(device: torch.device) -> tuple[Any, tuple[torch.device, ...]]:
    """Where torch keeps that generator's state, and what names the device there."""
    if device.type == "cpu":
        return torch, ()
    return torch.get_device_module(device), () if device.type == "mps" else (device,)

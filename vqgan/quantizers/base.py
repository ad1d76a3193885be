"""What every quantizer is: ``Quantizer`` and what its forward hands over, ``QuantizerOutput``."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config.base import Settings
from ..config.layers import validated


class QuantizerOutput(NamedTuple):
    """What a quantizer's forward hands over.

    A NamedTuple, because a full backward hook fires on it; on a dataclass torch only warns.

    Attributes:
        quantized: (B, D, H, W) quantized latents, with a gradient path to the latents.
        indices: (B, H, W) int64 index of the code of each token.
        loss: () weighted sum of the parts, ready to be added to the objective.
        losses: The unweighted parts by name, each (): "codebook", "commitment", "entropy", "kl".
    """

    quantized: Tensor
    indices: Tensor
    loss: Tensor
    losses: dict[str, Tensor]


def to_tokens(latents: Tensor) -> Tensor:
    """(B, D, H, W) -> (B H W, D), contiguous, row-major as in taming-transformers."""
    return latents.permute(0, 2, 3, 1).reshape(-1, latents.shape[1])


def to_map(tokens: Tensor, shape: torch.Size) -> Tensor:
    """(B H W, D) -> (B, D, H, W) of the given ``shape``, the inverse of ``to_tokens``."""
    B, D, H, W = shape
    return tokens.view(B, H, W, D).permute(0, 3, 1, 2)


def straight_through(quantized: Tensor, latents: Tensor) -> Tensor:
    """``quantized`` in the forward pass, the identity on ``latents`` in the backward pass.

    Bengio et al. 2013, arXiv:1308.3432; van den Oord et al. 2017, arXiv:1711.00937, sec. 3.2.
    """
    return latents + (quantized - latents).detach()


def output_dtype(latents: Tensor, codebook: Tensor) -> torch.dtype:
    """What the two promote to.

    It is that of the module where latents and module are of one dtype, so that the decoder goes on in it, and float32
    for the half-precision latents that autocast hands to a float32 module.
    """
    return torch.promote_types(latents.dtype, codebook.dtype)


def working_dtype(latents: Tensor, codebook: Tensor) -> torch.dtype:
    """Float64 where one of the two is, else float32."""
    return torch.promote_types(output_dtype(latents, codebook), torch.float32)


class Quantizer(nn.Module, ABC):
    """A codebook of ``codebook_size`` vectors of ``dim`` and a rule that assigns one to each token.

    Subclasses give ``settings_type``, ``codebook`` and ``forward``. One whose codes are learned is a
    ``LearnedQuantizer``.

    Args:
        codebook_size: K.
        dim: D.
        **settings: The fields of ``settings_type``.

    Attributes:
        settings_type: What can be set of it, with defaults and bounds.
        by_distance: Whether a token gets its nearest code, so that k-means of the latents makes good first codes.

    Raises:
        InputError: There is no such setting, or a value is out of range.
    """

    settings_type: ClassVar[type[Settings]]
    by_distance: ClassVar[bool] = True

    def __init__(self, codebook_size: int, dim: int, **settings: Any):
        super().__init__()
        self.codebook_size = codebook_size
        self.dim = dim
        self.settings = validated(self.settings_type, settings)

    @classmethod
    def check_size(cls, codebook_size: int, dim: int, settings: Settings) -> None:
        """Refuse a K or a D that these settings cannot have; here any will do.

        Raises:
            InputError: See there.
        """

    @property
    @abstractmethod
    def codebook(self) -> Tensor:
        """(K, D) the codes as the decoder gets them."""

    @abstractmethod
    def forward(self, latents: Tensor) -> QuantizerOutput:
        """Quantize (B, D, H, W) latents, whatever the autocast.

        The arithmetic and the losses are in ``working_dtype``, float32 or better; the quantized latents come back in
        ``output_dtype``.
        """

    def lookup(self, indices: Tensor) -> Tensor:
        """(B, H, W) indices -> (B, D, H, W) codes."""
        return F.embedding(indices, self.codebook).permute(0, 3, 1, 2)

    def end_step(self) -> None:
        """What the quantizer does once per optimizer step, after it: moving averages, schedules. Here nothing."""

    def extra_repr(self) -> str:
        return f"codebook_size={self.codebook_size}, dim={self.dim}"


class LearnedQuantizer(Quantizer):
    """A quantizer whose codes can be rewritten: by a remedy, by k-means.

    Row k of every parameter whose first axis is ``codebook_size`` belongs to code k: a remedy that rewrites codes
    relies on it to clear the optimizer's moments.
    """

    @torch.no_grad()
    def overwrite(self, codes: Tensor, vectors: Tensor) -> None:
        """Put ``vectors`` (R, D) in the place of ``codes`` (R,), with all state that follows from them."""
        self.codebook[codes] = vectors.to(self.codebook.dtype)

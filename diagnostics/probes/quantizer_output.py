"""Quantizers that hand over named ``indices`` and have a ``codebook``: vqtool's own, and any built the same way."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from .base import CodebookReading


class QuantizerOutputProbe:
    """Reads modules of (B, D, H, W) latents with ``codebook`` (K, D) and an output with the field ``indices``."""

    def matches(self, module: nn.Module) -> bool:
        return all(hasattr(type(module), name) for name in ("codebook", "lookup"))

    def site(self, module: nn.Module) -> nn.Module:
        return module

    def read(self, site: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> CodebookReading:
        latents = args[0].detach().float()
        indices = output.indices.flatten()
        tokens = latents.permute(0, 2, 3, 1).reshape(-1, latents.shape[1])
        return CodebookReading(indices, tokens, F.embedding(indices, self.codebook(site)))

    def codebook(self, module: nn.Module) -> Tensor:
        codes = module.codebook
        assert isinstance(codes, Tensor)
        return codes.detach()

    def gradient(self, module: nn.Module) -> Tensor | None:
        codes = module.codebook
        assert isinstance(codes, Tensor)
        return codes.grad if codes.is_leaf else None

"""Quantizers that hand over named ``indices`` and have a ``codebook``: vqtool's own, and any built the same way."""

import torch.nn.functional as F
from torch import Tensor, nn

from .base import Call, CodebookReading, Live, Tap, WatchedCodebook


class QuantizerOutputProbe:
    """Reads modules of (B, D, H, W) latents with ``codebook`` (K, D) and an output with the field ``indices``."""

    reads = "modules with `codebook` (K, D) and `lookup`, whose output names `quantized` and `indices`"

    def matches(self, module: nn.Module) -> bool:
        return all(hasattr(type(module), name) for name in ("codebook", "lookup"))

    def codebooks(self, module: nn.Module) -> dict[str, WatchedCodebook]:
        return {"": OutputCodebook(module)}


class OutputCodebook(WatchedCodebook):
    """The codebook of such a module."""

    def __init__(self, module: nn.Module):
        self.module = module
        self.taps = (Tap(module),)
        self.size = len(self._table())

    def _table(self) -> Tensor:
        table = self.module.codebook
        assert isinstance(table, Tensor)
        return table

    def read(self, tap: int, call: Call) -> CodebookReading:
        latents, indices = call.first, call.output.indices.flatten()
        codes = F.embedding(indices, self._table().detach())
        leaving = Live(call.output.quantized, _tokens)
        return CodebookReading(indices, _tokens(latents.detach()), codes, None, Live(latents, _tokens), leaving)

    def codes(self) -> Tensor:
        return self._table().detach()

    def parameters(self) -> list[Tensor]:
        table = self._table()
        return [table] if isinstance(table, nn.Parameter) else []

    def gradient(self) -> Tensor | None:
        table = self._table()
        return table.grad if table.is_leaf else None


def _tokens(images: Tensor) -> Tensor:
    """(N, D) of (B, D, H, W)."""
    return images.permute(0, 2, 3, 1).reshape(-1, images.shape[1])

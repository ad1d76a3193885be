"""``vector_quantize_pytorch.VectorQuantize``, by its own codebook module."""

from typing import Any

from torch import Tensor, nn

from .base import CodebookReading


class VectorQuantizeProbe:
    """Reads the inner codebook, where latents are projected, split into heads and, for cosine codes, normalised.

    Heads that share the codebook are counted together. Separate codebooks per head are not recognised.
    """

    def matches(self, module: nn.Module) -> bool:
        kind = type(module)
        known = kind.__name__ == "VectorQuantize" and kind.__module__.partition(".")[0] == "vector_quantize_pytorch"
        return known and not module.separate_codebook_per_head

    def site(self, module: nn.Module) -> nn.Module:
        return module.get_submodule("_codebook")

    def read(
        self, site: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> CodebookReading | None:
        # An in-place codebook optimizer quantizes every batch twice; only the first pass counts for the library too.
        if kwargs.get("update_usage") is False or kwargs.get("topk") is not None:
            return None
        codes, indices = output[:2]
        latents = args[0].detach().float()
        D = latents.shape[-1]
        mask = kwargs.get("mask")
        if mask is not None:
            heads = indices.numel() // mask.numel()
            mask = mask.repeat_interleave(heads, 0).flatten()
        return CodebookReading(indices.flatten(), latents.reshape(-1, D), codes.detach().float().reshape(-1, D), mask)

    def codebook(self, module: nn.Module) -> Tensor:
        return self._embed(module).detach()[0]

    def gradient(self, module: nn.Module) -> Tensor | None:
        gradient = self._embed(module).grad
        return None if gradient is None else gradient[0]

    def _embed(self, module: nn.Module) -> Tensor:
        embed = self.site(module).embed
        assert isinstance(embed, Tensor)
        return embed

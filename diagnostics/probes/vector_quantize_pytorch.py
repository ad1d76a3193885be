"""``vector_quantize_pytorch.VectorQuantize``, by its own codebook module."""

from torch import Tensor, nn

from .base import Call, CodebookReading, Tap, WatchedCodebook


class VectorQuantizeProbe:
    """Reads the inner codebook, where latents are projected, split into heads and, for cosine codes, normalised.

    Heads that share the codebook are counted together. Separate codebooks per head are not recognised.
    """

    reads = "lucidrains' `VectorQuantize`"

    def matches(self, module: nn.Module) -> bool:
        kind = type(module)
        known = kind.__name__ == "VectorQuantize" and kind.__module__.partition(".")[0] == "vector_quantize_pytorch"
        return known and not module.separate_codebook_per_head

    def codebooks(self, module: nn.Module) -> dict[str, WatchedCodebook]:
        return {"": InnerCodebook(module)}


class InnerCodebook(WatchedCodebook):
    """The codebook inside such a module."""

    def __init__(self, module: nn.Module):
        self.module = module
        self._inner = module.get_submodule("_codebook")
        self.taps = (Tap(self._inner),)
        self.size = self._embed().shape[1]

    def read(self, tap: int, call: Call) -> CodebookReading | None:
        # An in-place codebook optimizer quantizes every batch twice; only the first pass counts for the library too.
        if call.kwargs.get("update_usage") is False or call.kwargs.get("topk") is not None:
            return None
        codes, indices = call.output[:2]
        latents = call.first.detach().float()
        D = latents.shape[-1]
        mask = call.kwargs.get("mask")
        if mask is not None:
            heads = indices.numel() // mask.numel()
            mask = mask.repeat_interleave(heads, 0).flatten()
        return CodebookReading(indices.flatten(), latents.reshape(-1, D), codes.detach().float().reshape(-1, D), mask)

    def codes(self) -> Tensor:
        return self._embed().detach()[0]

    def parameters(self) -> list[Tensor]:
        embed = self._embed()
        return [embed] if isinstance(embed, nn.Parameter) else []

    def gradient(self) -> Tensor | None:
        gradient = self._embed().grad
        return None if gradient is None else gradient[0]

    def _embed(self) -> Tensor:
        embed = self._inner.embed
        assert isinstance(embed, Tensor)
        return embed

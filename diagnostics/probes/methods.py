"""Codebooks without a forward, which are called by their methods: those of Hugging Face's audio codecs."""

from torch import Tensor, nn

from ..errors import InputError
from .attributes import child_named, has_method, is_total, statistics, tensor, tensors
from .base import Call, CodebookReading, Tap, WatchedCodebook
from .round_trip import check_indices, precision, rows, share_of_nearest

_METHODS = ("quantize", "encode")


class MethodsProbe:
    """Reads a codebook that keeps statistics by its method ``quantize`` or ``encode``; there are no gradients."""

    reads = "codebooks without a forward, by `quantize`: transformers' EnCodec, Mimi, X-Codec, Higgs Audio V2"

    def matches(self, module: nn.Module) -> bool:
        return _codebook_of(module) is not None

    def codebooks(self, module: nn.Module) -> dict[str, WatchedCodebook]:
        codebook = _codebook_of(module)
        assert codebook is not None
        method = next((name for name in _METHODS if has_method(codebook, name)), None)
        if method is None:
            raise InputError("its codebook has no forward, no quantize and no encode; pass a Reader")
        return {"": MethodCodebook(module, codebook, method)}


def _codebook_of(module: nn.Module) -> nn.Module | None:
    """The codebook that is such a module, or a child of it by that name."""
    for codebook in (module, child_named(module, "_codebook", "codebook")):
        if codebook is not None and not has_method(codebook, "forward") and statistics(codebook):
            return codebook
    return None


class MethodCodebook(WatchedCodebook):
    """A table (K, D), or its sums and counts, and the calls of its method.

    Args:
        module: The quantizer.
        codebook: Whose method it is, the quantizer itself or a child of it.
        method: From latents (..., D) to indices (...).
    """

    def __init__(self, module: nn.Module, codebook: nn.Module, method: str):
        self.module, self.taps = module, (Tap(codebook, method),)
        self._codebook = codebook
        names = statistics(codebook)
        assert names is not None
        self._table_name, self._counts_name = names
        self.size = len(tensor(codebook, self._counts_name))
        self._settled = False

    def read(self, tap: int, call: Call) -> CodebookReading:
        latents, table = rows(call.first.detach()).float(), self.codes().float()
        if not self._settled:
            self._check(call, latents, table)
            self._settled = True
        indices = call.output.flatten().long()
        return CodebookReading(indices, latents, table[indices])

    def _check(self, call: Call, latents: Tensor, table: Tensor) -> None:
        kind, indices = type(self._codebook).__name__, call.output
        check_indices(indices, len(latents), self.size, kind)
        eps = max(precision(call.first), precision(self.codes()))
        if share_of_nearest(latents[:1024], indices.flatten()[:1024].long(), table, eps) < 0.99:
            raise InputError(
                f"{kind}.{self.taps[0].method} did not return the nearest codes of its table; pass a Reader"
            )

    def codes(self) -> Tensor:
        table = tensor(self._codebook, self._table_name).detach()
        if not is_total(self._table_name):
            return table
        # What the codebook keeps of its own division is what it decodes with, even when the sums have moved since.
        kept = tensors(self._codebook).get("_embed")
        counts = tensor(self._codebook, self._counts_name).detach()
        epsilon = float(vars(self._codebook).get("epsilon", 1e-5))
        return table / counts.clamp(min=epsilon).unsqueeze(-1) if kept is None else kept.detach()

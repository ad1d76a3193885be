"""Quantizers around an inner codebook with statistics of its own and a forward: lucidrains', EnCodec's, Moshi's."""

from collections.abc import Callable

from torch import Tensor, nn

from ..errors import InputError
from .attributes import child_named, has_method, is_total, statistics, tensor, tensors
from .base import Call, CodebookReading, Tap, WatchedCodebook
from .effective import affine, applied
from .round_trip import check_finite, check_indices, is_index, leaves, precision, rows, spread, tolerance
from .staged import Boundary, Stage, StagedCodebook, live, parameters_of


class InnerCodebookProbe:
    """Reads what the inner codebook hands over, for it moves its codes before it returns.

    Heads that share one table are counted together; heads with a table each are a codebook each.
    """

    reads = (
        "an inner `_codebook` of moving averages: lucidrains' `VectorQuantize` (EMA, learnable, cosine, heads, masks, "
        "affine, bridge, top k) and all that is built of it; `encodec`, audiocraft, Moshi"
    )

    def matches(self, module: nn.Module) -> bool:
        return inner_of(module) is not None

    def codebooks(self, module: nn.Module) -> dict[str, WatchedCodebook]:
        return inner_codebooks(module, InnerCodebook)


def inner_of(module: nn.Module) -> nn.Module | None:
    """The inner codebook of such a quantizer."""
    inner = child_named(module, "_codebook", "codebook")
    return (
        inner
        if inner is not None and has_method(inner, "forward") and statistics(inner) and not _is_table(inner)
        else None
    )


def _is_table(inner: nn.Module) -> bool:
    return "weight" in tensors(inner)


def inner_codebooks(module: nn.Module, kind: type["InnerCodebook"]) -> dict[str, WatchedCodebook]:
    """The codebooks of such a quantizer by the rest of their path, each of the given kind."""
    inner = inner_of(module)
    assert inner is not None
    names = statistics(inner)
    assert names is not None
    table = tensor(inner, names[0])
    heads = len(table) if table.ndim == 3 else 1
    if heads == 1:
        return {"": kind(module, inner, 0)}
    return {f"head{head}": kind(module, inner, head) for head in range(heads)}


class InnerCodebook(StagedCodebook):
    """One table of an inner codebook.

    Args:
        module: The quantizer around it.
        inner: The inner codebook. It may be the same object in several quantizers.
        head: Which of its tables.
    """

    def __init__(self, module: nn.Module, inner: nn.Module, head: int):
        self.module, self._boundary = module, Boundary(module)
        self._inner, self._head = inner, head
        names = statistics(inner)
        assert names is not None
        self._table_name, self._counts_name = names
        self.size = tensor(inner, names[1]).shape[-1]
        self._heads = tensor(inner, names[1]).shape[0] if tensor(inner, names[1]).ndim == 2 else 1
        self._settled = False
        self._call: Call | None = None
        stages: list[Stage] = [(Tap(inner), self._quantized)]
        if has_method(inner, "encode") and self._boundary.has_entry:
            # Whoever encodes alone calls no forward; a forward that encodes is told from it by the entry, taken once.
            stages.append((Tap(inner, "encode"), self._encoded))
        super().__init__(module, [*self._boundary.stages(), *stages, (Tap(module), self._returned)])

    def _quantized(self, call: Call) -> None:
        # A shared inner codebook is called by other quantizers too. The last call of a forward is what it hands over:
        # an optimizer in place quantizes once to move the codes, and again with what they became.
        if self._boundary.is_open:
            self._call = call._replace(output=self._handed_over(call))  # not the distances, which are far larger

    def _encoded(self, call: Call) -> CodebookReading | None:
        if not self._boundary.is_open:
            return None
        self._boundary.take()
        latents = rows(call.first.detach()).float()
        indices = call.output.flatten().long()
        if not self._settled:
            self._check(indices, latents, latents)
            self._settled = True
        return CodebookReading(indices, latents, self._table().detach()[indices].float())

    def _returned(self, call: Call) -> CodebookReading | None:
        inner, self._call = self._call, None
        _, left = self._boundary.take()
        return None if inner is None else self._reading(inner, left)

    def _reading(self, call: Call, left: Tensor | None) -> CodebookReading:
        latents, (codes, indices) = call.first, self._handed_over(call)
        z, codes = (self._of_head(each.detach()).float() for each in (latents, codes))
        indices = (indices[self._head] if self._heads > 1 else indices).flatten().long()
        ends = live(latents, self._of_head), live(left, self._of_head_after(latents.shape[-1]))
        repeated = len(indices) // max(len(z), 1)
        if repeated > 1:  # top k: a token has k codes, and no end in their order
            z, ends = z.repeat_interleave(repeated, 0), (None, None)
        if not self._settled:
            self._check(indices, z, codes)
            self._settled = True
        return CodebookReading(indices, z, codes, self._mask(call, len(indices)), *ends)

    def _of_head(self, tensor: Tensor) -> Tensor:
        """(N, D) of what the inner codebook is given and returns: (..., D), or (heads, ..., D) where they are apart."""
        return rows(tensor[self._head] if self._heads > 1 else tensor)

    def _of_head_after(self, D: int) -> Callable[[Tensor], Tensor]:
        """From (B, N, heads D), where a projection out begins, to (N, D) in the order of ``_of_head``."""

        def to_tokens(tensor: Tensor) -> Tensor:
            heads = tensor.unflatten(-1, (-1, D))
            return rows(heads[..., self._head, :] if self._heads > 1 else heads.movedim(-2, 1))

        return to_tokens

    def _handed_over(self, call: Call) -> tuple[Tensor, Tensor]:
        """The codes and the indices in what the inner codebook returned."""
        found = [leaf for _, leaf in leaves(call.output)]
        codes = next((leaf for leaf in found if leaf.is_floating_point() and leaf.ndim > 1), None)
        indices = next((leaf for leaf in found if is_index(leaf)), None)
        if codes is None or indices is None:
            raise InputError(
                f"{self._kind}: its codebook returned no pair of codes and indices; pass a Reader for this module"
            )
        return codes, indices

    def _mask(self, call: Call, tokens: int) -> Tensor | None:
        mask = call.kwargs.get("mask")
        if mask is None:
            return None
        copies = tokens // mask.numel()
        if call.kwargs.get("topk") is not None:
            return mask.flatten().repeat_interleave(copies)
        return mask.repeat_interleave(copies, 0).flatten()

    def _check(self, indices: Tensor, latents: Tensor, codes: Tensor) -> None:
        check_indices(indices, len(latents), self.size, self._kind)
        check_finite(self._kind, latents=latents, codes=codes)
        D = self._table().shape[-1]
        if codes.shape[-1] != D:
            raise InputError(f"{self._kind}: codes of {codes.shape[-1]} dimensions, a table of {D}; pass a Reader")
        apart = spread(codes, indices) if codes is not latents else None
        if apart is not None and not apart <= tolerance(codes, latents, precision(latents)):
            raise InputError(f"{self._kind}: its codes differ from token to token under one index; pass a Reader")

    @property
    def _kind(self) -> str:
        return type(self.module).__name__

    def _table(self) -> Tensor:
        """(K, D) the vectors that are kept, with their gradient; sums are divided by the counts."""
        table = tensor(self._inner, self._table_name)
        if is_total(self._table_name):
            counts = tensor(self._inner, self._counts_name)
            table = table / counts.clamp(min=float(vars(self._inner).get("epsilon", 1e-5))).unsqueeze(-1)
        return table[self._head] if table.ndim == 3 else table

    def codes(self) -> Tensor | None:
        if not self._is_transformed:
            return self._table().detach()
        table = tensor(self._inner, self._table_name).detach()
        if self._bridge is not None:
            table = applied(self._bridge, table)
        return (affine(self._inner, table) if self._is_affine else table)[self._head]

    @property
    def _bridge(self) -> nn.Module | None:
        return child_named(self._inner, "vq_bridge")

    @property
    def _is_affine(self) -> bool:
        return "codebook_variance" in tensors(self._inner)

    @property
    def _is_transformed(self) -> bool:
        return self._is_affine or self._bridge is not None

    @property
    def computed(self) -> bool:
        return self._is_transformed

    def parameters(self) -> list[Tensor]:
        return parameters_of(tensor(self._inner, self._table_name), self._bridge)

    def gradient(self) -> Tensor | None:
        if self._is_transformed:
            return None
        gradient = tensor(self._inner, self._table_name).grad
        return gradient[self._head] if gradient is not None and gradient.ndim == 3 else gradient

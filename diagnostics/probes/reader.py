"""Quantizers that no probe knows, read by small functions of the user's."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from .attributes import has_method
from .base import Call, CodebookReading, Live, Tap, WatchedCodebook
from .round_trip import check_indices, leaves, mismatch, precision, rows, tolerance
from .staged import live, parameters_of


@dataclass(frozen=True)
class Reader:
    """How a quantizer of your own is read.

        Reader(
            latents=lambda call: call.args[0].permute(0, 2, 3, 1),
            indices=lambda call: call.output["ids"],
            codebook=lambda module: module.table.weight,
        )

    Each function is called once for each call of the method, without gradients, and should copy nothing: at a copy of
    the latents or of the quantized output no gradient can be read. What they give is checked at the first call.

    Attributes:
        latents: The call -> (..., D) what was quantized, in the space of the codes.
        indices: The call -> (...) integers, one for each of the latents, negative for a token that was dropped.
        codebook: The module -> (K, D) its codes as the decoder sees them.
        quantized: The call -> (..., D) the codes as the call used them, by which the indices and the
            codebook are verified; by default they are looked up, and nothing verifies them.
        method: The method that quantizes.
    """

    latents: Callable[[Call], Tensor]
    indices: Callable[[Call], Tensor]
    codebook: Callable[[nn.Module], Tensor]
    quantized: Callable[[Call], Tensor] | None = None
    method: str = "forward"


class ReaderCodebook(WatchedCodebook):
    """The codebook of a module that a ``Reader`` reads.

    Raises:
        InputError: The module has no such method, or the codebook is no table.
    """

    def __init__(self, module: nn.Module, reader: Reader):
        kind = type(module).__name__
        if not has_method(module, reader.method):
            raise InputError(f"the Reader names the method {reader.method!r}, which {kind} does not have")
        self.module, self.taps, self._reader = module, (Tap(module, reader.method),), reader
        self._what = f"the Reader of {kind}"
        table = reader.codebook(module)
        if not isinstance(table, Tensor) or table.ndim != 2:
            raise InputError(f"{self._what} gives as codebook {_described(table)}, not a tensor (K, D)")
        self.size = len(table)
        self._settled = False

    def read(self, tap: int, call: Call) -> CodebookReading:
        latents, indices = self._reader.latents(call), self._reader.indices(call)
        quantized = None if self._reader.quantized is None else self._reader.quantized(call)
        if not self._settled:
            self._check(latents, indices, quantized)
            self._settled = True
        z, flat = rows(latents.detach()).float(), indices.flatten().long()
        codes = self.codes().float()[flat.clamp(min=0)] if quantized is None else rows(quantized.detach()).float()
        leaving = None if quantized is None else _end(quantized, call.output)
        return CodebookReading(flat, z, codes, None, _end(latents, (call.args, call.kwargs)), leaving)

    def _check(self, latents: Any, indices: Any, quantized: Any) -> None:
        table = self.codes()
        for name, vectors in (("latents", latents), ("quantized", quantized)):
            if vectors is None and name == "quantized":
                continue
            if not isinstance(vectors, Tensor) or not vectors.is_floating_point() or vectors.ndim < 2:
                raise InputError(f"{self._what} gives as {name} {_described(vectors)}, not floats (..., D)")
            if vectors.shape[-1] != table.shape[1]:
                raise InputError(
                    f"{self._what} gives {name} of {vectors.shape[-1]} channels and codes of {table.shape[1]}; "
                    "the channels come last"
                )
        z = rows(latents.detach()).float()
        check_indices(indices, len(z), self.size, self._what)
        if quantized is None:
            return
        if quantized.numel() != latents.numel():
            raise InputError(
                f"{self._what} gives {quantized.numel()} numbers as quantized and {latents.numel()} as latents"
            )
        flat = indices.flatten().long()
        looked_up = table.float()[flat.clamp(min=0)]
        off = mismatch(rows(quantized.detach()).float(), looked_up, flat)
        if not off <= tolerance(looked_up, z, precision(quantized)):
            raise InputError(
                f"{self._what} gives quantized latents that are not the rows of its codebook at its indices; "
                "check the order of the axes, and whether the codes are scaled or projected before they are used"
            )

    def codes(self) -> Tensor:
        with torch.no_grad():
            return self._reader.codebook(self.module).detach()

    def parameters(self) -> list[Tensor]:
        table = self._reader.codebook(self.module)
        return parameters_of(table) if table.is_leaf else parameters_of(self.module)

    def gradient(self) -> Tensor | None:
        table = self._reader.codebook(self.module)
        return table.grad if table.is_leaf else None


def _end(given: Tensor, held: Any) -> Live | None:
    """Where the gradients of what a function gave are read: at itself, or at the tensor ``held`` that it is a view of.

    A view that a function of the user's makes is no part of the model's graph. None for a copy: where it comes from
    cannot be told.
    """
    storage = given.untyped_storage().data_ptr()
    sharing = [leaf for _, leaf in leaves(held) if leaf.untyped_storage().data_ptr() == storage]
    if any(leaf is given for leaf in sharing) or (not sharing and given.requires_grad):
        return live(given, rows)
    # What is detached shares the memory of what is not: a view requires a gradient where its owner does.
    sharing.sort(key=lambda leaf: leaf.requires_grad != given.requires_grad)
    if not sharing:
        return None
    owner = sharing[0]
    start = int(given.storage_offset() - owner.storage_offset())
    return Live(owner, partial(_as_seen, tuple(owner.stride()), tuple(given.shape), tuple(given.stride()), start))


def _as_seen(
    laid_out: tuple[int, ...], shape: tuple[int, ...], stride: tuple[int, ...], start: int, tensor: Tensor
) -> Tensor:
    """(N, D) of what a view of ``tensor`` shows, where the view was made of one that is laid out by other strides."""
    same = torch.empty_strided(tensor.shape, laid_out, dtype=tensor.dtype, device=tensor.device).copy_(tensor)
    return rows(same.as_strided(shape, stride, start))


def _described(value: Any) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__

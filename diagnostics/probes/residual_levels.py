"""Residual finite scalar quantization within one module, whose projections are applied without being called."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from .attributes import child_named, tensor, tensors
from .base import Call, CodebookReading, NotAQuantizerError, Tap, WatchedCodebook
from .implicit_codebook import LARGEST_TABLE
from .levels import levels_and_basis
from .round_trip import check_indices, is_index, leaves, mismatch, precision, rows, tolerance


class ResidualLevelsProbe:
    """Reads all layers off the one call, by the projections' weights; each layer in units of its own scale."""

    reads = "residual levels in one module: diffusers' ACE-Step tokenizer"

    def matches(self, module: nn.Module) -> bool:
        return "scales" in tensors(module) and levels_and_basis(module) is not None and len(_projections(module)) == 2

    def codebooks(self, module: nn.Module) -> dict[str, WatchedCodebook]:
        layers = range(len(tensor(module, "scales")))
        return {f"layer{layer}": LevelsLayer(module, layer) for layer in layers}


def _projections(module: nn.Module) -> list[nn.Linear]:
    """The projection in and the projection out, where both are linear layers."""
    ends = (child_named(module, "project_in"), child_named(module, "project_out"))
    return [end for end in ends if isinstance(end, nn.Linear)]


def _projected(projection: nn.Linear, vectors: Tensor) -> Tensor:
    bias = projection.bias
    return F.linear(
        vectors.float(), projection.weight.detach().float(), None if bias is None else bias.detach().float()
    )


class LevelsLayer(WatchedCodebook):
    """One layer: what the layers before it left, divided by its scale, and the nearest points of its grid.

    There are no gradients at its ends: the tensors there are seen nowhere.

    Args:
        module: The quantizer of all layers.
        layer: Which of them.
    """

    def __init__(self, module: nn.Module, layer: int):
        self.module, self.taps, self._layer = module, (Tap(module),), layer
        names = levels_and_basis(module)
        assert names is not None
        self._names = names
        self.levels = tuple(tensor(module, names[0]).tolist())
        self.size = math.prod(self.levels)
        self._settled = False

    def read(self, tap: int, call: Call) -> CodebookReading:
        if not isinstance(call.first, Tensor) or not call.first.is_floating_point():
            raise NotAQuantizerError(f"{type(self.module).__name__} is not called with latents")
        found = [leaf for _, leaf in leaves(call.output)]
        told = next((leaf for leaf in found if is_index(leaf)), None)
        scales = tensor(self.module, "scales").detach()
        if told is None or told.shape[-1] != len(scales):
            raise InputError(f"{type(self.module).__name__} returned no index for each of its {len(scales)} layers")
        indices = rows(told).long()
        codes = [self._grid(each) * scale for each, scale in zip(indices.unbind(1), scales, strict=True)]
        z = self._bounded(_projected(_projections(self.module)[0], rows(call.first.detach())))
        if not self._settled:
            self._check(indices, z, codes, found)
            self._settled = True
        for each in codes[: self._layer]:
            z = z - each
        scale = scales[self._layer]
        return CodebookReading(indices[:, self._layer], z / scale, codes[self._layer] / scale)

    def _check(self, indices: Tensor, z: Tensor, codes: list[Tensor], found: list[Tensor]) -> None:
        kind = type(self.module).__name__
        check_indices(indices[:, self._layer], len(z), self.size, kind)
        projected = _projected(_projections(self.module)[1], torch.stack(codes).sum(0))
        outputs = [leaf for leaf in found if leaf.is_floating_point() and leaf.numel() == projected.numel()]
        off = [mismatch(projected, rows(each.detach()).float(), indices[:, 0]) for each in outputs]
        within = [tolerance(projected, z, precision(each)) for each in outputs]
        if not any(distance <= limit for distance, limit in zip(off, within, strict=True)):
            raise InputError(
                f"{kind}: what it returned is not the sum of its layers' codes, projected; pass a Reader for it"
            )

    def _bounded(self, z: Tensor) -> Tensor:
        """The latents within the softened bounds that these quantizers set before their first layer."""
        bound = 1 + 1 / (tensor(self.module, self._names[0]).float() - 1)
        return (z / bound).tanh() * bound

    def _grid(self, indices: Tensor) -> Tensor:
        """(N, d) the points from end to end of each axis."""
        levels, basis = (tensor(self.module, name) for name in self._names)
        return (indices.unsqueeze(1) // basis % levels) * 2 / (levels - 1) - 1

    @property
    def computed(self) -> bool:
        return True

    def codes(self) -> Tensor | None:
        levels = tensor(self.module, self._names[0])
        return self._grid(torch.arange(self.size, device=levels.device)) if self.size <= LARGEST_TABLE else None

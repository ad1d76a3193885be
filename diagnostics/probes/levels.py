"""Recognises quantizers by their levels (FSQ) or by the place values of their bits (LFQ, BSQ)."""

import math

import torch
from torch import nn

from ..errors import InputError
from .attributes import has_method, tensor, tensors
from .base import WatchedCodebook
from .implicit_codebook import ImplicitCodebook
from .round_trip import is_index


class LevelsProbe:
    """Reads a module that holds its levels and their place values; codes are computed from the digits of an index."""

    reads = (
        "finite scalar quantization: `FSQ`, `ResidualFSQ`, `FSP` of lucidrains, diffusers `FSQRegularizer`, X-Codec 2, "
        "NeuCodec"
    )

    def matches(self, module: nn.Module) -> bool:
        return levels_and_basis(module) is not None and has_method(module, "forward")

    def codebooks(self, module: nn.Module) -> dict[str, WatchedCodebook]:
        names = levels_and_basis(module)
        assert names is not None
        levels = tuple(tensor(module, names[0]).tolist())
        return {"": ImplicitCodebook(module, levels, tuple(tensor(module, names[1]).tolist()))}


class BitsProbe:
    """Reads a module that holds the place values of its bits."""

    reads = "bits: LFQ, ResidualLFQ, EvoLFQ of lucidrains, binary spherical quantization"

    def matches(self, module: nn.Module) -> bool:
        return _place_values(module) is not None and has_method(module, "forward")

    def codebooks(self, module: nn.Module) -> dict[str, WatchedCodebook]:
        name = _place_values(module)
        assert name is not None
        if any(own.dtype == torch.bool and own.ndim == 2 for own in tensors(module).values()):
            raise InputError("it samples bits by their logits and has no codes to compare latents with")
        basis = tuple(tensor(module, name).tolist())
        return {"": ImplicitCodebook(module, (2,) * len(basis), basis)}


def _digits_of(module: nn.Module) -> dict[str, list[int]]:
    """The module's own vectors of integers."""
    own = {name: value for name, value in tensors(module).items() if value.ndim == 1 and 1 < len(value) <= 64}
    return {name: value.tolist() for name, value in own.items() if is_index(value) and not value.is_meta}


def levels_and_basis(module: nn.Module) -> tuple[str, str] | None:
    """The names of the levels on each axis and of their place values: the products of the levels before them."""
    own = _digits_of(module)
    for name, levels in own.items():
        places = [math.prod(levels[:digit]) for digit in range(len(levels))]
        for other, basis in own.items():
            if other != name and basis == places and min(levels) > 1:
                return name, other
    return None


def _place_values(module: nn.Module) -> str | None:
    for name, values in _digits_of(module).items():
        if sorted(values) == [2**bit for bit in range(len(values))] and values in (
            sorted(values),
            sorted(values)[::-1],
        ):
            return name
    return None

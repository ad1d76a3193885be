"""Latent quantization: each axis has a learned value for each digit."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from .attributes import children, tensor
from .base import Call, CodebookReading, WatchedCodebook
from .implicit_codebook import Grid, ImplicitCodebook
from .levels import LevelsProbe, levels_and_basis
from .staged import parameters_of


class LatentValuesProbe:
    """Reads the digits off the quantized latents: the module computes its indices as if its values had never moved."""

    reads = "levels with learned values: lucidrains' `LatentQuantize`, whose own indices go wrong as the values move"

    def matches(self, module: nn.Module) -> bool:
        return LevelsProbe().matches(module) and bool(_values_of(module))

    def codebooks(self, module: nn.Module) -> dict[str, WatchedCodebook]:
        names = levels_and_basis(module)
        assert names is not None
        levels, basis = (tuple(tensor(module, name).tolist()) for name in names)
        return {"": LatentValuesCodebook(module, levels, basis)}


def _values_of(module: nn.Module) -> list[Tensor]:
    values = children(module).get("values_per_latent", vars(module).get("values_per_latent"))
    return [*values] if isinstance(values, list | nn.ParameterList) else []


class LatentValuesCodebook(ImplicitCodebook):
    """The codes of values that are learned on each axis."""

    def _returned(self, call: Call) -> CodebookReading | None:
        self._grid = self._learned()
        return super()._returned(call)

    def _learned(self) -> Grid:
        values = [each.detach().float() for each in _values_of(self.module)]
        return Grid(pad_sequence(values, batch_first=True, padding_value=torch.nan))

    def _integers(self, call: Call) -> dict[tuple[object, ...], Tensor]:
        return {}

    def _candidates(self, codes: Tensor) -> Iterator[Grid]:
        yield self._learned()

    def codes(self) -> Tensor | None:
        self._grid = self._learned()
        return super().codes()

    def parameters(self) -> list[Tensor]:
        return parameters_of(*_values_of(self.module))

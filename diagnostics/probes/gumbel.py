"""Quantizers whose codes are drawn by logits: nothing is compared with the codes, so there is no distortion."""

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from .attributes import children, table_child, tensors
from .base import Call, CodebookReading, NotAQuantizerError, Tap, WatchedCodebook
from .round_trip import check_indices, is_index, leaves, mismatch, nearest, precision, rows, tolerance
from .staged import live, parameters_of
from .tables import weight_of


class GumbelTableProbe:
    """Reads an embedding table whose codes are drawn by logits; latents are compared with nothing."""

    reads = "an embedding table and logits from a convolution or linear layer: taming-transformers' `GumbelQuantize`"

    def matches(self, module: nn.Module) -> bool:
        child = table_child(module)
        if child is None:
            return False
        K, own = len(tensors(child)["weight"]), {*vars(module), *tensors(module)}
        logits = any(_outputs(other) == K for other in children(module).values())
        regularised = any(name.startswith("kl") for name in own)  # the logits may be what it is given
        return (logits or regularised) and any(name.startswith("temp") for name in own)

    def codebooks(self, module: nn.Module) -> dict[str, WatchedCodebook]:
        return {"": GumbelTable(module)}


class GumbelGroupsProbe:
    """Reads groups of codes that are parameters; indices are recovered from the output, which holds none."""

    reads = (
        "groups of codes `codevectors` drawn by logits: Wav2Vec2, Wav2Vec2-Conformer, WavLM, UniSpeech, UniSpeech-SAT"
    )

    def matches(self, module: nn.Module) -> bool:
        return _codevectors(module) is not None and "temperature" in {*vars(module), *tensors(module)}

    def codebooks(self, module: nn.Module) -> dict[str, WatchedCodebook]:
        vectors, groups = _codevectors(module), vars(module).get("num_groups")
        assert vectors is not None
        if not isinstance(groups, int) or vectors.shape[1] % groups:
            raise InputError("its codes do not say how many groups they are; pass a Reader for each group")
        return {f"group{group}": GumbelGroup(module, group, groups) for group in range(groups)}


def _outputs(module: nn.Module) -> int | None:
    """How many outputs a linear layer or a convolution has."""
    own = vars(module)
    return own.get("out_features", own.get("out_channels"))


def _codevectors(module: nn.Module) -> nn.Parameter | None:
    """The parameter (1, groups * K, D) with logits for each of its rows."""
    widths = {_outputs(child) for child in children(module).values()}
    for value in vars(module).get("_parameters", {}).values():
        if value is not None and value.ndim == 3 and value.shape[0] == 1 and value.shape[1] in widths:
            return value
    return None


def _axes(tensor: Tensor, D: int) -> list[int]:
    return [axis for axis in range(tensor.ndim) if tensor.shape[axis] == D]


def _not_compared(codes: Tensor) -> Tensor:
    """Latents for codes (N, D) that no latents were compared with."""
    return codes.new_full((1, 1), torch.nan).expand_as(codes)


def _check_features(call: Call) -> None:
    if not isinstance(call.first, Tensor) or not call.first.is_floating_point():
        raise NotAQuantizerError(f"{type(call.module).__name__} is not called with features: it looks codes up")


class GumbelTable(WatchedCodebook):
    """A table (K, D) of a quantizer that returns quantized features and indices. The sample may be soft."""

    def __init__(self, module: nn.Module):
        self.module, self.taps, self._table = module, (Tap(module),), weight_of(module)
        self.size = len(self._table())
        self._way: tuple[int, bool] | None = None

    def read(self, tap: int, call: Call) -> CodebookReading:
        _check_features(call)
        table = self._table().detach().float()
        indices, quantized = self._handed_over(call.output, table.shape[1])
        flat = indices.flatten().long()
        if self._way is None:
            self._way = self._settled(flat, quantized, table)
        axis, recovered = self._way
        if recovered:
            flat = nearest(rows(quantized.detach(), axis), table)
        codes = table[flat.clamp(min=0)]
        leaving = live(quantized, lambda tensor: rows(tensor, axis))
        return CodebookReading(flat, _not_compared(codes), codes, None, None, leaving)

    def _settled(self, indices: Tensor, quantized: Tensor, table: Tensor) -> tuple[int, bool]:
        """The axis of the channels, and whether indices are recovered from the output, for they are remapped."""
        check_indices(indices, quantized.numel() // table.shape[1], self.size, type(self.module).__name__)
        codes = table[indices.clamp(min=0)]
        within = tolerance(table, codes, precision(quantized))
        tokens = {axis: rows(quantized.detach(), axis).float() for axis in _axes(quantized, table.shape[1])}
        for axis, drawn in tokens.items():
            if mismatch(drawn, codes, indices) <= within:
                return axis, False
        for axis, drawn in tokens.items():
            if mismatch(drawn, table[nearest(drawn, table)], indices) <= within:
                return axis, True
        if vars(self.module).get("remap") is not None:
            raise InputError(
                f"{type(self.module).__name__} returned mixtures of codes under remapped indices; pass a Reader for it"
            )
        return min(tokens, key=lambda axis: mismatch(tokens[axis], codes, indices)), False

    def _handed_over(self, output: Any, D: int) -> tuple[Tensor, Tensor]:
        found = [leaf for _, leaf in leaves(output)]
        for indices in filter(is_index, found):
            for leaf in found:
                if leaf.is_floating_point() and leaf.numel() == indices.numel() * D and D in leaf.shape:
                    return indices, leaf
        raise InputError(
            f"{type(self.module).__name__} returned no indices with quantized features of {D} channels; pass a Reader"
        )

    def codes(self) -> Tensor:
        return self._table().detach()

    def parameters(self) -> list[Tensor]:
        return parameters_of(self._table())

    def gradient(self) -> Tensor | None:
        return self._table().grad


class GumbelGroup(WatchedCodebook):
    """One group of codes (K, D). The output is the codes drawn, group beside group."""

    def __init__(self, module: nn.Module, group: int, groups: int):
        self.module, self.taps = module, (Tap(module),)
        self._group, self._groups = group, groups
        self.size = self._of_all().shape[1] // groups
        self._settled = False

    def _of_all(self) -> nn.Parameter:
        vectors = _codevectors(self.module)
        assert vectors is not None
        return vectors

    def _of_group(self, vectors: Tensor) -> Tensor:
        return vectors[0].unflatten(0, (self._groups, -1))[self._group]

    def read(self, tap: int, call: Call) -> CodebookReading:
        _check_features(call)
        drawn = next((leaf for _, leaf in leaves(call.output) if leaf.ndim > 1 and leaf.is_floating_point()), None)
        table = self.codes().float()
        D = table.shape[1]
        if drawn is None or drawn.shape[-1] != self._groups * D:
            raise InputError(f"{type(self.module).__name__} returned no codes of {self._groups} groups; pass a Reader")
        codes = self._tokens(drawn.detach()).float()
        indices = nearest(codes, table)
        if not self._settled:
            if not mismatch(codes, table[indices], indices) <= tolerance(table, codes, precision(drawn)):
                raise InputError(f"{type(self.module).__name__} returned mixtures of codes, which have no index")
            self._settled = True
        return CodebookReading(indices, _not_compared(codes), table[indices], None, None, live(drawn, self._tokens))

    def _tokens(self, drawn: Tensor) -> Tensor:
        return rows(drawn.unflatten(-1, (self._groups, -1))[..., self._group, :])

    def codes(self) -> Tensor:
        return self._of_group(self._of_all().detach())

    def parameters(self) -> list[Tensor]:
        return parameters_of(self._of_all())

    def gradient(self) -> Tensor | None:
        gradient = self._of_all().grad
        return None if gradient is None else self._of_group(gradient)

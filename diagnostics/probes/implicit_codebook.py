"""A codebook without a table: a code is a digit on each axis, and its place on each axis is the value of that digit."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import InputError
from .attributes import tensors
from .base import Call, CodebookReading, NotAQuantizerError, Tap
from .round_trip import Path, at, check_indices, is_index, leaves, mismatch, precision, rows, tolerance
from .staged import Boundary, StagedCodebook, live

#: Of more codes no table is made.
LARGEST_TABLE = 2**16


class Grid(NamedTuple):
    """The value of each digit on each axis.

    Attributes:
        values: (d, L) by axis and digit, NaN beyond an axis's levels.
        slack: How far the quantized latents may lie from them, beyond rounding: they may be perturbed.
    """

    values: Tensor
    slack: float = 0.0


def grids(levels: tuple[int, ...], device: torch.device) -> Iterator[Grid]:
    """The values that libraries give to digits, up to a scale: from the middle, from end to end, midpoints of bins."""
    digit = torch.arange(max(levels), device=device).float().expand(len(levels), -1)
    count = torch.tensor(levels, device=device).float().unsqueeze(1)
    half = (count / 2).floor()
    for values in ((digit - half) / half, digit * 2 / (count - 1) - 1, ((digit + 0.5) / count - 0.5) * math.sqrt(12)):
        yield Grid(values.where(digit < count, torch.nan))


class ImplicitCodebook(StagedCodebook):
    """The codes of digits, counted together over the groups that one module quantizes alike.

    ``levels`` are given in the order of the index's digits, least significant first, which is not the order of the axes
    where a module holds its most significant place first.

    Args:
        module: The quantizer.
        levels: The number of levels on each axis.
        basis: The place value of each axis in the index.
    """

    def __init__(self, module: nn.Module, levels: tuple[int, ...], basis: tuple[int, ...]):
        self._boundary = Boundary(module)
        self._on_axes, self._basis = levels, basis  # as the axes stand
        self.levels = tuple(level for _, level in sorted(zip(basis, levels, strict=True)))
        self.size = math.prod(levels)
        groups = vars(module).get("num_codebooks", 1)
        self._groups = groups if isinstance(groups, int) else 1
        self._grid: Grid | None = None
        self._on_device: tuple[Tensor, Tensor] | None = None
        self._indices: Path | None = None
        self._axis = -1
        self._settled = False
        super().__init__(module, [*self._boundary.stages(), (Tap(module), self._returned)])

    def _returned(self, call: Call) -> CodebookReading | None:
        entered, left = self._boundary.take()
        z = call.first if entered is None else entered
        if not isinstance(z, Tensor) or not z.is_floating_point():
            raise NotAQuantizerError(f"{self._kind} is not called with latents")
        outputs = [leaf for _, leaf in leaves(call.output) if leaf.is_floating_point() and leaf.shape == z.shape]
        quantized = left if left is not None else next(iter(outputs), None)
        if quantized is None:
            raise self._refusal(call, f"it returned no quantized latents {tuple(z.shape)}")
        if not self._settled:
            self._settle(z, quantized, call)
            self._settled = True
        codes = self._rotated(self._tokens(quantized.detach()).float(), back=False)
        given = None if self._indices is None else at(call.output, self._indices)
        indices = self._digits_at(codes) if given is None else given.flatten().long()
        latents = self._tokens(z.detach()).float()
        ends = live(z, self._tokens), live(quantized, self._tokens)
        return CodebookReading(indices, latents, self._codes_at(indices), self._mask(call, len(indices)), *ends)

    def _mask(self, call: Call, tokens: int) -> Tensor | None:
        mask = call.kwargs.get("mask")
        return None if mask is None else mask.flatten().repeat_interleave(tokens // mask.numel())

    def _settle(self, z: Tensor, quantized: Tensor, call: Call) -> None:
        """Find the axis of the channels, the indices, and the grid that explains both."""
        width = self._groups * len(self._basis)
        axes = [axis for axis in range(z.ndim) if z.shape[axis] == width]
        if not axes:
            raise self._refusal(call, f"its latents {tuple(z.shape)} have no axis of {width} channels")
        found = self._integers(call)
        where = next((path for path, leaf in found.items() if leaf.numel() * len(self._basis) == z.numel()), None)
        if where is not None:
            check_indices(found[where], z.numel() // len(self._basis), self.size, self._kind)
        best = math.inf
        for axis in reversed(axes):
            codes = self._rotated(rows_of_groups(quantized.detach(), axis, self._groups).float(), back=False)
            for grid in self._candidates(codes):
                indices = self._digits_at(codes, grid) if where is None else found[where].flatten().long()
                off = mismatch(codes, self._values_at(indices, grid), indices)
                if off < best and off <= tolerance(codes, codes, precision(quantized)) + grid.slack:
                    best, self._axis, self._grid, self._indices = off, axis, grid, where
        if self._grid is None:
            raise self._refusal(call, "what it returned is not on their grid at its indices")

    def _integers(self, call: Call) -> dict[Path, Tensor]:
        """What may be the indices in what the module returned, by its keys."""
        return {path: leaf for path, leaf in leaves(call.output) if is_index(leaf)}

    def _refusal(self, call: Call, why: str) -> InputError:
        # Without a single integer in what it returns its own integers may be anything, such as dilations.
        looks_right = any(is_index(leaf) for _, leaf in leaves(call.output))
        refusal = InputError if looks_right else NotAQuantizerError
        return refusal(f"{self._kind} has levels {self._on_axes} but {why}; pass a Reader for it")

    def _candidates(self, codes: Tensor) -> Iterator[Grid]:
        for grid in grids(self._on_axes, codes.device):
            yield grid
            if set(self._on_axes) == {2}:  # bits are scaled, by one number
                yield Grid(grid.values * codes.abs().mean() / grid.values.abs().mean())
        own = vars(self.module)
        if self.module.training:
            _, ends, middles = grids(self._on_axes, codes.device)
            if own.get("noise_dropout"):  # half a unit to both sides
                yield Grid(ends.values, slack=0.5)
            if "quantize_rate" in own:  # finite scalar perturbation: half a bin on top of the place within the bin
                yield Grid(middles.values, slack=math.sqrt(12) / min(self._on_axes))

    def _tokens(self, tensor: Tensor) -> Tensor:
        return rows_of_groups(tensor, self._axis, self._groups)

    def _rotated(self, codes: Tensor, back: bool) -> Tensor:
        rotation = tensors(self.module).get("orthogonal_rot")
        if rotation is None:
            return codes
        rotation = rotation.detach().float()
        with torch.autocast(codes.device.type, enabled=False):
            return codes @ (rotation.t() if back else rotation)

    def _places(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """(d,) the levels and (d,) the place values; made once on a device, for that makes the host wait."""
        if self._on_device is None or self._on_device[0].device != device:
            levels, basis = (torch.tensor(each, device=device) for each in (self._on_axes, self._basis))
            self._on_device = levels, basis
        return self._on_device

    def _digits_at(self, codes: Tensor, grid: Grid | None = None) -> Tensor:
        """(N,) the indices of the nearest points of the grid to ``codes`` (N, d)."""
        grid = grid or self._grid
        assert grid is not None
        digits = (codes.unsqueeze(-1) - grid.values).abs().nan_to_num(torch.inf).argmin(-1)
        return (digits * self._places(codes.device)[1]).sum(1)

    def _values_at(self, indices: Tensor, grid: Grid) -> Tensor:
        """(N, d) the point of the grid at each index."""
        levels, basis = self._places(indices.device)
        digits = indices.clamp(min=0).unsqueeze(1) // basis % levels
        return grid.values.to(indices.device).gather(1, digits.t()).t()

    def _codes_at(self, indices: Tensor) -> Tensor:
        assert self._grid is not None
        return self._rotated(self._values_at(indices, self._grid), back=True)

    @property
    def computed(self) -> bool:
        return True

    def codes(self) -> Tensor | None:
        if self.size > LARGEST_TABLE or self._grid is None:
            return None
        return self._codes_at(torch.arange(self.size, device=self._grid.values.device))

    @property
    def _kind(self) -> str:
        return type(self.module).__name__


def rows_of_groups(tensor: Tensor, axis: int, groups: int) -> Tensor:
    """(N groups, d) of a tensor with the channels of all groups along ``axis``, the groups of a token in succession."""
    return rows(rows(tensor, axis).unflatten(-1, (groups, -1)))

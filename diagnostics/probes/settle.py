"""How the output of a table quantizer is to be taken: found out at its first call by what explains it."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import InputError
from .base import NotAQuantizerError
from .round_trip import (
    Path,
    at,
    check_finite,
    is_index,
    leaves,
    mismatch,
    nearest,
    precision,
    rows,
    share_of_nearest,
    spread,
    tolerance,
    unit,
)

#: Of so many tokens the nearest codes are computed where nothing but the indices can be checked.
_SAMPLE = 1024


class Way(NamedTuple):
    """How one table quantizer hands over what it did.

    Attributes:
        axis: The axis of its latents, and of its quantized output, along which the channels lie.
        indices: Where in its output the indices are; None where they are recovered from the quantized output.
        quantized: Where in its output the quantized latents are; None where a projection follows, or there are none.
        unit: Whether the codes are the rows of the table scaled to length one, and the latents with them.
    """

    axis: int
    indices: Path | None
    quantized: Path | None
    unit: bool

    def tokens(self, tensor: Tensor) -> Tensor:
        """(N, D) of latents, quantized latents, or a gradient in their layout."""
        return rows(tensor, self.axis)


def settle(z: Tensor, left: Tensor | None, output: Any, table: Tensor, kind: str) -> Way:
    """The way that explains the first call of a quantizer.

    Args:
        z: The latents, in the space of the codes.
        left: The quantized latents before a projection out; None where they are in the output.
        output: What the quantizer returned.
        table: (K, D) its table, after the call.
        kind: The name of the quantizer, for messages.

    Raises:
        NotAQuantizerError: The first argument holds no latents, or the output nothing of codes.
        InputError: Nothing explains the output.
    """
    K, D = table.shape
    if not isinstance(z, Tensor) or not z.is_floating_point():
        raise NotAQuantizerError(f"{kind} is called with {_described(z)}, not with latents: it looks codes up")
    found = dict(leaves(output))
    numbers = {path: leaf for path, leaf in found.items() if is_index(leaf)}
    # Without a single integer in what it returns it may as well be a table of positions.
    refusal = InputError if numbers else NotAQuantizerError
    axes = [axis for axis in range(z.ndim) if z.shape[axis] == D]
    if not axes:
        raise refusal(
            f"{kind} was given latents {tuple(z.shape)}, none of whose axes has the {D} channels of its codes; "
            "pass a Reader for it"
        )
    fitting = {path: leaf for path, leaf in numbers.items() if leaf.numel() * D == z.numel()}
    maps: dict[Path | None, Tensor] = {path: leaf for path, leaf in found.items() if _like(leaf, z)}
    if left is not None:
        maps = {None: left}
    if not fitting and not maps:
        shapes = [tuple(leaf.shape) for leaf in numbers.values()] or "none"
        raise refusal(
            f"{kind} returned neither quantized latents {tuple(z.shape)} nor one index a token (integers: {shapes}); "
            "pass a Reader for it"
        )
    check_finite(kind, latents=z, codes=table)
    ways = list(_ways(z, axes, fitting, maps, table.detach()))
    if not ways:
        raise refusal(
            f"{kind}: its output is not explained by its {K:,} codes, raw or of unit length, at the indices that it "
            "returned; pass a Reader that gives latents, indices and the codes as they are used"
        )
    carried = {path for path, leaf in maps.items() if _carries(leaf, z)}
    # Where the codes are handed over beside the quantized latents, those are meant that a gradient passes.
    return min(ways, key=lambda way: (way[0][0], way[1].quantized not in carried, way[0][1]))[1]


def _described(value: Any) -> str:
    return f"{value.dtype} of {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _like(tensor: Tensor, z: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.shape == z.shape


def _carries(quantized: Tensor, z: Tensor) -> bool:
    """Whether a gradient at ``quantized`` would reach ``z``."""
    source = z.grad_fn
    if source is None or quantized.grad_fn is None:
        return False
    nodes, seen = [quantized.grad_fn], {quantized.grad_fn}
    while nodes:
        node = nodes.pop()
        if node is source:
            return True
        new = [after for after, _ in node.next_functions if after is not None and after not in seen]
        seen.update(new)
        nodes += new
    return False


def _ways(
    z: Tensor, axes: list[int], numbers: dict[Path, Tensor], maps: dict[Path | None, Tensor], table: Tensor
) -> Iterator[tuple[tuple[int, float], Way]]:
    """The ways that hold, each with its rank (looked up, moved since, recovered) and its error."""
    table = table.float()
    units = unit(table)
    all_unit = _of_unit_length(table)
    for axis in axes:
        latents = rows(z.detach(), axis).float()
        for path, quantized in maps.items():
            codes = rows(quantized.detach(), axis).float()
            within = tolerance(codes, latents, precision(quantized))
            for where, leaf in numbers.items():
                indices = leaf.flatten().long()
                if int(indices.max()) >= len(table):
                    continue
                looked_up = table[indices.clamp(min=0)], units[indices.clamp(min=0)]
                raw, scaled = (mismatch(codes, guess, indices) for guess in looked_up)
                if min(raw, scaled) <= within:
                    yield (0, min(raw, scaled)), Way(axis, where, path, scaled < raw or all_unit)
                    continue
                apart = spread(codes, indices)  # the table moved in its own forward, after the codes were taken
                if apart is not None and apart <= within:
                    yield (1, apart), Way(axis, where, path, _of_unit_length(codes))
            sample = codes[:_SAMPLE]
            for is_unit, guess in ((all_unit, table), (True, units)):
                off = float((sample - guess[nearest(sample, guess)]).abs().max())
                if off <= within:
                    yield (2, off), Way(axis, None, path, is_unit)
        if not maps:
            yield from _by_distance(latents, precision(z), axis, numbers, table, units)


def _of_unit_length(vectors: Tensor) -> bool:
    return bool((vectors.norm(dim=1) - 1).abs().max() < 1e-3)


def _by_distance(
    latents: Tensor, eps: float, axis: int, numbers: dict[Path, Tensor], table: Tensor, units: Tensor
) -> Iterator[tuple[tuple[int, float], Way]]:
    """The ways in which indices alone are those of the nearest codes, but for a few ties."""
    for where, leaf in numbers.items():
        indices = leaf.flatten().long()[:_SAMPLE]
        sample = latents[:_SAMPLE]
        for is_unit, z, guess in ((False, sample, table), (True, unit(sample), units)):
            other = 1 - share_of_nearest(z, indices, guess, eps)
            if other <= 0.01 and int(indices.max()) < len(table):
                yield (0, other), Way(axis, where, None, is_unit)


def taken(
    way: Way, z: Tensor, left: Tensor | None, output: Any, table: Tensor, kind: str
) -> tuple[Tensor, Tensor, Tensor]:
    """The indices (N,), latents (N, D) and codes (N, D) of one call.

    The codes are those handed over, for some tables move within the forward; but where a straight-through sum is too
    coarse they are looked up.
    """
    table = table.detach().float()
    codes_now = unit(table) if way.unit else table
    latents = way.tokens(z.detach()).float()
    if way.unit:
        latents = unit(latents)
    quantized = left if way.quantized is None else at(output, way.quantized)
    codes = None if quantized is None else way.tokens(quantized.detach()).float()
    if way.indices is None:
        assert codes is not None
        indices = nearest(codes, codes_now)
    else:
        given = at(output, way.indices)
        if given is None:
            raise InputError(f"{kind} no longer returns its indices where its first call did; pass a Reader for it")
        indices = given.flatten().long()
    if codes is None or quantized is None or precision(quantized) > torch.finfo(torch.float32).eps:
        codes = codes_now[indices.clamp(min=0)]
    return indices, latents, codes

"""The checks that a guess about a quantizer has to pass at its first call. Only they make the host wait."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError

Path = tuple[Any, ...]


def leaves(output: Any, path: Path = ()) -> Iterator[tuple[Path, Tensor]]:
    """The tensors in what a module returned, each with its keys, through tuples, lists, mappings and dataclasses."""
    if isinstance(output, Tensor):
        yield path, output
        return
    if isinstance(output, Mapping):
        parts = list(output.items())
    elif isinstance(output, list | tuple):
        parts = list(enumerate(output))
    elif is_dataclass(output):
        parts = [(field.name, getattr(output, field.name, None)) for field in fields(output)]
    else:
        return
    for key, part in parts:
        yield from leaves(part, (*path, key))


def at(output: Any, path: Path) -> Tensor | None:
    """The tensor at such keys; None where the output has none there this time."""
    return next((leaf for where, leaf in leaves(output) if where == path), None)


def is_index(tensor: Tensor) -> bool:
    """Whether the tensor is of an integer type."""
    return not tensor.is_floating_point() and not tensor.is_complex() and tensor.dtype != torch.bool


def rows(tensor: Tensor, axis: int = -1) -> Tensor:
    """(N, D) of a tensor with the D channels along ``axis``."""
    return tensor.movedim(axis, -1).reshape(-1, tensor.shape[axis])


def unit(vectors: Tensor) -> Tensor:
    """The vectors (N, D), each scaled to length one."""
    return F.normalize(vectors, dim=-1)


def precision(tensor: Tensor) -> float:
    """The relative rounding error of what ``tensor`` was computed in: its own format, or autocast's where it is on."""
    device, eps = tensor.device.type, torch.finfo(tensor.dtype).eps
    return max(eps, torch.finfo(torch.get_autocast_dtype(device)).eps) if torch.is_autocast_enabled(device) else eps


def tolerance(codes: Tensor, latents: Tensor, eps: float) -> float:
    """How far codes may come out of a straight-through sum, or of a product in a fast format, from what went in.

    Args:
        codes: (N, D) as they came out.
        latents: (N, D) what they replaced.
        eps: The ``precision`` that they were computed in.
    """
    return 16 * eps * float(latents.abs().max()) + max(4e-3, 4 * eps) * float(codes.abs().max())


def check_indices(indices: Any, tokens: int, size: int, what: str) -> None:
    """Raise where ``indices`` cannot be the codes of ``tokens`` tokens.

    Args:
        indices: Of any shape; negative where a token was dropped.
        tokens: N, how many there should be.
        size: K, the number of codes.
        what: The name of their owner, for the message.

    Raises:
        InputError: Not integers, not one a token, none at all, or beyond K.
    """
    if not isinstance(indices, Tensor) or not is_index(indices):
        kind = indices.dtype if isinstance(indices, Tensor) else type(indices).__name__
        raise InputError(
            f"{what}: indices are {kind}, not integers; pass a Reader whose indices are the codes' numbers"
        )
    if indices.numel() != tokens:
        raise InputError(f"{what}: {indices.numel()} indices for {tokens} tokens; pass a Reader that gives one a token")
    if tokens == 0:
        raise InputError(f"{what}: its first call had no tokens")
    if int(indices.max()) >= size:
        raise InputError(f"{what}: index {int(indices.max())} in a codebook of {size:,} codes; pass a Reader")


def check_finite(what: str, **tensors: Tensor) -> None:
    """Raise where a tensor of a first call is not finite: nothing about the quantizer would be found out by it.

    Args:
        what: The name of their owner, for the message.
        tensors: By what they are.

    Raises:
        InputError: One is not.
    """
    for name, tensor in tensors.items():
        if not bool(tensor.detach().isfinite().all()):
            raise InputError(f"{what}: its {name} are not finite in its first call, and nothing can be read of them")


def mismatch(codes: Tensor, others: Tensor, indices: Tensor) -> float:
    """The largest difference between (N, D) and (N, D) over the tokens that were not dropped."""
    kept = indices >= 0
    return float((codes[kept] - others[kept]).abs().max()) if bool(kept.any()) else 0.0


def spread(codes: Tensor, indices: Tensor) -> float | None:
    """The largest difference between vectors (N, D) that bear the same index; None where none occurs twice."""
    order = indices.argsort()
    ordered, vectors = indices[order], codes[order]
    same = (ordered[1:] == ordered[:-1]) & (ordered[1:] >= 0)
    return float((vectors[1:] - vectors[:-1])[same].abs().max()) if bool(same.any()) else None


def share_of_nearest(latents: Tensor, indices: Tensor, table: Tensor, eps: float) -> float:
    """The share of the latents (N, D) whose index is that of the nearest row of ``table`` (K, D), but for rounding."""
    chosen, best = (
        (latents - table[each]).square().sum(1) for each in (indices.clamp(0, len(table) - 1), nearest(latents, table))
    )
    rounding = 8 * eps * (latents.square().sum(1) + table.square().sum(1).max())
    return float((chosen <= best * 1.001 + rounding).float().mean())


def nearest(vectors: Tensor, table: Tensor, at_once: int = 4096) -> Tensor:
    """(N,) the number of the row of ``table`` (K, D) that lies nearest to each of ``vectors`` (N, D)."""
    table = table.float()
    return torch.cat([torch.cdist(part.float(), table).argmin(1) for part in vectors.split(at_once)])

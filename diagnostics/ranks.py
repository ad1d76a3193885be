"""How the ranks of a process group agree. Without a group each of these leaves a tensor as it is."""

from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from .stats import ImageGroups

T = TypeVar("T")


def in_group() -> bool:
    """Whether this process is one of a process group."""
    return dist.is_available() and dist.is_initialized()


def rank_and_size() -> tuple[int, int]:
    """This process's rank and how many there are; (0, 1) without a group."""
    return (dist.get_rank(), dist.get_world_size()) if in_group() else (0, 1)


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """``tensor``, which becomes the sum over ranks in place."""
    if in_group():
        dist.all_reduce(tensor)
    return tensor


def mean_over_ranks(tensor: Tensor) -> Tensor:
    """The mean over ranks, a new tensor where there are several."""
    return sum_over_ranks(tensor.clone()) / dist.get_world_size() if in_group() else tensor


def rows_of_all_ranks(tensor: Tensor) -> Tensor:
    """(ranks N, ...) the rows of every rank's ``tensor`` (N, ...), of one shape, in the order of the ranks."""
    if not in_group():
        return tensor
    tensor = tensor.contiguous()
    parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, tensor)
    return torch.cat(parts)


def of_all_ranks(thing: T) -> list[T]:
    """What every rank has in the place of ``thing``, which can be pickled, in the order of the ranks."""
    if not in_group():
        return [thing]
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, thing)
    return found


def groups_over_ranks(groups: ImageGroups, device: torch.device) -> ImageGroups:
    """The counts of all ranks; ``device`` is where the ranks meet."""
    parts = (torch.from_numpy(part).to(device) for part in (groups.hits, groups.images, groups.sizes))
    return ImageGroups(*(sum_over_ranks(part).cpu().numpy() for part in parts)) if in_group() else groups


def from_first_rank(tensor: Tensor) -> Tensor:
    """``tensor``, which becomes the first rank's in place."""
    if in_group():
        dist.broadcast(tensor, src=0)
    return tensor

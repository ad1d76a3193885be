"""The ranks of a process group that lint together, each on copies of its own replica."""

import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import count
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from ..errors import InputError
from ..ranks import from_first_rank, mean_over_ranks, rank_and_size, sum_over_ranks
from .evidence import Forward, Seen

#: How long a rank waits for the others to come to the same point.
_PATIENCE = timedelta(seconds=120)
#: Who averages gradients over ranks, by the names of their classes.
_WRAPPERS = {"DistributedDataParallel", "FullyShardedDataParallel", "FSDPModule", "DeepSpeedEngine"}
_lints = count()


class RankFailedError(InputError):
    """Another rank failed, told in one line."""


@dataclass(frozen=True)
class _Failed:
    """The word of a rank that gives up."""

    why: str


class Group:
    """What ranks say to each other between the collective calls of a model.

    Words go through the store of the group. They are never taken for sums of the model, and a rank that failed is heard
    of by the others at their next word.

    Args:
        size: How many ranks there are; one talks to nobody.
    """

    def __init__(self, size: int):
        self.size = size
        self._lint, self._words = next(_lints), count()

    def exchange(self, word: Any) -> list[Any]:
        """What every rank says, in their order.

        Raises:
            RankFailedError: One of them has failed.
            InputError: One of them does not come.
        """
        if self.size == 1:
            return [word]
        keys = self._say(word)
        store = _store()
        try:
            store.wait(keys, _PATIENCE)
        except (RuntimeError, dist.DistStoreError):
            missing = ", ".join(str(rank) for rank, key in enumerate(keys) if not store.check([key]))
            raise InputError(
                f"rank {missing} did not come to this point of the lint within {_PATIENCE.seconds} s: call lint on"
                " every rank, with the same model"
            ) from None
        words = [pickle.loads(store.get(key)) for key in keys]
        for rank, said in enumerate(words):
            if isinstance(said, _Failed):
                raise RankFailedError(f"on rank {rank}: {said.why}")
        return words

    @contextmanager
    def together(self) -> Iterator[None]:
        """Fail on all ranks where the block fails on one, and end on all at the same time."""
        try:
            yield
        except RankFailedError:
            raise
        except Exception as error:
            if self.size > 1:
                self._say(_Failed((str(error).splitlines() or [type(error).__name__])[0]))
            raise
        self.exchange(None)

    def _say(self, word: Any) -> list[str]:
        """Leave a word, and tell where those of all ranks stand."""
        number = next(self._words)
        keys = [f"vqtool/lint/{self._lint}/{number}/{rank}" for rank in range(self.size)]
        _store().set(keys[rank_and_size()[0]], pickle.dumps(word))
        return keys


def _store() -> Any:
    return dist.distributed_c10d._get_default_store()


def averaged_by_itself(model: nn.Module) -> bool:
    """Whether something in the model averages gradients over ranks."""
    return any(kind.__name__ in _WRAPPERS for module in model.modules() for kind in type(module).__mro__)


@torch.no_grad()
def start_alike(model: nn.Module) -> None:
    """Take parameters and buffers from the first rank, as ``DistributedDataParallel`` does when it wraps a model."""
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.copy_(from_first_rank(tensor.detach().clone(memory_format=torch.contiguous_format)))


def average_gradients(model: nn.Module) -> None:
    """Average gradients over ranks; a rank that has none where others do counts as zero."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        return
    there = torch.tensor([float(p.grad is not None) for p in parameters], device=parameters[0].device)
    for parameter, ranks in zip(parameters, sum_over_ranks(there).tolist(), strict=True):
        if ranks:
            own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.to_dense()
            parameter.grad = mean_over_ranks(own.contiguous())


def compare_ranks(seen: Seen) -> None:
    """Fill in how far apart the ranks' codes are after the steps, and the tokens of all ranks where they are not."""
    own = [replace(step, before=None, after=None) for step in seen.steps]
    gathered: list[Any] = [None] * rank_and_size()[1]
    dist.all_gather_object(gathered, (seen.tables[-1:], own))
    tables, steps = [tables[0] for tables, _ in gathered if tables], [steps for _, steps in gathered]
    if not tables:
        seen.not_done["ranks"] = "it has no table of codes"
    elif not np.isfinite(tables).all():
        seen.not_done["ranks"] = "its codes are not finite"
    else:
        seen.ranks_apart = _apart(tables)
    if own and all(np.array_equal(each[0].latents, own[0].latents) for each in steps):
        seen.not_done["ranks"] = "every rank was given the same latents: give each a batch of its own"
    if not seen.parted:
        seen.steps = [_of_all(step, same) for step, *same in zip(seen.steps, *steps, strict=True)]


def _apart(tables: Sequence[np.ndarray]) -> float:
    """Largest difference between tables, over the largest absolute value in them."""
    return float(np.ptp(tables, axis=0).max() / max(np.abs(tables).max(), np.finfo(np.float32).tiny))


def _of_all(own: Forward, ranks: Sequence[Forward]) -> Forward:
    """One call with the tokens of all ranks, and the tables of this one."""
    handed_on = [each.quantized for each in ranks if each.quantized is not None]
    return replace(
        own,
        indices=np.concatenate([each.indices for each in ranks]),
        latents=np.concatenate([each.latents for each in ranks]),
        codes=np.concatenate([each.codes for each in ranks]),
        quantized=np.concatenate(handed_on) if len(handed_on) == len(ranks) else None,
    )

"""The random numbers of a run: kept with a checkpoint, one state per rank."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor


def random_states(fabric: Fabric) -> list[dict[str, Tensor]]:
    """The generators' states of all ranks; to be called by every rank."""
    states: list[Any] = [None] * fabric.world_size
    if fabric.world_size == 1:
        return [_random_state()]
    dist.all_gather_object(states, _random_state())
    return states


def restore_random_states(fabric: Fabric, states: list[dict[str, Tensor]]) -> None:
    """Go on with this rank's random numbers, where as many ranks go on as there were."""
    if len(states) != fabric.world_size:
        return
    state = states[fabric.global_rank]
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def _random_state() -> dict[str, Tensor]:
    cuda = {"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {}
    return {"cpu": torch.get_rng_state()} | cuda


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The CPU's random numbers from ``seed`` within the block; afterwards they go on as if nothing had been drawn.

    The generators of other devices are left alone: there every rank keeps random numbers of its own.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield

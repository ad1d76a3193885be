"""The lint in several processes of one machine, as ranks of a gloo group on the CPU."""

import hashlib
import logging
import os
import pickle
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import ProcessException, spawn
from torch.nn.parallel import DistributedDataParallel
from torch.utils import _pytree as pytree

from ..errors import InputError
from .factory import make
from .group import averaged_by_itself
from .linting import lint
from .report import LintReport

#: How long a collective call waits for the other ranks.
_TIMEOUT = timedelta(minutes=5)


def lint_on_ranks(factory: str, ranks: int) -> tuple[LintReport, list[str]]:
    """Lint what a factory makes in each of several processes.

    Every process calls the factory within the group, so it may wrap its model itself and give each rank a batch of its
    own. A model that is not wrapped is wrapped in ``DistributedDataParallel``, unless the loss uses what that has not
    got, such as the model's methods. A batch that is the same everywhere is divided along its first axis.

    Args:
        factory: ``module:factory``; it has to return (model, batch, loss, optimizer).
        ranks: How many processes, two or more.

    Returns:
        The report of rank 0, and a line for each thing that was done to what the factory returned.

    Raises:
        InputError: A rank failed, or the batch cannot be divided.
    """
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # what torch has to say of its own about ranks and their end
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    with TemporaryDirectory() as name:
        folder = Path(name)
        try:
            spawn(_work, args=(factory, ranks, folder), nprocs=ranks)
        except ProcessException as error:
            told = folder / f"{error.error_index}.error"
            why = told.read_text() if told.exists() else str(error).strip().splitlines()[-1]
            raise InputError(why if why.startswith("on rank ") else f"on rank {error.error_index}: {why}") from None
        return pickle.loads((folder / "report").read_bytes())


def _work(rank: int, factory: str, ranks: int, folder: Path) -> None:
    """Be one rank; the first one leaves the report."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // ranks))
    meeting = f"file://{folder / 'meeting'}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=ranks, timeout=_TIMEOUT)
    try:
        linted = lint_share(make(factory), rank, ranks)
    except InputError as error:
        (folder / f"{rank}.error").write_text(str(error))
        raise
    if rank == 0:
        (folder / "report").write_bytes(pickle.dumps(linted))
    dist.barrier()  # a rank that leaves while the group's threads are at work is aborted
    dist.destroy_process_group()


def lint_share(parts: Sequence[Any], rank: int, ranks: int) -> tuple[LintReport, list[str]]:
    """Lint this rank's share of what the factory returned, in a group of so many ranks.

    Returns:
        The report, and a line for each thing that was done to what the factory returned.
    """
    if len(parts) == 1:
        raise InputError("several ranks need a batch: let the factory return (model, batch, loss, optimizer)")
    model, batch, loss, optimizer = parts
    told = []
    if batch is not None and _same_everywhere(batch, ranks):
        batch = share(batch, rank, ranks)
        told.append(f"the factory gave every rank the same batch: each takes 1/{ranks} of it, along the first axis")
    if averaged_by_itself(model) or not any(p.requires_grad for p in model.parameters()):
        return lint(model, batch, loss, optimizer), told
    try:
        wrapped = DistributedDataParallel(model, find_unused_parameters=True)
        return lint(wrapped, batch, loss, optimizer), [*told, "the model is wrapped in DistributedDataParallel"]
    except InputError as error:
        why = error.__cause__
        if not (isinstance(why, AttributeError) and isinstance(why.obj, DistributedDataParallel)):
            raise
        told.append(f"the model is not wrapped: the loss uses {why.name}, which DistributedDataParallel has not got")
    return lint(model, batch, loss, optimizer), told


def _same_everywhere(batch: Any, ranks: int) -> bool:
    marks: list[Any] = [None] * ranks
    dist.all_gather_object(marks, fingerprint(batch))
    return len({*marks}) == 1


def fingerprint(batch: Any) -> str:
    """A digest of the numbers in a batch, by which equal batches are known."""
    digest = hashlib.sha256()
    for leaf in pytree.tree_leaves(batch):
        digest.update(leaf.detach().cpu().numpy().tobytes() if isinstance(leaf, Tensor) else repr(leaf).encode())
    return digest.hexdigest()


def share(batch: Any, rank: int, ranks: int) -> Any:
    """The part of a batch that is this rank's: of each tensor, an equal part of its first axis.

    Raises:
        InputError: It holds no tensor, tensors of several lengths, or a length that cannot be divided.
    """
    lengths = {len(leaf) for leaf in pytree.tree_leaves(batch) if isinstance(leaf, Tensor) and leaf.ndim}
    if len(lengths) != 1:
        shown = f"tensors of lengths {', '.join(map(str, sorted(lengths)))}" if lengths else "no tensor"
        raise InputError(
            f"the batch is the same on all ranks and cannot be divided: it is {type(batch).__name__} with {shown}; let"
            " the factory give each rank a batch of its own, by torch.distributed.get_rank()"
        )
    (length,) = lengths
    if length % ranks:
        raise InputError(
            f"the batch of {length} cannot be divided among {ranks} ranks: make it {_multiple(length, ranks)}, or give"
            " each rank a batch of its own, by torch.distributed.get_rank()"
        )
    return pytree.tree_map(
        lambda leaf: leaf.chunk(ranks)[rank] if isinstance(leaf, Tensor) and leaf.ndim else leaf, batch
    )


def _multiple(length: int, ranks: int) -> int:
    """The multiple of ``ranks`` nearest to ``length``, one at least."""
    return max(1, round(length / ranks)) * ranks

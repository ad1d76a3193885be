"""What has to hold before the instrument is attached: compiled graphs, optimizers, ranks."""

import warnings
from collections.abc import Iterator, Sequence
from datetime import timedelta
from itertools import count
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from ..errors import InputError
from ..probes import FoundCodebooks
from ..ranks import in_group, rank_and_size
from .hooks import left_out_of_graphs

#: Seconds that the monitors of other ranks are waited for at the first step.
_PATIENCE = timedelta(seconds=5)
_attached = count()


def check_attachment(model: nn.Module, codebooks: FoundCodebooks, optimizers: Sequence[torch.optim.Optimizer]) -> None:
    """Refuse what would give wrong numbers, and warn of what is likely a mistake.

    Raises:
        InputError: A quantizer is inside a compiled graph, or no optimizer trains the model.
    """
    check_compiled(model, codebooks)
    if codebooks.unread:
        told = "; ".join(f"{path}: {why}" for path, why in codebooks.unread.items())
        warnings.warn(f"vqtool watches {', '.join(codebooks)}, and not {told}", stacklevel=4)
    held = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    parameters = list(model.parameters())
    if parameters and not any(id(parameter) in held for parameter in parameters):
        raise InputError(
            f"the optimizer holds none of the parameters of {type(model).__name__}: pass the one that trains it"
        )
    for name, codebook in codebooks.items():
        if lacking := [p for p in codebook.parameters() if id(p) not in held]:
            learns = "requires a gradient but" if any(p.requires_grad for p in lacking) else "is frozen:"
            warnings.warn(
                f"the codebook of {name} {learns} is in no optimizer that was passed; if another one trains it, pass"
                " both as a list",
                stacklevel=4,
            )


def check_compiled(model: nn.Module, codebooks: FoundCodebooks) -> None:
    """Refuse a quantizer that is inside a compiled graph.

    Raises:
        InputError: One is.
    """
    for name, codebook in codebooks.items():
        if left_out_of_graphs(codebook.module):
            continue
        for module in _around(model, codebook.module):
            if hasattr(type(module), "_orig_mod") or "_orig_mod" in module._modules or _compiled_in_place(module):
                where = "model" if codebook.module is model else f"model.{name}"
                raise InputError(
                    f"{name} is inside a compiled graph, where it cannot be read without changing the loss in its last"
                    f" digits: leave it out with {where}.forward = torch.compiler.disable({where}.forward) before"
                    " torch.compile, or train uncompiled"
                )


def _compiled_in_place(module: nn.Module) -> bool:
    return vars(module).get("_compiled_call_impl") is not None


def _around(model: nn.Module, inner: nn.Module) -> Iterator[nn.Module]:
    """The modules of the model that hold ``inner``, itself among them."""
    return (module for module in model.modules() if any(child is inner for child in module.modules()))


def started(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer has taken steps, as far as its state tells: plain SGD keeps none."""
    return any(bool(state) for state in optimizer.state.values())


class RankCall:
    """Makes sure that every rank has attached a monitor before the first of their sums meet.

    A monitor on some of the ranks only would wait for the others until the group's time-out.
    """

    def __init__(self) -> None:
        self._number = next(_attached)
        self._checked = False
        self._answer()

    def _answer(self) -> None:
        if in_group():
            self._store().set(self._key(rank_and_size()[0]), "here")

    def check(self) -> None:
        """Wait a little for the other ranks, once.

        Raises:
            InputError: One of them has no monitor.
        """
        if self._checked or not in_group():
            return
        self._checked = True
        self._answer()  # again: the group may be younger than the monitor
        store, keys = self._store(), [self._key(rank) for rank in range(rank_and_size()[1])]
        try:
            store.wait(keys, _PATIENCE)
        except (RuntimeError, dist.DistStoreError):
            missing = [rank for rank, key in enumerate(keys) if not store.check([key])]
            raise InputError(
                f"no monitor is attached on rank {', '.join(map(str, missing))}: attach one on every rank, with sinks"
                " on rank 0 and [] on the others"
            ) from None

    def _key(self, rank: int) -> str:
        return f"vqtool/monitor/{self._number}/{rank}"

    def _store(self) -> Any:
        return dist.distributed_c10d._get_default_store()

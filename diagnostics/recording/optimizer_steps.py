"""When an optimizer steps, and what its gradients carry then: closures, gradient scalers, wrapped optimizers."""

import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from ..errors import InputError
from .sums import row_norms


class GradientState(NamedTuple):
    """What has to be known of the gradients that an optimizer is about to use.

    Attributes:
        scale: () what they are still multiplied by, because a fused optimizer divides them itself; None for nothing.
        used: () bool, False where that optimizer is going to leave them unused; None where it uses them.
        loss_scale: () what the loss was multiplied by before its backward passes; None where nothing tells.
    """

    scale: Tensor | None = None
    used: Tensor | None = None
    loss_scale: Tensor | None = None

    def row_norms(self, gradient: Tensor | None) -> Tensor | None:
        """(K,) float32 norms of the rows of a gradient (K, D) as the optimizer uses it; zero where it does not."""
        if gradient is None:
            return None
        dense = gradient.to_dense() if gradient.is_sparse else gradient
        norms = row_norms(dense)
        norms = norms if self.scale is None else norms / self.scale
        return norms if self.used is None else norms.where(self.used, 0)

    def skipped(self) -> Tensor | float:
        """1 where the optimizer leaves the gradients unused, else 0."""
        return 0.0 if self.used is None else (~self.used).float()


class OptimizerSteps:
    """Tells when gradients are ready for an optimizer, and when its step is over.

    Where ``step`` is given a closure the gradients are ready after each of its evaluations, else before the step. A
    gradient scaler is found by itself at the first step that it takes; how often it was updated tells of the steps that
    it skipped.

    Args:
        optimizer: Whose steps are told of.
        scaler: The gradient scaler that takes the steps, or None to have it found.
        on_gradients: Called when gradients are ready; the last call before ``on_step`` counts.
        on_step: Called after each step.
        on_skip: Called with the number of steps that the scaler skipped, before more is counted or a step is taken.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler | None,
        on_gradients: Callable[[GradientState], None],
        on_step: Callable[[], None],
        on_skip: Callable[[int], None],
    ):
        self.optimizer = optimizer
        self.scaler = scaler
        self._on_gradients, self._on_step, self._on_skip = on_gradients, on_step, on_skip
        self._handles: list[RemovableHandle] = []
        self._told_of_any = False
        self._updates = 0 if scaler is None else _updates(scaler)

    def attach(self) -> None:
        """Hang the hooks on."""
        self._handles = [
            self.optimizer.register_step_pre_hook(self._before),
            self.optimizer.register_step_post_hook(self._after),
        ]

    def detach(self) -> None:
        """Take them away."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def settle(self) -> None:
        """Tell of the steps that the scaler has skipped since the last step; to be asked before tokens are counted."""
        if self.scaler is not None and (skipped := _updates(self.scaler) - self._updates) > 0:
            self._updates += skipped
            self._on_skip(skipped)

    def forget_skips(self) -> None:
        """Take the scaler's updates so far as told of."""
        self._told_of_any = True
        if self.scaler is not None:
            self._updates = _updates(self.scaler)

    def _before(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.scaler is None and (scaler := _scaler_on_stack()) is not None:
            self.scaler = scaler
            self._updates = _updates(scaler) - (0 if self._told_of_any else _skipped_at_first(scaler))
        self.settle()
        closure = kwargs["closure"] if "closure" in kwargs else next(iter(args[1:]), None)
        if not callable(closure):
            self._on_gradients(self._state())
            return None

        def watched() -> Any:
            loss = closure()
            self._on_gradients(self._state())
            return loss

        if "closure" in kwargs:
            return args, kwargs | {"closure": watched}
        return (args[0], watched, *args[2:]), kwargs

    def _after(self, *_: Any) -> None:
        if self.scaler is not None:
            self._updates += 1  # the update that follows is this step's own
        self._told_of_any = True
        self._on_step()

    def _state(self) -> GradientState:
        # A fused optimizer is given these two for the time of its step: torch.amp.GradScaler.step.
        found_inf = getattr(self.optimizer, "found_inf", None)
        used = None if found_inf is None else found_inf == 0
        return GradientState(getattr(self.optimizer, "grad_scale", None), used, self._loss_scale())

    def _loss_scale(self) -> Tensor | None:
        if self.scaler is not None and self.scaler.is_enabled():
            return self.scaler._scale
        return None


def plain_optimizer(optimizer: Any) -> torch.optim.Optimizer:
    """The optimizer inside what accelerate, Fabric and Lightning wrap it in.

    Raises:
        InputError: There is none.
    """
    inner = optimizer
    while not isinstance(inner, torch.optim.Optimizer) or "_optimizer_step_pre_hooks" not in vars(inner):
        inner = vars(inner).get("optimizer", vars(inner).get("_optimizer")) if hasattr(inner, "__dict__") else None
        if inner is None:
            raise InputError(f"optimizer should be a torch.optim.Optimizer or a list of them, got {optimizer!r:.80}")
    return inner


def plain_optimizers(optimizers: Any) -> Sequence[torch.optim.Optimizer]:
    """One optimizer or several as a list of plain ones.

    Raises:
        InputError: One of them is none, or there is none at all.
    """
    several = optimizers if isinstance(optimizers, list | tuple) else [optimizers]
    if not several:
        raise InputError("optimizer is an empty list: pass the optimizer that trains the model")
    return [plain_optimizer(optimizer) for optimizer in several]


def _scaler_on_stack() -> torch.amp.GradScaler | None:
    """The enabled gradient scaler that is taking this step, if one is: ``GradScaler.step`` calls ``Optimizer.step``."""
    frame = sys._getframe(1)
    while frame is not None:
        caller = frame.f_locals.get("self") if frame.f_code.co_name == "step" else None
        if isinstance(caller, torch.amp.GradScaler) and caller.is_enabled():
            return caller
        frame = frame.f_back
    return None


def _updates(scaler: torch.amp.GradScaler) -> int:
    """How often the scaler was updated. Each update writes its scale in place, and the host counts those writes."""
    return 0 if scaler._scale is None else scaler._scale._version


def _skipped_at_first(scaler: torch.amp.GradScaler) -> int:
    """How many steps a scaler has skipped that has skipped every step so far; 0 for one that has taken steps."""
    updates = _updates(scaler)
    backed_off = scaler._init_scale * scaler.get_backoff_factor() ** updates
    return updates if scaler.get_scale() == backed_off else 0

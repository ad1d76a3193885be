"""What the learners of both stages have in common: a step over micro-batches, and a state that can be kept."""

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from ...diagnostics import Sink
from .optimization import learning_rate, set_learning_rate
from .randomness import random_states, restore_random_states
from .settings import OptimizerSettings, RunConfig

#: Losses by name, each ().
Losses = dict[str, Tensor]

Model = TypeVar("Model", bound=nn.Module)


class Watch(Protocol):
    """An instrument: ``CodebookMonitor``, ``TokenMonitor``."""

    sinks: list[Sink]

    def step_over(self) -> None: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...
    def detach(self) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Learner(Generic[Model]):
    """All that a training step changes.

    Args:
        fabric: Where and in what precision.
        config: The settings of the run.
        model: On the device already.
        optimizer: Trains it.
        monitor: Watches it.
    """

    def __init__(
        self,
        fabric: Fabric,
        config: RunConfig,
        model: Model,
        optimizer: torch.optim.Optimizer,
        monitor: Watch,
    ):
        self.fabric, self.model, self.monitor = fabric, model, monitor
        self._train = config.train
        self.wrapped, self.optimizer = fabric.setup(model, optimizer)

    def parameters_trained(self) -> int:
        """Number of parameters of the model that the optimizer trains."""
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)

    def set_rate(self, settings: OptimizerSettings, step: int, *optimizers: Any) -> None:
        """Give each of the optimizers the learning rate of optimizer step ``step`` (from 0)."""
        for optimizer in optimizers:
            set_learning_rate(optimizer, learning_rate(settings, step, self._train.steps))

    def descend(
        self, module: Any, optimizer: Any, loss_of: Callable[[int], Tensor], clip_norm: float | None = None
    ) -> None:
        """One step of ``optimizer`` down the mean of the losses () of all micro-batches.

        Args:
            module: What it trains, as Fabric has wrapped it.
            optimizer: As Fabric has wrapped it.
            loss_of: From the number of a micro-batch to its loss.
            clip_norm: Largest gradient norm; None: not clipped.
        """
        micro_batches = self._train.accumulate
        optimizer.zero_grad(set_to_none=True)
        for micro in range(micro_batches):
            with self.fabric.no_backward_sync(module, enabled=micro + 1 < micro_batches):
                self.fabric.backward(loss_of(micro) / micro_batches)
        if clip_norm is not None:
            self.fabric.clip_gradients(module, optimizer, max_norm=clip_norm)
        optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on, besides the data; to be taken between two steps, by every rank."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "monitor": self.monitor.state_dict(),
            "random": random_states(self.fabric),
        }

    def load_state_dict(self, state: dict[str, Any], load_weights: Callable[[nn.Module, Any], None]) -> None:
        """Go on from ``state_dict``; ``load_weights`` puts weights into a module, or says why they do not fit."""
        load_weights(self.model, state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.monitor.load_state_dict(state["monitor"])
        restore_random_states(self.fabric, state["random"])


def mean_losses(parts: list[Losses]) -> Losses:
    """The means of the losses of several micro-batches."""
    return {name: torch.stack([losses[name] for losses in parts]).mean() for name in parts[0]}

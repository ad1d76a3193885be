"""What learns in the second stage: the transformer, its optimizer, and the instrument that watches."""

from collections.abc import Callable
from typing import Any

from lightning_fabric import Fabric
from torch import Tensor, nn

from ...diagnostics.errors import InputError
from ...diagnostics.recording.token_monitor import TokenMonitor
from ..data import Batches
from ..training.optimization import learning_rate, set_learning_rate
from ..training.randomness import random_states, restore_random_states
from ..training.stage import Losses
from .gpt import adamw
from .model import CodeTransformer
from .settings import TransformerConfig

TRACE = "tokens"


class TransformerLearner:
    """All that a training step changes, and the step itself.

    Args:
        fabric: Where and in what precision.
        config: The settings of the run.
        model: The transformer.
        data: What a checkpoint tells of the data, plain values and tensors: a run goes on with the same data only.
    """

    def __init__(self, fabric: Fabric, config: TransformerConfig, model: CodeTransformer, data: dict[str, Any]):
        self.fabric, self.config, self.data = fabric, config, data
        self.model: CodeTransformer = fabric.to_device(model)  # type: ignore[assignment]
        gpt, settings = self.model.gpt, config.optimizer
        optimizer = adamw(gpt, settings.lr, betas=settings.betas, weight_decay=settings.weight_decay)
        self.monitor = TokenMonitor(
            gpt.tok_emb, gpt.head, optimizer, codes=config.codebook_size, every=config.train.every, name=TRACE
        )
        self.wrapped, self.optimizer = fabric.setup(self.model, optimizer)

    def parameters_trained(self) -> int:
        """Number of parameters of the transformer."""
        return sum(p.numel() for p in self.model.parameters())

    def step(self, step: int, batches: Batches) -> Losses:
        """Optimizer step ``step`` (from 0); the loss by name, a mean over micro-batches, on the device."""
        self.model.train()
        settings, accumulate = self.config.optimizer, self.config.train.accumulate
        set_learning_rate(self.optimizer, learning_rate(settings, step, self.config.train.steps))
        self.optimizer.zero_grad(set_to_none=True)
        total: Tensor | float = 0.0
        for micro in range(accumulate):
            prefix, codes = self.fabric.to_device(batches(step, micro))
            with self.fabric.no_backward_sync(self.wrapped, enabled=micro + 1 < accumulate):
                nll = self.wrapped(prefix, codes)
                self.fabric.backward(nll.mean() / accumulate)
            self.monitor.observe(codes, nll)
            total = total + nll.detach().mean() / accumulate
        if settings.clip_norm is not None:
            self.fabric.clip_gradients(self.wrapped, self.optimizer, max_norm=settings.clip_norm)
        self.optimizer.step()
        return {"loss/nll": total}  # type: ignore[dict-item]

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on, besides the data; to be taken between two steps, by every rank."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "monitor": self.monitor.state_dict(),
            "random": random_states(self.fabric),
            "data": self.data,
        }

    def load_state_dict(self, state: dict[str, Any], load_weights: Callable[[nn.Module, Any], None]) -> None:
        """Go on from ``state_dict``.

        Raises:
            InputError: The weights do not fit, or the codes of the training split are others than they were.
        """
        for name, value in self.data.items():
            if state["data"][name] != value:
                raise InputError(
                    f"the run cannot go on: the {name} of the training data are not what they were when it began"
                )
        load_weights(self.model, state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.monitor.load_state_dict(state["monitor"])
        restore_random_states(self.fabric, state["random"])

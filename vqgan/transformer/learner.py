"""What learns in the second stage."""

from collections.abc import Callable
from typing import Any

from lightning_fabric import Fabric
from torch import Tensor, nn

from ...diagnostics.errors import InputError
from ...diagnostics.recording.token_monitor import TokenMonitor
from ..data import Batches
from ..training.learner import Learner, Losses, mean_losses
from .gpt import adamw
from .model import CodeTransformer
from .settings import TransformerConfig

TRACE = "tokens"


class TransformerLearner(Learner[CodeTransformer]):
    """The transformer, its optimizer, and the instrument that watches.

    Args:
        fabric: Where and in what precision.
        config: The settings of the run.
        model: The transformer.
        data: What a checkpoint tells of the data, plain values and tensors: a run goes on with the same data only.
    """

    monitor: TokenMonitor

    def __init__(self, fabric: Fabric, config: TransformerConfig, model: CodeTransformer, data: dict[str, Any]):
        self.config, self.data = config, data
        model = fabric.to_device(model)  # type: ignore[assignment]
        gpt, settings = model.gpt, config.optimizer
        optimizer = adamw(gpt, settings.lr, betas=settings.betas, weight_decay=settings.weight_decay)
        monitor = TokenMonitor(
            gpt.tok_emb, gpt.head, optimizer, codes=config.codebook_size, every=config.train.every, name=TRACE
        )
        super().__init__(fabric, config, model, optimizer, monitor)

    def step(self, step: int, batches: Batches) -> Losses:
        """Optimizer step ``step`` (from 0); the loss by name, a mean over micro-batches, on the device."""
        self.model.train()
        parts: list[Losses] = []

        def loss_of(micro: int) -> Tensor:
            prefix, codes = self.fabric.to_device(batches(step, micro))
            nll = self.wrapped(prefix, codes)
            self.monitor.observe(codes, nll)
            parts.append({"loss/nll": nll.detach().mean()})
            return nll.mean()

        self.set_rate(self.config.optimizer, step, self.optimizer)
        self.descend(self.wrapped, self.optimizer, loss_of, self.config.optimizer.clip_norm)
        self.monitor.step_over()
        return mean_losses(parts)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"data": self.data}

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
        super().load_state_dict(state, load_weights)

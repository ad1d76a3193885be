"""``TokenMonitor``: the instrument of a model over code indices."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from .records import TokenRecord
from .sinks import Sink
from .step_monitor import StepMonitor
from .sums import Sums, on_host


class TokenMonitor(StepMonitor[TokenRecord]):
    """Records how well each code is predicted while a model over codes is trained, and changes nothing of the model.

    Rows 0 to ``codes`` - 1 of the embedding and of the head are the codes; both may be one parameter. Who trains tells
    ``observe`` of every micro-batch; a step pre-hook of the optimizer closes each optimizer step, when the gradients
    are what the optimizer sees: unscaled, clipped, reduced over ranks. The sums stay on the device, and the host waits
    for it only when a record is made.

    Args:
        embedding: Table of the tokens that go in.
        head: Gives the logits of the tokens that come out.
        optimizer: The optimizer that trains them.
        sinks: Where records go. Under distributed training give sinks to rank 0 and an empty list to the others.
        codes: K, how many of the tokens are codes.
        every: Optimizer steps per record.
        name: Name of the trace.

    Raises:
        InputError: The embedding or the head has fewer rows than there are codes.
    """

    def __init__(
        self,
        embedding: nn.Embedding,
        head: nn.Linear,
        optimizer: torch.optim.Optimizer,
        sinks: Iterable[Sink[TokenRecord]] = (),
        *,
        codes: int,
        every: int = 100,
        name: str = "tokens",
    ):
        super().__init__(optimizer, sinks, every)
        for table, rows in {"embedding": len(embedding.weight), "head": len(head.weight)}.items():
            if rows < codes:
                raise InputError(f"the {table} has {rows} rows, fewer than the {codes} codes")
        self.name = name
        self._embedding, self._head = embedding, head
        self._window = TokenWindow(codes, head.weight.device)
        self.attach()

    @torch.no_grad()
    def observe(self, targets: Tensor, nll: Tensor) -> None:
        """Take in one micro-batch.

        Args:
            targets: Codes that were to be predicted, int64 of any shape, below ``codes``.
            nll: Their -ln p in nats, of the same shape.
        """
        self._window.add(targets.flatten(), nll.flatten())

    def _read_step(self) -> None:
        self._window.end_step(self._embedding.weight.grad, self._head.weight.grad)

    def _skip_step(self) -> None:
        self._window.skip_step()

    def _steps_open(self) -> int:
        return self._window.steps

    def _close_windows(self) -> Iterator[TokenRecord]:
        yield self._window.close(self.name, self.step, self._embedding.weight, self._head.weight)

    def state_dict(self) -> dict[str, Any]:
        """The step and the open window; with them a resumed run leaves the trace of an uninterrupted one."""
        return {"step": self.step, "window": self._window.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state_dict``."""
        self.step = state["step"]
        self._window.load_state_dict(state["window"])


class TokenWindow(Sums):
    """Adds up what happens to K codes between two records. Nothing here waits for the device until ``close``."""

    of_each_rank = ("targets", "nll")

    def __init__(self, codes: int, device: torch.device):
        self.steps = self.skipped = 0
        self.targets = torch.zeros(codes, dtype=torch.int64, device=device)
        self.nll = torch.zeros(codes, dtype=torch.float64, device=device)
        self.embedding_grad_norm: Tensor | None = None
        self.head_grad_norm: Tensor | None = None

    def add(self, targets: Tensor, nll: Tensor) -> None:
        """Take in (N,) targets and their negative log likelihoods."""
        self.targets.index_add_(0, targets, torch.ones_like(targets))
        self.nll.index_add_(0, targets, nll.double())

    def end_step(self, embedding_gradient: Tensor | None, head_gradient: Tensor | None) -> None:
        """Close one optimizer step, with the gradients that the optimizer is about to use."""
        self.steps += 1
        self.embedding_grad_norm = self._add_rows(self.embedding_grad_norm, embedding_gradient)
        self.head_grad_norm = self._add_rows(self.head_grad_norm, head_gradient)

    def skip_step(self) -> None:
        """Close one step of which the optimizer used nothing."""
        self.steps += 1
        self.skipped += 1

    def _add_rows(self, total: Tensor | None, gradient: Tensor | None) -> Tensor | None:
        if gradient is None:
            return total
        dense = gradient.to_dense() if gradient.is_sparse else gradient
        norms = self._row_norms(dense)
        return norms if total is None else total + norms

    def _row_norms(self, table: Tensor) -> Tensor:
        """(K,) norms of the rows that are codes."""
        return torch.linalg.vector_norm(table[: len(self.targets)], dim=1, dtype=torch.float32)

    def close(self, name: str, step: int, embedding: Tensor, head: Tensor) -> TokenRecord:
        """The record of the window, reduced over ranks, and a fresh start. Here the host waits for the device."""
        targets, nll = self.over_ranks()
        nothing = torch.full_like(nll, torch.nan, dtype=torch.float32)
        gradients = self.embedding_grad_norm, self.head_grad_norm
        embedding_gradient, head_gradient = (
            nothing if g is None else g / (self.steps - self.skipped) for g in gradients
        )
        record = TokenRecord(
            codebook=name,
            step=step,
            window=self.steps,
            targets=on_host(targets),
            nll=on_host((nll / targets).float()),  # 0 / 0 = NaN: no target, no likelihood
            embedding_norm=on_host(self._row_norms(embedding)),
            embedding_grad_norm=on_host(embedding_gradient),
            head_norm=on_host(self._row_norms(head)),
            head_grad_norm=on_host(head_gradient),
        )
        self.targets.zero_()
        self.nll.zero_()
        self.embedding_grad_norm = self.head_grad_norm = None
        self.steps = self.skipped = 0
        return record

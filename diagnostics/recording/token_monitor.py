"""``TokenMonitor``: the instrument of a model over code indices."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from .optimizer_steps import GradientState
from .records import TokenRecord
from .sinks import Sink
from .step_monitor import StepMonitor
from .sums import Sums, on_host, row_norms


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

    def _read_gradients(self, state: GradientState) -> None:
        self._window.read_gradients(self._embedding.weight.grad, self._head.weight.grad, state)
        if (self.step + 1) % self.every == 0:
            self._window.read_norms(self._embedding.weight, self._head.weight)

    def _close_step(self) -> None:
        self._window.close_step()

    def _forwards_open(self) -> int:
        return self._window.forwards_open

    def _skip_step(self) -> None:
        self._window.skip_step()

    def _steps_open(self) -> int:
        return self._window.steps

    def _close_windows(self) -> Iterator[TokenRecord]:
        if not self._window.norms_read:
            self._window.read_norms(self._embedding.weight, self._head.weight)
        yield self._window.close(self.name, self.step)

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
        self.steps = 0
        self.skipped = torch.zeros((), device=device)
        self.targets = torch.zeros(codes, dtype=torch.int64, device=device)
        self.nll = torch.zeros(codes, dtype=torch.float64, device=device)
        self.embedding_grad_norm: Tensor | None = None
        self.head_grad_norm: Tensor | None = None
        # Within one optimizer step:
        self.forwards_open = 0
        self._gradients: list[Tensor | None] = [None, None]
        self._skipped: Tensor | float = 0.0
        self._norms: tuple[Tensor, ...] | None = None

    def add(self, targets: Tensor, nll: Tensor) -> None:
        """Take in (N,) targets and their negative log likelihoods."""
        self.forwards_open += 1
        self.targets.index_add_(0, targets, torch.ones_like(targets))
        self.nll.index_add_(0, targets, nll.double())

    def read_gradients(self, embedding: Tensor | None, head: Tensor | None, state: GradientState) -> None:
        """Take in the gradients that the optimizer is about to use, in the place of those taken in before."""
        codes = len(self.targets)
        self._gradients = [state.row_norms(None if g is None else _dense(g)[:codes]) for g in (embedding, head)]
        self._skipped = state.skipped()

    def close_step(self) -> None:
        """Close one optimizer step."""
        embedding, head = self._gradients
        self.embedding_grad_norm = _added(self.embedding_grad_norm, embedding)
        self.head_grad_norm = _added(self.head_grad_norm, head)
        self._gradients = [None, None]
        self.skipped += self._skipped
        self._end_step()

    def skip_step(self) -> None:
        """Close one step of which the optimizer used nothing."""
        self.skipped += 1
        self._end_step()

    def _end_step(self) -> None:
        self.steps += 1
        self.forwards_open = 0

    def read_norms(self, embedding: Tensor, head: Tensor) -> None:
        """Take in the tables that the window's record tells of, before the optimizer moves them."""
        codes = len(self.targets)
        self._norms = tuple(row_norms(table[:codes]) for table in (embedding, head))

    @property
    def norms_read(self) -> bool:
        """Whether ``read_norms`` was called since the last record."""
        return self._norms is not None

    def close(self, name: str, step: int) -> TokenRecord:
        """The record of the window, reduced over ranks, and a fresh start. Here the host waits for the device."""
        assert self._norms is not None
        embedding_norm, head_norm = self._norms
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
            embedding_norm=on_host(embedding_norm),
            embedding_grad_norm=on_host(embedding_gradient),
            head_norm=on_host(head_norm),
            head_grad_norm=on_host(head_gradient),
        )
        self.targets.zero_()
        self.nll.zero_()
        self.embedding_grad_norm = self.head_grad_norm = None
        self.skipped.zero_()
        self.steps = 0
        self._norms = None
        return record


def _dense(gradient: Tensor) -> Tensor:
    return gradient.to_dense() if gradient.is_sparse else gradient


def _added(total: Tensor | None, norms: Tensor | None) -> Tensor | None:
    return norms if total is None else total if norms is None else total + norms

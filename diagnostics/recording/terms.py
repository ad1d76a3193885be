"""What each term of the loss asks of the encoder, where its user names the terms."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from ..ranks import rank_and_size, sum_over_ranks
from .boundary import Crossing
from .rows import TermRow

#: Terms of a loss by their names: the weight of each, and its value () before weighting.
LossTerms = Mapping[str, tuple[float, Tensor]]


class Terms:
    """The rows of the steps in which the terms are looked at. Nothing waits for the device until ``rows``."""

    def __init__(self) -> None:
        self._done: list[tuple[int, str, float, Tensor]] = []  # step, term, weight, (value, squared norm)

    def add(self, step: int, terms: LossTerms, crossings: Sequence[Crossing]) -> None:
        """Take the gradients of the terms at the latents of the forwards whose graph is there, all of them paused."""
        entering = [crossing.entering.tensor for crossing in crossings if crossing.entering.tensor.requires_grad]
        for name, (weight, value) in terms.items():
            squares = torch.zeros((), dtype=torch.float64, device=value.device)
            if entering and value.requires_grad:
                for gradient in torch.autograd.grad(value, entering, retain_graph=True, allow_unused=True):
                    if gradient is not None:
                        squares = squares + gradient.double().square().sum()
            self._keep(step, name, float(weight), torch.stack([value.detach().double(), squares]))

    def _keep(self, step: int, name: str, weight: float, sums: Tensor) -> None:
        """Micro-batches of one step are of different tokens: what they say of a term adds up."""
        for place, (before, term, _, so_far) in enumerate(self._done):
            if (before, term) == (step, name):
                self._done[place] = step, name, weight, so_far + sums
                return
        self._done.append((step, name, weight, sums))

    def rows(self, codebook: str) -> Iterator[TermRow]:
        """The rows since the last call, over all ranks. Here the host waits for the device."""
        ranks = rank_and_size()[1]
        for step, name, weight, sums in self._done:
            value, squares = sum_over_ranks(sums.clone()).tolist()
            norm = squares**0.5 / ranks  # each rank's loss is a mean of its own, and DDP means over ranks
            yield TermRow(
                codebook=codebook,
                step=step,
                term=name,
                weight=weight,
                value=value / ranks,
                grad_norm=norm,
                weighted_grad_norm=abs(weight) * norm,
            )
        self._done = []

    def state_dict(self) -> list[tuple[int, str, float, Tensor]]:
        """The rows that are not written yet, over all ranks; every rank takes part."""
        return [(step, name, weight, sum_over_ranks(sums.clone())) for step, name, weight, sums in self._done]

    def load_state_dict(self, state: list[tuple[int, str, float, Tensor]]) -> None:
        """Go on from ``state_dict``: the first rank with the sums of all, the others from none."""
        share = 1 if rank_and_size()[0] == 0 else 0
        self._done = [(step, name, weight, sums * share) for step, name, weight, sums in state]

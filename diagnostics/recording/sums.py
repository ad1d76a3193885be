"""Sums since the last record: how ranks and checkpoints share them."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from ..ranks import rank_and_size, sum_over_ranks


class Sums:
    """Attributes that add up on the device between two records, some of them on each rank for itself."""

    #: Names of the sums that each rank holds of its own share; all else is the same on every rank.
    of_each_rank: ClassVar[tuple[str, ...]]

    def over_ranks(self) -> list[Tensor]:
        """The sums ``of_each_rank``, added up over ranks; every rank takes part."""
        return [sum_over_ranks(getattr(self, name).clone()) for name in self.of_each_rank]

    def state_dict(self) -> dict[str, Any]:
        """All sums, for a checkpoint taken between two optimizer steps, by every rank."""
        state = {name: value.clone() if isinstance(value, Tensor) else value for name, value in vars(self).items()}
        return state | dict(zip(self.of_each_rank, self.over_ranks(), strict=True))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state_dict``: the first rank with the sums of all, the others from none.

        Sums that the state does not know, because an older version wrote it, go on from where they are.
        """
        device = getattr(self, self.of_each_rank[0]).device
        for name in vars(self).keys() & state.keys():
            value, now = state[name], getattr(self, name)
            if isinstance(value, Tensor) or isinstance(now, Tensor):
                value = torch.as_tensor(value, dtype=getattr(now, "dtype", None), device=device).clone()
            setattr(self, name, value)
        if rank_and_size()[0] > 0:
            for name in self.of_each_rank:
                getattr(self, name).zero_()


def row_norms(rows: Tensor) -> Tensor:
    """(K,) float32 L2 norms of the rows of (K, D), computed in float32 or better."""
    return torch.linalg.vector_norm(rows, dim=1, dtype=torch.promote_types(rows.dtype, torch.float32)).float()


def on_host(tensor: Tensor) -> Any:
    """A NumPy copy: the sums live on and are cleared in place."""
    return tensor.detach().to("cpu", copy=True).numpy()

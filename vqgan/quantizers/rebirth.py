"""Rows of a parameter that begin anew while Adam trains the others."""

from typing import Any

import torch
from torch import Tensor, nn


class Rebirth:
    """Makes the steps of rows that were rewritten those of a new parameter, under Adam and AdamW of any kind.

    Adam corrects its moments by 1 - b^t, t being the steps of the whole parameter. For a row whose moments were cleared
    at a late t that is no correction at all: with (0.9, 0.999) it moves by up to 6 lr in a step, where a new parameter
    moves by lr. So the k-th step of such a row is scaled by

        r = (1 - b1^t) / (1 - b1^k) sqrt((1 - b2^k) / (1 - b2^t)),

    which puts k in the place of t in both corrections (Kingma & Ba 2015, arXiv:1412.6980, algorithm 1; eps aside, which
    is scaled with them, as is the decay of AdamW). Rows that were never rewritten keep every bit of their steps. Other
    optimizers are left alone.

    Args:
        optimizer: Trains the parameters.
        parameters: Row k of each of them belongs to code k.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]):
        self.optimizer, self.parameters = optimizer, parameters
        # Steps of each parameter at the last rewriting of each row; NaN for a row that never was.
        self._born = [torch.full((len(p),), torch.nan, dtype=torch.float64, device=p.device) for p in parameters]
        self._age: int | None = None  # steps since the last rewriting of any row
        self._before: list[Tensor] = []
        if parameters and isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW):
            optimizer.register_step_pre_hook(self._keep)
            optimizer.register_step_post_hook(self._scale)

    @torch.no_grad()
    def begin(self, rows: Tensor) -> None:
        """Clear the moments of ``rows`` (R,), which have just been rewritten, and count their steps from here."""
        for parameter, born in zip(self.parameters, self._born, strict=True):
            state = self.optimizer.state.get(parameter, {})
            for moment in state.values():
                if torch.is_tensor(moment) and moment.shape == parameter.shape:
                    moment[rows] = 0
            if "step" in state:
                born[rows] = torch.as_tensor(state["step"], dtype=torch.float64).to(born.device)
        self._age = 0

    def _keep(self, *_: Any) -> None:
        if self._age is not None:
            self._before = [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def _scale(self, *_: Any) -> None:
        if self._age is None:
            return
        for parameter, before, born in zip(self.parameters, self._before, self._born, strict=True):
            if "step" in (state := self.optimizer.state.get(parameter, {})):
                scale = _scales(state["step"], born, self._betas(parameter)).to(parameter.dtype)
                columns = scale.view(-1, *[1] * (parameter.ndim - 1)).expand_as(parameter)
                parameter.copy_(before.lerp(parameter, columns))
        self._before = []
        self._age += 1
        if self._age > 20 / (1 - max(map(max, map(self._betas, self.parameters)))):
            self._age = None  # all scales are 1 to the last digit

    def _betas(self, parameter: nn.Parameter) -> tuple[float, float]:
        return next(
            group["betas"] for group in self.optimizer.param_groups if any(parameter is p for p in group["params"])
        )

    def state_dict(self) -> dict[str, Any]:
        """When which rows were rewritten."""
        return {"born": [born.clone() for born in self._born], "age": self._age}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state_dict``."""
        for born, saved in zip(self._born, state["born"], strict=True):
            born.copy_(saved)
        self._age = state["age"]


def _scales(step: Tensor | float, born: Tensor, betas: tuple[float, float]) -> Tensor:
    """R of each row (K,), 1 for those that never were rewritten; ``step`` may be on the device, and stays there."""
    t = step.to(born) if torch.is_tensor(step) else step
    k = (t - born).clamp(min=1)
    b1, b2 = betas
    r = (1 - b1**t) / (1 - b1**k) * ((1 - b2**k) / (1 - b2**t)) ** 0.5
    return r.nan_to_num(1.0)

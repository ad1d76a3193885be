"""What happens at the boundary of a quantizer: the gradient that comes in, the gradient that goes out, and why."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from ..probes import CodebookReading, Live
from ..ranks import rank_and_size, sum_over_ranks
from .estimators import ESTIMATORS
from .optimizer_steps import GradientState
from .rows import NAMED_FROM, BoundaryRow


class Crossing:
    """One forward whose gradients are awaited.

    Args:
        reading: What was read of it.
        entering: Where the gradient g_z to the encoder is read.
        leaving: Where the gradient g_q from the decoder is read.

    Attributes:
        paused: Whether gradients that come by are left alone: those of a single term, not of the loss.
    """

    def __init__(self, reading: CodebookReading, entering: Live, leaving: Live):
        self.entering = entering
        self.paused = False
        self.counted = reading.counted
        self.latents, self.codes = reading.latents, reading.codes
        self.outside = entering.tokens(entering.tensor.detach())
        leaving.tokens(leaving.tensor.detach())  # what cannot be done of a gradient fails here, not in a backward pass
        self.half = torch.float16 in (entering.tensor.dtype, leaving.tensor.dtype)
        self.decoder: Tensor | None = None
        self.encoder: Tensor | None = None
        self._handles = [*_hooked(leaving, self._add_decoder), *_hooked(entering, self._add_encoder)]

    def _add_decoder(self, gradient: Tensor) -> None:
        if not self.paused:
            self.decoder = gradient if self.decoder is None else self.decoder + gradient

    def _add_encoder(self, gradient: Tensor) -> None:
        if not self.paused:
            self.encoder = gradient if self.encoder is None else self.encoder + gradient

    def close(self) -> None:
        """Await no more."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def products(self) -> Tensor:
        """(P,) the sums over tokens that a row is made of, in float64; zero where no backward pass came by."""
        nothing = torch.zeros_like(self.latents)
        gradients = [nothing if g is None else g for g in (self.decoder, self.encoder)]
        counted = self.counted.unsqueeze(1)
        outside, z, q, g_q, g_z = (
            values.double().where(counted, 0) for values in (self.outside, self.latents, self.codes, *gradients)
        )
        sums = [counted.sum().double(), _dot(g_q, g_q), _dot(g_z, g_z), _dot(g_q, g_z)]
        for estimator in ESTIMATORS.values():
            carried, own = estimator(outside, z, q, g_q)
            sums += [_dot(carried, carried), _dot(carried, own), _dot(own, own), _dot(carried, g_z), _dot(own, g_z)]
        return torch.stack(sums)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum()


def _hooked(live: Live, take: Callable[[Tensor], None]) -> Iterator[RemovableHandle]:
    if live.tensor.requires_grad:
        # A gradient is undefined, None, where a backward pass comes by that does not depend on the tensor.
        yield live.tensor.register_hook(lambda g: None if g is None else take(live.tokens(g.detach())))


class Boundary:
    """The rows of the steps in which the boundary is watched. Nothing waits for the device until ``rows``."""

    def __init__(self) -> None:
        self._open: list[Crossing] = []
        self._done: list[tuple[int, Tensor, Tensor]] = []  # step, sums, loss scale (NaN: unknown)
        self._dim = 0

    def add(self, reading: CodebookReading) -> None:
        """Await the gradients of a forward, where its boundary can be reached."""
        if reading.entering is not None and reading.leaving is not None:
            self._open.append(Crossing(reading, reading.entering, reading.leaving))
            self._dim = reading.latents.shape[1]

    @property
    def crossings(self) -> list[Crossing]:
        """The forwards of the open step whose gradients are awaited."""
        return self._open

    def drop(self) -> None:
        """Await no more: the step was skipped."""
        for crossing in self._open:
            crossing.close()
        self._open = []

    def close_step(self, step: int, state: GradientState) -> None:
        """Close a step, with what is known of its gradients."""
        crossings = self._open
        if crossings and any(c.decoder is not None or c.encoder is not None for c in crossings):
            sums = torch.stack([crossing.products() for crossing in crossings]).sum(0)
            unknown = state.loss_scale is None and any(crossing.half for crossing in crossings)
            scale = torch.full((), torch.nan if unknown else 1.0) if state.loss_scale is None else state.loss_scale
            self._done.append((step, sums, scale.detach().clone()))
        self.drop()

    def rows(self, codebook: str) -> Iterator[BoundaryRow]:
        """The rows of the steps since the last call, over all ranks. Here the host waits for the device."""
        for step, sums, scale in self._done:
            total = sum_over_ranks(sums).cpu().numpy()
            yield _row(codebook, step, total, float(scale), self._dim)
        self._done = []

    def state_dict(self) -> dict[str, Any]:
        """The rows that are not written yet, over all ranks; every rank takes part."""
        return {
            "done": [(step, sum_over_ranks(sums.clone()), scale) for step, sums, scale in self._done],
            "dim": self._dim,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state_dict``: the first rank with the sums of all, the others from none."""
        share = 1 if rank_and_size()[0] == 0 else 0
        self._done, self._dim = [(step, sums * share, scale) for step, sums, scale in state["done"]], state["dim"]


def _row(codebook: str, step: int, sums: np.ndarray, loss_scale: float, dim: int) -> BoundaryRow:
    """A row from the sums of ``Crossing.products``, in which both gradients carry the loss scale and are per rank."""
    tokens, qq, zz, qz = sums[:4]
    with np.errstate(all="ignore"):
        unit = 1 / (loss_scale * rank_and_size()[1])  # DDP means over ranks
        fits = dict(zip(ESTIMATORS, (_Fit(zz, *five) for five in sums[4:].reshape(-1, 5)), strict=True))
        best = max(fits, key=lambda name: round(fits[name].r2, 9) if np.isfinite(fits[name].r2) else -np.inf)
        fit, named = fits[best], fits[best].r2 >= NAMED_FROM
        values = {
            "decoder_grad_norm": np.sqrt(qq) * unit,
            "encoder_grad_norm": np.sqrt(zz) * unit,
            "difference_norm": np.sqrt(max(0.0, qq + zz - 2 * qz)) * unit,
            "ratio": np.sqrt(zz / qq),
            "cosine": qz / np.sqrt(qq * zz),
            **{f"{name.replace('-', '_')}_r2": fits[name].r2 for name in ESTIMATORS},
            "loss_scale": loss_scale,
        }
        if named:
            values["gain"] = fit.carried
        if named and fit.leaves_little:
            pull = fit.own * unit
            values |= {
                "pull": pull,
                "commitment": pull * tokens * dim / 2,
                "commitment_grad_norm": abs(pull) * np.sqrt(fit.own_norm2),
            }
    finite = {name: float(value) for name, value in values.items() if np.isfinite(value)}
    estimator = None if not named else best if abs(fit.carried) >= 0.05 else "none"
    return BoundaryRow(codebook=codebook, step=step, tokens=int(tokens), estimator=estimator, **finite)


class _Fit:
    """g_z regressed on the carried decoder's gradient and the quantizer's own direction, through the origin."""

    def __init__(self, zz: float, cc: float, co: float, oo: float, cz: float, oz: float):
        # Scaled to unit columns: gradients are many orders smaller than z - q.
        norms = np.sqrt([cc, oo])
        norms[norms == 0] = 1
        gram = np.array([[cc, co], [co, oo]]) / np.outer(norms, norms)
        right = np.array([cz, oz]) / norms
        if not np.isfinite(gram).all() or not np.isfinite(right).all():
            self.carried = self.own = self.r2 = self.own_norm2 = self.zz = np.nan
            return
        solution = np.linalg.pinv(gram, rcond=1e-12) @ right
        self.carried, self.own = solution / norms
        self.own_norm2, self.zz = oo, zz
        self.r2 = float(solution @ right / zz) if zz > 0 else np.nan

    @property
    def leaves_little(self) -> bool:
        """Whether the quantizer's own direction explains what the decoder's gradient leaves of g_z.

        At most 1 % of that may remain, or 1e-8 of |g_z|^2, which is rounding. Otherwise another loss shares in it, and
        the coefficient of z - q is the weight of no commitment loss.
        """
        remains = max(0.0, 1 - self.r2) * self.zz
        return bool(remains <= 0.01 * self.own**2 * self.own_norm2 or remains <= 1e-8 * self.zz)

"""How a quantizer may carry the decoder's gradient back: the candidates that the boundary is fitted to."""

from collections.abc import Callable

import torch
from torch import Tensor

#: From (latents as they entered, latents z and codes q in the space of the codes, gradient g_q at q), each (N, D), to
#: what an estimator makes of g_q, and to the direction in which a commitment loss pulls, z - q, both at the entrance.
Estimator = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def straight_through(outside: Tensor, z: Tensor, q: Tensor, g_q: Tensor) -> tuple[Tensor, Tensor]:
    """g_q as it is (Bengio et al. 2013, arXiv:1308.3432)."""
    return g_q, z - q


def cosine(outside: Tensor, z: Tensor, q: Tensor, g_q: Tensor) -> tuple[Tensor, Tensor]:
    """Straight-through at z / |z|, carried back through the normalisation: (1 - u u^T) v / |z|, u = z / |z|."""
    norm = _norm(outside)
    u = outside / norm

    def back(v: Tensor) -> Tensor:
        return (v - u * (u * v).sum(1, keepdim=True)) / norm

    return back(g_q), back(z - q)


def rotation(outside: Tensor, z: Tensor, q: Tensor, g_q: Tensor) -> tuple[Tensor, Tensor]:
    """The transpose of the rotation from z to q, scaled by |q| / |z| (Fifty et al. 2024, arXiv:2410.06424, eq. 4)."""
    z_norm, q_norm = _norm(z), _norm(q)
    u, v = z / z_norm, q / q_norm
    s = (u + v) / _norm(u + v)
    turned = g_q - 2 * s * (s * g_q).sum(1, keepdim=True) + 2 * u * (v * g_q).sum(1, keepdim=True)
    return turned * q_norm / z_norm, z - q


def _norm(rows: Tensor) -> Tensor:
    return torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp(min=1e-12)


#: Every candidate by its name; the column of its R2 is made of it.
ESTIMATORS: dict[str, Estimator] = {
    "straight-through": straight_through,
    "cosine": cosine,
    "rotation": rotation,
}

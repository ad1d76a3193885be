"""Settings without an effect: a regularizer of codes that no gradient reaches."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wiring.base import Bug, D, K, closest, through, with_waves
from wiring.moving import EuclideanCodebook
from wiring.symptoms import without_effect


class Learnable(nn.Module):
    """Codes that are a parameter: the averages beside them are there and idle, as in lucidrains' ``Codebook``."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Parameter(0.3 * torch.randn(K, D))
        self.register_buffer("cluster_size", torch.ones(K))
        self.register_buffer("embed_avg", self.embed.detach().clone())

    def forward(self, x):
        flat = x.reshape(-1, x.shape[-1])
        ids = closest(flat, self.embed)
        return self.embed[ids].view(x.shape), ids.view(x.shape[:-1])


class Regularized(nn.Module):
    """A quantizer that asks its codes to be orthogonal."""

    def __init__(self, codebook: nn.Module):
        super().__init__()
        self.commitment_weight, self.orthogonal_reg_weight = 0.25, 1.0
        self._codebook = codebook

    @property
    def codebook(self):
        return self._codebook.embed

    def forward(self, x):
        x = x.transpose(1, 2)
        q, indices = self._codebook(x)
        loss = self.commitment_weight * F.mse_loss(x, q.detach()) + F.mse_loss(q, x.detach())
        loss = loss + self.orthogonal_reg_weight * overlap(self.codebook)
        return through(x, q).transpose(1, 2), indices, loss


def overlap(codes: Tensor) -> Tensor:
    """Mean squared cosine of two different codes."""
    directions = F.normalize(codes, dim=-1)
    return ((directions @ directions.T).square().sum() - K) / K**2


REGULARIZED_BUGS = {
    "orthogonal buffer": Bug(
        with_waves(lambda: Regularized(EuclideanCodebook())),
        ("settings",),
        "quantizer.orthogonal_reg_weight",
        "lucidrains/vector-quantize-pytorch#12",
        without_effect("quantizer", "orthogonal_reg_weight"),
        "orthogonal",
    ),
}

REGULARIZED_CLEAN = {"orthogonal": with_waves(lambda: Regularized(Learnable()))}

"""Faults in codebooks of moving averages: what a sum is divided by, and what becomes of a revived code."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wiring.base import SPREAD, Bug, D, K, closest, maps, through, tokens, with_images, with_waves
from wiring.symptoms import after_first_call, averages_apart, revival_lost

CODEBOOK = "quantizer._codebook"
AVERAGES = averages_apart(f"{CODEBOOK}.embed", f"{CODEBOOK}.embed_avg", f"{CODEBOOK}.cluster_size")


def drawn(samples: Tensor, count: int) -> Tensor:
    return samples[torch.randint(len(samples), (count,))]


def lloyd(samples: Tensor, rounds: int = 5) -> tuple[Tensor, Tensor]:
    """Centroids (K, D) of the samples and how many belong to each."""
    means = samples[torch.randperm(len(samples))[:K]]
    for _ in range(rounds):
        mine = F.one_hot(closest(samples, means), K).to(samples.dtype)
        means = torch.where(mine.sum(0)[:, None] > 0, mine.T @ samples / mine.sum(0)[:, None].clamp(1), means)
    return means, mine.sum(0)


class EuclideanCodebook(nn.Module):
    """As in EnCodec, with averages that agree with the codes at the start, after k-means and after a revival."""

    def __init__(self, decay: float = 0.9, kmeans_init: bool = True, threshold_ema_dead_code: float = 8.0):
        super().__init__()
        self.decay, self.epsilon, self.threshold_ema_dead_code = decay, 1e-5, threshold_ema_dead_code
        embed = 0.3 * torch.randn(K, D)
        self.register_buffer("inited", torch.tensor([not kmeans_init]))
        self.register_buffer("cluster_size", torch.ones(K))
        self.register_buffer("embed", embed)
        self.register_buffer("embed_avg", embed.clone())

    @torch.no_grad()
    def init_embed_(self, samples: Tensor) -> None:
        if not self.inited:
            means, counts = lloyd(samples)
            self.start_from(means, counts)
            self.inited.fill_(True)

    def start_from(self, means: Tensor, counts: Tensor) -> None:
        self.embed.copy_(means)
        self.cluster_size.copy_(counts.clamp(1))
        self.embed_avg.copy_(means * self.cluster_size[:, None])

    def forward(self, x):
        flat = x.reshape(-1, x.shape[-1])
        if self.training:
            self.init_embed_(flat.detach())
        ids = closest(flat, self.embed)
        quantize = F.embedding(ids, self.embed)
        if self.training:
            self.learn(flat.detach(), F.one_hot(ids, K).to(flat.dtype))
        return quantize.view(x.shape), ids.view(x.shape[:-1])

    @torch.no_grad()
    def learn(self, flat: Tensor, onehot: Tensor) -> None:
        self.average(flat, onehot)
        self.expire_codes_(flat)

    def average(self, flat: Tensor, onehot: Tensor) -> None:
        self.cluster_size.mul_(self.decay).add_(onehot.sum(0), alpha=1 - self.decay)
        self.embed_avg.mul_(self.decay).add_(onehot.T @ flat, alpha=1 - self.decay)
        total = self.cluster_size.sum()
        smoothed = (self.cluster_size + self.epsilon) / (total + K * self.epsilon) * total
        self.embed.copy_(self.embed_avg / smoothed[:, None])

    def expire_codes_(self, flat: Tensor) -> None:
        expired = self.cluster_size < self.threshold_ema_dead_code
        self.replace_(drawn(flat, K), expired)

    def replace_(self, samples: Tensor, mask: Tensor) -> None:
        mean = self.cluster_size.mean()
        self.embed[mask] = samples[mask]
        self.cluster_size[mask] = mean
        self.embed_avg[mask] = samples[mask] * mean


class Overwritten(EuclideanCodebook):
    """The codes are replaced, and a few lines later computed anew from sums and counts that nobody replaced."""

    def learn(self, flat, onehot):
        self.expire_codes_(flat)
        self.average(flat, onehot)

    def replace_(self, samples, mask):
        self.embed[mask] = samples[mask]


class MeansAsSums(EuclideanCodebook):
    """k-means gives means and counts, and the means are taken for the sums."""

    def start_from(self, means, counts):
        super().start_from(means, counts)
        self.embed_avg.copy_(means)


class EmptyStart(EuclideanCodebook):
    """Random codes with counts of zero: a code without a hit is divided by next to nothing."""

    def __init__(self):
        super().__init__(kmeans_init=False, threshold_ema_dead_code=0.0)
        self.cluster_size.zero_()


class FullStart(EuclideanCodebook):
    def __init__(self):
        super().__init__(kmeans_init=False, threshold_ema_dead_code=0.0)


class VectorQuantization(nn.Module):
    """One codebook of moving averages in a codec: (B, D, T) -> q, indices (B, T), loss (1,)."""

    def __init__(self, codebook: nn.Module, commitment_weight: float = 1.0):
        super().__init__()
        self.project_in, self.project_out = nn.Identity(), nn.Identity()
        self.commitment_weight = commitment_weight
        self._codebook = codebook

    @property
    def codebook(self):
        return self._codebook.embed

    def forward(self, x):
        x = self.project_in(x.transpose(1, 2))
        quantize, indices = self._codebook(x)
        loss = torch.zeros(1)
        if self.training:
            quantize = x + (quantize - x).detach()
            loss = loss + self.commitment_weight * F.mse_loss(quantize.detach(), x)
        return self.project_out(quantize).transpose(1, 2), indices, loss


class Reinitialised(nn.Module):
    """A table whose weight is set from ``ema_weight`` and ``ema_count``, and which can draw unused codes anew."""

    def __init__(self):
        super().__init__()
        self.num_embeddings, self.embedding_dim, self.commitment_loss_beta = K, D, 0.25
        self.codebook = nn.Embedding(K, D)
        nn.init.normal_(self.codebook.weight, std=SPREAD)
        self.codebook.weight.requires_grad_(False)
        self.start()

    def start(self) -> None:
        self.register_buffer("ema_count", torch.ones(K))
        self.register_buffer("ema_weight", self.codebook.weight.detach().clone())

    def forward(self, z):
        flat = tokens(z)
        ids = closest(flat, self.codebook.weight)
        q = self.codebook(ids)
        if self.training:
            self.average(flat.detach(), F.one_hot(ids, K).to(flat.dtype))
        loss = self.commitment_loss_beta * F.mse_loss(q.detach(), flat)
        return maps(through(flat, q), z), loss, (None, None, ids)

    @torch.no_grad()
    def average(self, flat, onehot):
        self.ema_count.mul_(0.95).add_(0.05 * onehot.sum(0))
        self.ema_weight.mul_(0.95).add_(0.05 * onehot.T @ flat)
        self.codebook.weight.data = self.ema_weight / (self.ema_count[:, None] + 1e-5)


class ColdStart(Reinitialised):
    """Sums that are random by themselves, over counts of zero."""

    def start(self):
        self.register_buffer("ema_count", torch.zeros(K))
        self.register_buffer("ema_weight", torch.empty(K, D).uniform_(-1 / K, 1 / K))


def codec(codebook) -> VectorQuantization:
    return VectorQuantization(codebook())


MOVING_BUGS = {
    "expiry overwritten": Bug(
        with_waves(lambda: codec(Overwritten)),
        ("reset",),
        CODEBOOK,
        "facebookresearch/encodec#61",
        revival_lost(CODEBOOK),
        "moving averages",
    ),
    "means as sums": Bug(
        with_waves(lambda: codec(MeansAsSums)),
        ("moving-averages",),
        CODEBOOK,
        "EnCodec init_embed_; lucidrains/vector-quantize-pytorch#66",
        after_first_call(CODEBOOK, "init_embed_", AVERAGES),
        "moving averages",
    ),
    "counts of zero": Bug(
        with_waves(lambda: codec(EmptyStart)),
        ("moving-averages",),
        CODEBOOK,
        "EnCodec with kmeans_init=False; nadavbh12/VQ-VAE#11",
        AVERAGES,
        "moving averages without k-means",
    ),
    "cold start": Bug(
        with_images(ColdStart),
        ("moving-averages",),
        "quantize",
        "SerezD/vqvae-vqgan-pytorch-lightning EMAVectorQuantizer",
        averages_apart("quantize.codebook.weight", "quantize.ema_weight", "quantize.ema_count"),
        "averages of a table",
    ),
}

MOVING_CLEAN = {
    "moving averages": with_waves(lambda: codec(EuclideanCodebook)),
    "moving averages without k-means": with_waves(lambda: codec(FullStart)),
    "averages of a table": with_images(Reinitialised),
}

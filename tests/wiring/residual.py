"""Faults of residual quantizers: what a later layer sees of the encoder, and what reaches it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wiring.base import Bug, D, K, closest, set_up, through, vectors, with_waves
from wiring.moving import EuclideanCodebook, VectorQuantization
from wiring.symptoms import (
    another_weight,
    deaf_commitment,
    decoder_cut_off,
    gradient_free,
    gradients_left,
    train_unlike_eval,
)

LAYERS = 3


class ResidualVectorQuantization(nn.Module):
    """Layers that each quantize what the ones before left over."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(VectorQuantization(EuclideanCodebook()) for _ in range(LAYERS))

    def forward(self, x):
        quantized_out, residual, indices, losses = 0.0, x, [], []
        for layer in self.layers:
            quantized, ids, loss = layer(residual)
            residual = residual - self.passed_on(quantized)
            quantized_out = quantized_out + quantized
            indices.append(ids)
            losses.append(loss)
        return quantized_out, torch.stack(indices), torch.stack(losses)

    def passed_on(self, quantized: Tensor) -> Tensor:
        return quantized.detach()


class Cancelling(ResidualVectorQuantization):
    """The residual minus the straight-through output: the latents cancel, and so do their gradients."""

    def passed_on(self, quantized):
        return quantized


class SplitResidual(nn.Module):
    """A stack as in Mimi, whose layers detach their codes and whose own forward estimates once, at the end."""

    class Layer(VectorQuantization):
        def forward(self, x):
            x = self.project_in(x.transpose(1, 2))
            quantize, indices = self._codebook(x)
            loss = self.commitment_weight * F.mse_loss(quantize.detach(), x)[None]
            return self.project_out(quantize).transpose(1, 2), indices, loss

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(self.Layer(EuclideanCodebook()) for _ in range(LAYERS))

    def forward(self, x):
        quantized_out, residual, indices, losses = torch.zeros_like(x), x, [], []
        for layer in self.layers:
            quantized, ids, loss = layer(residual)
            residual = residual - quantized.detach()
            quantized_out = quantized_out + quantized
            indices.append(ids)
            losses.append(loss)
        return self.estimate(x, quantized_out), torch.stack(indices), torch.stack(losses)

    def estimate(self, x: Tensor, quantized: Tensor) -> Tensor:
        return through(x, quantized)


class Unestimated(SplitResidual):
    """The copy lost the line with the estimator."""

    def estimate(self, x, quantized):
        return quantized


class QuantizeLoss(nn.Module):
    def __init__(self, commitment_weight: float = 1.0):
        super().__init__()
        self.commitment_weight = commitment_weight

    def forward(self, query: Tensor, value: Tensor) -> Tensor:
        emb_loss = (query.detach() - value).square().sum(-1)
        query_loss = (query - value.detach()).square().sum(-1)
        return emb_loss + self.commitment_weight * query_loss


class Quantize(nn.Module):
    """A layer of a recommender's semantic ids."""

    def __init__(self, commitment_weight: float = 0.25):
        super().__init__()
        self.embed_dim, self.n_embed = D, K
        self.do_kmeans_init, self.kmeans_initted = False, False
        self.embedding = nn.Embedding(K, D)
        nn.init.normal_(self.embedding.weight, std=0.3)
        self.quantize_loss = QuantizeLoss(commitment_weight)

    def get_item_embeddings(self, item_ids: Tensor) -> Tensor:
        return self.embedding(item_ids)

    def forward(self, x):
        ids = closest(x.detach(), self.embedding.weight)
        emb = self.get_item_embeddings(ids)
        out = self.estimate(x, emb) if self.training else emb
        return out, ids, self.quantize_loss(query=x, value=self.learned(emb, out))

    def estimate(self, x: Tensor, emb: Tensor) -> Tensor:
        return through(x, emb)

    def learned(self, emb: Tensor, out: Tensor) -> Tensor:
        return emb


class OutputForCodes(Quantize):
    """What the loss gets for the codes is what the decoder gets, behind the estimator and detached."""

    def learned(self, emb, out):
        return out.detach()


class Rotated(Quantize):
    """The rotation trick: in training the latents are turned, and scaled, onto their codes."""

    def estimate(self, x, emb):
        length, target = x.norm(dim=-1, keepdim=True), emb.norm(dim=-1, keepdim=True)
        u, q = (x / length).detach(), (emb / target).detach()
        w = F.normalize(u + q, dim=-1)
        turned = x - 2 * (x * w).sum(-1, keepdim=True) * w + 2 * (x * u).sum(-1, keepdim=True) * q
        return turned * self.scale(length, target)

    def scale(self, length: Tensor, target: Tensor) -> Tensor:
        return (target / length).detach()


class OnlyTurned(Rotated):
    """The latents are turned and keep their length, which eval mode knows nothing of."""

    def scale(self, length, target):
        return torch.ones_like(length)


class RqVae(nn.Module):
    """Encoder, residual layers and decoder of vectors (N, 12)."""

    def __init__(self, layer: type[Quantize] = Quantize, commitment_weight: float = 0.5, layers: int = LAYERS):
        super().__init__()
        self.commitment_weight = commitment_weight
        self.encoder = nn.Sequential(nn.Linear(12, 16), nn.SiLU(), nn.Linear(16, D))
        self.layers = nn.ModuleList(self.build(layer) for _ in range(layers))
        self.decoder = nn.Sequential(nn.Linear(D, 16), nn.SiLU(), nn.Linear(16, 12))

    def build(self, layer: type[Quantize]) -> Quantize:
        return layer(commitment_weight=self.commitment_weight)

    def forward(self, x):
        residual, embs, ids, losses = self.encoder(x), [], [], []
        for layer in self.layers:
            emb, mine, loss = layer(residual)
            residual = residual - emb.detach()
            embs.append(emb)
            ids.append(mine)
            losses.append(loss.mean())
        return self.decoder(sum(embs)), torch.stack(losses), torch.stack(ids, 1)


class WeightUnused(RqVae):
    """The weight goes to a module that nobody calls; the layers have the default of theirs."""

    def __init__(self):
        super().__init__()
        self.rqvae_loss = QuantizeLoss(self.commitment_weight)

    def build(self, layer):
        return layer()


class InPlace(Quantize):
    """The codes are learned by an optimizer of their own, within the forward."""

    def __init__(self, commitment_weight: float = 0.25):
        super().__init__(commitment_weight)
        self.in_place_codebook_optimizer = torch.optim.SGD(self.embedding.parameters(), lr=0.1)

    def forward(self, x):
        if self.training:
            self.learn(x)
        return super().forward(x)

    def learn(self, x: Tensor) -> None:
        soft = self.distances(x).neg().softmax(-1)
        onehot = F.one_hot(soft.argmax(-1), K) + soft - soft.detach()
        F.mse_loss(onehot @ self.embedding.weight, x.detach()).backward(retain_graph=True)
        self.in_place_codebook_optimizer.step()
        self.in_place_codebook_optimizer.zero_grad()

    def distances(self, x: Tensor) -> Tensor:
        return torch.cdist(x.detach(), self.embedding.weight).square()

    def learned(self, emb, out):
        return emb.detach()


class InPlaceWithEncoder(InPlace):
    """The latents are detached in the loss, but not in the distances that the codes were chosen by."""

    def distances(self, x):
        return torch.cdist(x, self.embedding.weight).square()


def outer_parameters(model: nn.Module) -> torch.optim.Optimizer:
    """Adam on all but the codes, which have an optimizer of their own."""
    codes = {id(layer.embedding.weight) for layer in model.layers}
    return torch.optim.Adam([each for each in model.parameters() if id(each) not in codes], lr=1e-3)


def in_place(layer: type[InPlace]):
    return set_up(lambda: RqVae(layer, layers=1), vectors, optimizer=outer_parameters)


RESIDUAL_BUGS = {
    "cancelling residual": Bug(
        with_waves(Cancelling),
        ("residual-commitment",),
        "quantizer.layers.1",
        "facebookresearch/encodec#25",
        deaf_commitment(1),
        "residual",
        ("settings",),
    ),
    "estimator lost": Bug(
        with_waves(Unestimated),
        ("straight-through",),
        "quantizer",
        "yangdongchao/RSTnet#2",
        decoder_cut_off,
        "split residual",
    ),
    "codes left behind the estimator": Bug(
        set_up(lambda: RqVae(OutputForCodes), vectors),
        ("codebook-gradient",),
        "layers.0.embedding.weight",
        "EdoardoBotta/RQ-VAE-Recommender#24",
        gradient_free("layers.0.embedding.weight"),
        "semantic ids",
    ),
    "rotation without scale": Bug(
        set_up(lambda: RqVae(OnlyTurned), vectors),
        ("train-eval",),
        "layers.0",
        "EdoardoBotta/RQ-VAE-Recommender#48",
        train_unlike_eval("layers.0"),
        "rotation",
    ),
    "weight unused": Bug(
        set_up(WeightUnused, vectors),
        ("settings",),
        "commitment_weight",
        "EdoardoBotta/RQ-VAE-Recommender#31",
        another_weight("layers.0", "layers.0.embedding.weight"),
        "semantic ids",
    ),
    "optimizer in the forward": Bug(
        in_place(InPlaceWithEncoder),
        ("gradients-left",),
        "layers.0",
        "lucidrains/vector-quantize-pytorch#236",
        gradients_left,
        "in place",
    ),
}

RESIDUAL_CLEAN = {
    "residual": with_waves(ResidualVectorQuantization),
    "split residual": with_waves(SplitResidual),
    "semantic ids": set_up(RqVae, vectors),
    "rotation": set_up(lambda: RqVae(Rotated), vectors),
    "in place": in_place(InPlace),
}

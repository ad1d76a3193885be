"""Faults in quantizers with a table of codes: where beta stands, what is detached, how the nearest code is found."""

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.vae import VectorQuantizer as DiffusersVectorQuantizer
from torch import Tensor, nn
from transformers.models.chameleon.configuration_chameleon import ChameleonVQVAEConfig
from transformers.models.chameleon.modeling_chameleon import ChameleonVQVAEVectorQuantizer

from wiring.base import SPREAD, Bug, D, K, VQModel, closest, images, maps, set_up, through, tokens, with_images
from wiring.symptoms import (
    decoder_cut_off,
    gradient_free,
    heavier_on_latents,
    loss_on_output,
    misassigned,
    no_commitment,
    repelled_codes,
)

CODES = "quantize.embedding.weight"


def spread(module: nn.Module, table: str = "embedding") -> nn.Module:
    """With codes as far apart as the latents are."""
    nn.init.normal_(getattr(module, table).weight, std=SPREAD)
    return module


class Taming(nn.Module):
    """As in taming-transformers, with beta on the commitment."""

    def __init__(self, n_e: int = K, e_dim: int = D, beta: float = 0.25):
        super().__init__()
        self.n_e, self.e_dim, self.beta = n_e, e_dim, beta
        self.embedding = nn.Embedding(n_e, e_dim)
        nn.init.normal_(self.embedding.weight, std=SPREAD)

    def forward(self, z):
        flat = tokens(z)
        ids = self.assign(flat)
        q = self.embedding(ids)
        return maps(through(flat, q), z), self.loss(flat, q), (None, None, ids)

    def assign(self, flat: Tensor) -> Tensor:
        return closest(flat, self.embedding.weight)

    def loss(self, z: Tensor, q: Tensor) -> Tensor:
        return F.mse_loss(q, z.detach()) + self.beta * F.mse_loss(q.detach(), z)

    def get_codebook_entry(self, indices: Tensor, shape: tuple[int, ...] | None = None) -> Tensor:
        q = self.embedding(indices)
        return q if shape is None else q.view(shape).permute(0, 3, 1, 2).contiguous()


class Legacy(Taming):
    """Beta on the term that moves the codes."""

    def loss(self, z, q):
        return F.mse_loss(q.detach(), z) + self.beta * F.mse_loss(q, z.detach())


class Uncommitted(Taming):
    def loss(self, z, q):
        return F.mse_loss(q, z.detach())


class Repelling(Taming):
    """The codebook term is subtracted, as if it were a reward."""

    def loss(self, z, q):
        return self.beta * F.mse_loss(q.detach(), z) - F.mse_loss(q, z.detach())


class Detached(Taming):
    """Both terms hold the codes fast."""

    def loss(self, z, q):
        return F.mse_loss(q.detach(), z) + self.beta * F.mse_loss(q.detach(), z)


class LossAfterEstimator(Taming):
    """The estimator overwrites q, and the loss is taken of what it left, before the axes are put back."""

    def forward(self, z):
        rows = z.movedim(1, -1)
        ids = self.assign(rows.reshape(-1, self.e_dim))
        q = self.embedding(ids).view(rows.shape)
        q = through(rows, q)
        loss = self.loss(rows, q)
        return q.movedim(-1, 1).contiguous(), loss, (None, None, ids)


class HalfPrecision(Taming):
    """Distances in bfloat16, expanded into squares and a product."""

    def assign(self, flat):
        z, e = flat.bfloat16(), self.embedding.weight.bfloat16()
        return (z.square().sum(1, keepdim=True) + e.square().sum(1) - 2 * z @ e.T).argmin(1)


class SinglePrecision(Taming):
    def assign(self, flat):
        return torch.cdist(flat, self.embedding.weight, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)


def far_from_zero(quantize: type[Taming]):
    """Latents and codes around 8 in every dimension."""

    def build() -> VQModel:
        model = VQModel(quantize())
        nn.init.constant_(model.quant_conv.bias, 8.0)
        model.quantize.embedding.weight.data += 8.0
        return model

    return set_up(build, images)


class Zalando(nn.Module):
    """The quantizer of many notebooks and of what was made from them."""

    def __init__(self):
        super().__init__()
        self._num_embeddings, self._embedding_dim, self._commitment_cost = K, D, 0.25
        self._embedding = nn.Embedding(K, D)
        nn.init.normal_(self._embedding.weight, std=SPREAD)

    def forward(self, inputs):
        rows = inputs.permute(0, 2, 3, 1).contiguous()
        ids = closest(rows.view(-1, self._embedding_dim), self._embedding.weight)
        quantized = self._embedding(ids).view(rows.shape)
        loss = self.terms(quantized, rows)
        quantized = self.estimate(quantized, rows)
        return quantized.permute(0, 3, 1, 2).contiguous(), loss, (None, None, ids[:, None])

    def terms(self, quantized, rows):
        e_latent_loss = F.mse_loss(quantized.detach(), rows)
        q_latent_loss = F.mse_loss(quantized, rows.detach())
        return q_latent_loss + self._commitment_cost * e_latent_loss

    def estimate(self, quantized, rows):
        return rows + (quantized - rows).detach()


class NothingStopped(Zalando):
    """No stop-gradient at all: the estimator is the identity on the codes."""

    def terms(self, quantized, rows):
        return F.mse_loss(quantized, rows) + self._commitment_cost * F.mse_loss(quantized, rows)

    def estimate(self, quantized, rows):
        return rows + (quantized - rows)


def diffusers(legacy: bool) -> nn.Module:
    return spread(DiffusersVectorQuantizer(K, D, beta=0.25, legacy=legacy))


class Chameleon(ChameleonVQVAEVectorQuantizer):
    """Of transformers, its output in the form of the others."""

    def __init__(self):
        super().__init__(ChameleonVQVAEConfig(num_embeddings=K, embed_dim=D))
        nn.init.normal_(self.embedding.weight, std=SPREAD)

    def forward(self, hidden_state):
        q, loss, indices = super().forward(hidden_state)
        return q, loss, (None, None, indices)


def table(quantize, check, source, symptom, twin="taming", attribute="quantize", allowed=()) -> Bug:
    return Bug(with_images(quantize), (check,), attribute, source, symptom, twin, allowed)


#: Where the loss is taken of the output, the codes have no gradient, and the latents are driven away.
OUTPUT = ("codebook-gradient", "commitment")
SIDES = heavier_on_latents("quantize", CODES)

TABLE_BUGS = {
    "taming legacy": table(Legacy, "commitment-side", "CompVis/taming-transformers#57", SIDES),
    "diffusers legacy": table(
        lambda: diffusers(True),
        "commitment-side",
        "diffusers VectorQuantizer(legacy=True), the default",
        SIDES,
        "diffusers",
    ),
    "chameleon": table(Chameleon, "commitment-side", "transformers ChameleonVQVAEVectorQuantizer", SIDES),
    "no commitment": table(
        Uncommitted,
        "commitment",
        "lucidrains/vector-quantize-pytorch#177",
        no_commitment("quantize", CODES),
        allowed=("settings",),
    ),
    "repelled codes": table(
        Repelling, "attraction", "planted: a sign", repelled_codes("quantize", CODES), attribute=CODES
    ),
    "codes detached": table(
        Detached, "codebook-gradient", "lucidrains/vector-quantize-pytorch#47", gradient_free(CODES), attribute=CODES
    ),
    "loss after the estimator": table(
        LossAfterEstimator,
        "loss-on-output",
        "jax-vqvae-gpt#2",
        loss_on_output("quantize", CODES),
        "taming",
        CODES,
        OUTPUT,
    ),
    "bfloat16 distances": Bug(
        far_from_zero(HalfPrecision),
        ("assignment",),
        "quantize",
        "minyoungg/vqtorch: half precision by default on a GPU",
        misassigned("quantize", CODES),
        "far from zero",
    ),
    "nothing stopped": table(
        NothingStopped, "straight-through", "NTU-AIoT-Lab/EfficientFi#4", decoder_cut_off, "zalando"
    ),
}

TABLE_CLEAN = {
    "taming": with_images(Taming),
    "diffusers": with_images(lambda: diffusers(False)),
    "far from zero": far_from_zero(SinglePrecision),
    "zalando": with_images(Zalando),
}

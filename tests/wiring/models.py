"""Faults in the model around a quantizer: what it hands to the loss, and whether it quantizes at all."""

import torch.nn.functional as F
from torch import nn

from wiring.base import Bug, D, K, SetUp, VQModel, closest, images, set_up, through, vectors, with_images
from wiring.symptoms import loss_on_output, never_called
from wiring.tables import OUTPUT, Taming


class LatentActions(nn.Module):
    """The training step takes the loss: the quantizer hands over its output, its codes and its latents."""

    class VectorQuantizer(nn.Module):
        def __init__(self):
            super().__init__()
            self.codebook = nn.Embedding(K, D)
            self.codebook.weight.data.uniform_(-1, 1)

        def forward(self, x):
            indices = closest(x, self.codebook.weight)
            z = self.codebook(indices)
            return through(x, z), z, x, indices

    def __init__(self):
        super().__init__()
        self.commitment_cost = 0.25
        self.encoder = nn.Sequential(nn.Linear(12, 16), nn.GELU(), nn.Linear(16, 16))
        self.pre_vq = nn.Sequential(nn.Linear(16, D), nn.LayerNorm(D))
        self.vq = self.VectorQuantizer()
        self.decoder = nn.Linear(D, 12)

    def forward(self, x):
        z_e = self.pre_vq(self.encoder(x))
        z_q, _, _, indices = self.vq(z_e)
        return self.decoder(z_q), self.vq_loss(z_q, z_e), indices

    def vq_loss(self, z_q, z_e):
        return F.mse_loss(z_q, z_e.detach()) + self.commitment_cost * F.mse_loss(z_q.detach(), z_e)


class LatentActionsOfCodes(LatentActions):
    def forward(self, x):
        z_e = self.pre_vq(self.encoder(x))
        z_q, codes, _, indices = self.vq(z_e)
        return self.decoder(z_q), self.vq_loss(codes, z_e), indices


class Paella(VQModel):
    """Whether its decoder quantizes is an argument of ``decode``, and the default is not to."""

    def decode(self, h, force_not_quantize=True):
        q, loss, (_, _, indices) = (h, h.new_zeros(()), (None, None, None)) if force_not_quantize else self.quantize(h)
        return super().decode(q), loss, indices

    def forward(self, images):
        return self.decode(self.encode(images))


class PaellaQuantized(Paella):
    def forward(self, images):
        return self.decode(self.encode(images), force_not_quantize=False)


def in_eval_mode() -> SetUp:
    """The validation of the epoch before left the quantizer in eval mode."""
    setup = with_images(Taming)()
    setup.model.quantize.eval()
    return setup


MODEL_BUGS = {
    "loss on the output in the model": Bug(
        set_up(LatentActions, vectors),
        ("loss-on-output",),
        "vq.codebook.weight",
        "showlab/Olaf-World#8",
        loss_on_output("vq", "vq.codebook.weight"),
        "latent actions",
        OUTPUT,
    ),
    "quantizes only if told to": Bug(
        set_up(lambda: Paella(Taming()), images),
        ("never-called",),
        "quantize",
        "diffusers PaellaVQModel",
        never_called("quantize"),
        "paella",
        ("codebook-gradient", "commitment"),
    ),
    "left in eval mode": Bug(
        in_eval_mode,
        ("never-called",),
        "quantize",
        "planted: model.eval()",
        never_called("quantize"),
        "taming",
    ),
}

MODEL_CLEAN = {
    "latent actions": set_up(LatentActionsOfCodes, vectors),
    "paella": set_up(lambda: PaellaQuantized(Taming()), images),
}

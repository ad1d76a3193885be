"""Faults in the model around a quantizer: what it hands to the loss, and whether it quantizes at all."""

import torch.nn.functional as F
from torch import nn

from wiring.base import Bug, D, K, VQModel, closest, images, set_up, through, vectors
from wiring.moving import Reinitialised
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
        self.encoder = nn.Sequential(nn.Linear(12, 16, bias=False), nn.Tanh(), nn.Linear(16, 16, bias=False))
        self.pre_vq = nn.Sequential(nn.Linear(16, D, bias=False), nn.LayerNorm(D))
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


class KeptInEval(VQModel):
    """Keeps its quantizer in eval mode, as one does with what is trained already: the averages never move."""

    def train(self, mode=True):
        super().train(mode)
        self.quantize.eval()
        return self


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
    "kept in eval mode": Bug(
        set_up(lambda: KeptInEval(Reinitialised()), images),
        ("never-called",),
        "quantize",
        "planted: a frozen stage that is trained on",
        never_called("quantize"),
        "averages of a table",
    ),
}

MODEL_CLEAN = {
    "latent actions": set_up(LatentActionsOfCodes, vectors),
    "paella": set_up(lambda: PaellaQuantized(Taming()), images),
}

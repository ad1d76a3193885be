"""What a wiring fault is to the tests: a tiny training set-up that has it, and its proof without the lint."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

K, D = 32, 4
#: Of the latents of a fresh ``VQModel``, and of the codes that are to fit them.
SPREAD = 0.12


class SetUp(NamedTuple):
    """What a training step needs; ``loss(model, batch)`` is a scalar."""

    model: nn.Module
    batch: Tensor
    loss: Callable[[nn.Module, Tensor], Tensor]
    optimizer: Optimizer


@dataclass
class Bug:
    """A fault of wiring as it was found in the wild.

    Attributes:
        make: Builds the set-up, the same at every call.
        check: The checks that have to name it.
        attribute: The dotted path in the model that a finding has to name.
        source: Where it was found.
        symptom: Whether a set-up has the fault, measured by hand.
        twin: The entry of ``CLEAN`` that is the same set-up without the fault.
        allowed: Checks that may name something too, for what they say is true of it as well.
    """

    make: Callable[[], SetUp]
    check: tuple[str, ...]
    attribute: str
    source: str
    symptom: Callable[[SetUp], bool]
    twin: str
    allowed: tuple[str, ...] = ()


def through(z: Tensor, q: Tensor) -> Tensor:
    """Straight-through: the value of ``q`` with the gradient of ``z``."""
    return z + (q - z).detach()


def closest(z: Tensor, table: Tensor) -> Tensor:
    return torch.cdist(z, table).argmin(1)


def tokens(z: Tensor) -> Tensor:
    """(N, D) of (B, D, ...)."""
    return z.movedim(1, -1).reshape(-1, z.shape[1])


def maps(vectors: Tensor, like: Tensor) -> Tensor:
    """The inverse of ``tokens``."""
    return vectors.reshape(like.movedim(1, -1).shape).movedim(-1, 1).contiguous()


class VQModel(nn.Module):
    """Images, a convolutional encoder and decoder, ``quantize`` between two 1 x 1 convolutions.

    Gives reconstruction, the quantizer's loss and its indices, for any quantizer that returns (q, loss, (.., .., i)).
    """

    def __init__(self, quantize: nn.Module, dim: int = D):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.SiLU(), nn.Conv2d(8, 8, 3, 1, 1))
        self.quant_conv = nn.Conv2d(8, dim, 1)
        self.quantize = quantize
        self.post_quant_conv = nn.Conv2d(dim, 8, 1)
        self.decoder = nn.Sequential(nn.SiLU(), nn.ConvTranspose2d(8, 3, 2, 2))

    def encode(self, images: Tensor) -> Tensor:
        return self.quant_conv(self.encoder(images))

    def decode(self, q: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(q))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, loss, (_, _, indices) = self.quantize(self.encode(images))
        return self.decode(q), loss, indices


class Codec(nn.Module):
    """Waveforms, a convolutional encoder and decoder, ``quantizer`` between: (B, D, T) -> (q, indices, losses)."""

    def __init__(self, quantizer: nn.Module, dim: int = D):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv1d(1, 8, 4, 4), nn.ELU(), nn.Conv1d(8, dim, 3, 1, 1))
        self.quantizer = quantizer
        self.decoder = nn.Sequential(nn.Conv1d(dim, 8, 3, 1, 1), nn.ELU(), nn.ConvTranspose1d(8, 1, 4, 4))

    def forward(self, wave: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, indices, losses = self.quantizer(self.encoder(wave))
        return self.decoder(q), losses, indices


def images() -> Tensor:
    return torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def waves() -> Tensor:
    return torch.randn(8, 1, 256, generator=torch.Generator().manual_seed(1))


def vectors() -> Tensor:
    return torch.randn(256, 12, generator=torch.Generator().manual_seed(1))


def autoencoding(model: nn.Module, batch: Tensor) -> Tensor:
    """Reconstruction and the quantizers' losses, as most training loops have it."""
    recon, losses, *_ = model(batch)
    return F.mse_loss(recon, batch) + losses.mean()


def adam(model: nn.Module) -> Optimizer:
    return Adam(model.parameters(), lr=1e-3)


def set_up(
    build: Callable[[], nn.Module],
    batch: Callable[[], Tensor],
    loss: Callable[[Any, Tensor], Tensor] = autoencoding,
    optimizer: Callable[[nn.Module], Optimizer] = adam,
) -> Callable[[], SetUp]:
    """What builds this set-up from one seed."""

    def make() -> SetUp:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = build().train()
        return SetUp(model, batch(), loss, optimizer(model))

    return make


def with_images(quantize: Callable[[], nn.Module], **how: Any) -> Callable[[], SetUp]:
    return set_up(lambda: VQModel(quantize()), images, **how)


def with_waves(quantizer: Callable[[], nn.Module], **how: Any) -> Callable[[], SetUp]:
    return set_up(lambda: Codec(quantizer()), waves, **how)

"""The first stage: encoder, quantizer, decoder."""

from typing import Any

import torch
from torch import Tensor, nn

from ..data.views import view_named
from ..quantizers import LearnedQuantizer, Quantizer, QuantizerOutput
from ..quantizers.settings import QuantizerSettings
from ..training.randomness import seeded
from .networks import Decoder, Encoder
from .settings import AutoencoderConfig


class VQModel(nn.Module):
    """VQGAN's autoencoder, with the parameter names of taming-transformers' ``VQModel``.

    Images (B, C, S, S) become latents (B, D, S/f, S/f), these are quantized, and the codes become images. What an image
    is, and its C, is up to the run's ``View``: mostly photographs in [-1, 1], C = 3.
    """

    def __init__(self, encoder: Encoder, decoder: Decoder, quantizer: Quantizer, z_channels: int):
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.quant_conv = nn.Conv2d(z_channels, quantizer.dim, 1)
        self.post_quant_conv = nn.Conv2d(quantizer.dim, z_channels, 1)
        self.quantize = quantizer

    def latents(self, images: Tensor) -> Tensor:
        """(B, C, S, S) images -> (B, D, S/f, S/f) latents, before quantization."""
        return self.quant_conv(self.encoder(images))

    def encode(self, images: Tensor) -> QuantizerOutput:
        """(B, C, S, S) images -> their quantized latents and indices."""
        return self.quantize(self.latents(images))

    def decode(self, quantized: Tensor) -> Tensor:
        """(B, D, S/f, S/f) quantized latents -> (B, C, S, S) images, not clamped."""
        return self.decoder(self.post_quant_conv(quantized))

    def forward(self, images: Tensor) -> tuple[Tensor, QuantizerOutput]:
        """Reconstructions of ``images`` and what the quantizer handed over."""
        output = self.encode(images)
        return self.decode(output.quantized), output


def build_model(config: AutoencoderConfig) -> VQModel:
    """A model as configured, initialised from the seed of the run.

    The autoencoder draws its random numbers apart from the quantizer: runs with the same seed start from the same
    encoder and decoder whatever their quantizer.
    """
    shape: dict[str, Any] = config.model.model_dump() | {"resolution": config.data.image_size}
    channels = view_named(config.data.view).channels
    with seeded(config.train.seed):
        encoder, decoder = Encoder(in_channels=channels, **shape), Decoder(out_channels=channels, **shape)
        with seeded(config.train.seed + 1):
            quantizer = build_quantizer(config.quantizer)
        return VQModel(encoder, decoder, quantizer, config.model.z_channels)


def build_quantizer(settings: QuantizerSettings) -> Quantizer:
    """The quantizer that the spec names, with its initial codes."""
    K, D = settings.codebook_size, settings.dim
    quantizer = settings.kind(K, D, **settings.of(settings.parsed.quantizer).model_dump())
    if isinstance(quantizer, LearnedQuantizer):
        if settings.init == "uniform":
            quantizer.overwrite(torch.arange(K), torch.empty(K, D).uniform_(-1 / K, 1 / K))
        elif settings.init == "normal":
            quantizer.overwrite(torch.arange(K), torch.randn(K, D))
    return quantizer

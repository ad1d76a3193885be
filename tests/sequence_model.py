"""A small model around somebody else's quantizer."""

import torch
from torch import Tensor, nn
from vector_quantize_pytorch import VectorQuantize

K, D = 16, 4


class Stranger(nn.Module):
    """(B, N, D) sequences -> latents -> codes -> sequences; its forward is the loss."""

    def __init__(self, **settings):
        super().__init__()
        self.encoder = nn.Linear(D, D)
        self.vq = VectorQuantize(**{"dim": D, "codebook_size": K} | settings)
        self.decoder = nn.Linear(D, D)

    def forward(self, x: Tensor) -> Tensor:
        quantized, _, loss = self.vq(self.encoder(x))
        return (self.decoder(quantized) - x).square().mean() + loss.sum()


#: A codebook with a gradient, behind the plain straight-through estimator.
LEARNABLE = {"learnable_codebook": True, "ema_update": False, "rotation_trick": False}


def stranger(seed: int = 0, **settings) -> Stranger:
    torch.manual_seed(seed)
    return Stranger(**settings)


def sequences(*tokens: int, seed: int = 1) -> list[Tensor]:
    """(1, N, D) sequences of so many tokens each."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(1, n, D, generator=generator) for n in tokens]

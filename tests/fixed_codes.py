"""A quantizer with fixed codes, registered as any other is: `python fixed_codes.py WORDS` is `vqtool WORDS`."""

import torch
from pydantic import PositiveInt
from torch import Tensor

from vqtool.diagnostics.errors import InputError
from vqtool.vqgan.config.base import Settings
from vqtool.vqgan.quantizers import QUANTIZERS
from vqtool.vqgan.quantizers.base import Quantizer, QuantizerOutput, straight_through, to_map, to_tokens
from vqtool.vqgan.quantizers.search import nearest_codes


class GridSettings(Settings):
    """The settings of ``GridQuantizer``."""

    levels: PositiveInt = 4
    """Places of the grid along each dimension."""


class GridQuantizer(Quantizer):
    """The nearest place of a regular grid in [-1, 1]^D."""

    settings_type = GridSettings
    settings: GridSettings

    def __init__(self, codebook_size, dim, **settings):
        super().__init__(codebook_size, dim, **settings)
        self.check_size(codebook_size, dim, self.settings)
        places = torch.linspace(-1, 1, self.settings.levels)
        self.register_buffer("grid", torch.cartesian_prod(*[places] * dim).view(-1, dim))

    @classmethod
    def check_size(cls, codebook_size, dim, settings):
        if codebook_size != (size := settings.levels**dim):
            raise InputError(f"quantizer.codebook_size {codebook_size}: {settings.levels} levels give {size} codes")

    @property
    def codebook(self) -> Tensor:
        return self.grid

    def forward(self, latents: Tensor) -> QuantizerOutput:
        tokens = to_tokens(latents.float())
        indices = nearest_codes(tokens, self.grid)
        quantized = to_map(straight_through(self.grid[indices], tokens), latents.shape)
        B, _, H, W = latents.shape
        return QuantizerOutput(quantized, indices.view(B, H, W), tokens.new_zeros(()), {})


if __name__ == "__main__":
    from vqtool.cli import main

    QUANTIZERS["grid"] = GridQuantizer
    main()

"""The convolutional encoder and decoder of VQGAN, weight-compatible with taming-transformers.

Source: Esser et al., "Taming Transformers for High-Resolution Image Synthesis" (2021), appendix table 7, and the
reference implementation CompVis/taming-transformers, ``modules/diffusionmodules/model.py``.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ...diagnostics.errors import InputError
from .layers import DownLevel, Middle, UpLevel, group_norm


class Encoder(nn.Module):
    """Images to latents: (B, in_channels, H, W) -> (B, z_channels, H / f, W / f), f = 2 ** (len(ch_mult) - 1).

    The module is convolutional: ``resolution`` only says at which levels ``attn_resolutions`` lie, and images of any
    size that f divides are welcome. The lowest level always has attention between its two middle blocks.

    Args:
        in_channels: Channels of the images.
        ch: Base width.
        ch_mult: Width of each level as a multiple of ``ch``, full resolution first.
        num_res_blocks: Residual blocks per level.
        attn_resolutions: Sides, in positions, of the levels with attention after each of their blocks.
        resolution: Side of the training images.
        z_channels: Channels of the latents.
        dropout: Dropout inside the residual blocks.

    Raises:
        InputError: f does not divide ``resolution``, or an attention resolution is that of no level.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        ch: int = 128,
        ch_mult: Sequence[int] = (1, 1, 2, 2, 4),
        num_res_blocks: int = 2,
        attn_resolutions: Sequence[int] = (16,),
        resolution: int = 256,
        z_channels: int = 256,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        attention = _attention_per_level(resolution, len(ch_mult), attn_resolutions)
        widths = [ch * mult for mult in ch_mult]
        self.conv_in = nn.Conv2d(in_channels, ch, 3, padding=1)
        self.down = nn.ModuleList(
            DownLevel(above, width, num_res_blocks, attention=attends, dropout=dropout, lowest=i == len(widths) - 1)
            for i, (above, width, attends) in enumerate(zip([ch, *widths], widths, attention, strict=False))
        )
        self.mid = Middle(widths[-1], dropout)
        self.norm_out = group_norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], z_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Latents (B, z_channels, h, w) of images (B, in_channels, H, W)."""
        h = self.conv_in(x)
        for level in self.down:
            h = level(h)
        return self.conv_out(F.silu(self.norm_out(self.mid(h))))


class Decoder(nn.Module):
    """Latents to images: (B, z_channels, h, w) -> (B, out_channels, f h, f w), f = 2 ** (len(ch_mult) - 1).

    The mirror of ``Encoder`` with one more block per level; the output is not squashed. ``up[0]`` is the level of full
    resolution, as in ``ch_mult``, though it runs last. ``conv_out.weight`` is the last layer of ``adaptive_weight``.

    Args:
        out_channels: Channels of the images.
        ch: Base width.
        ch_mult: Width of each level as a multiple of ``ch``, full resolution first.
        num_res_blocks: Residual blocks per level, less one.
        attn_resolutions: Sides, in positions, of the levels with attention after each of their blocks.
        resolution: Side of the training images.
        z_channels: Channels of the latents.
        dropout: Dropout inside the residual blocks.

    Raises:
        InputError: f does not divide ``resolution``, or an attention resolution is that of no level.
    """

    def __init__(
        self,
        *,
        out_channels: int = 3,
        ch: int = 128,
        ch_mult: Sequence[int] = (1, 1, 2, 2, 4),
        num_res_blocks: int = 2,
        attn_resolutions: Sequence[int] = (16,),
        resolution: int = 256,
        z_channels: int = 256,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        attention = _attention_per_level(resolution, len(ch_mult), attn_resolutions)
        widths = [ch * mult for mult in ch_mult]
        self.conv_in = nn.Conv2d(z_channels, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1], dropout)
        self.up = nn.ModuleList(
            UpLevel(below, width, num_res_blocks + 1, attention=attends, dropout=dropout, highest=i == 0)
            for i, (below, width, attends) in enumerate(zip([*widths[1:], widths[-1]], widths, attention, strict=True))
        )
        self.norm_out = group_norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], out_channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """Images (B, out_channels, H, W) of latents (B, z_channels, h, w)."""
        h = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            h = level(h)
        return self.conv_out(F.silu(self.norm_out(h)))


def _attention_per_level(resolution: int, levels: int, attn_resolutions: Sequence[int]) -> list[bool]:
    """Which levels have attention, full resolution first."""
    factor = 2 ** (levels - 1)
    if resolution % factor:
        nearest = max(factor, round(resolution / factor) * factor)
        raise InputError(f"resolution {resolution} is not a multiple of {factor}; the nearest is {nearest}")
    sides = [resolution // 2**level for level in range(levels)]
    for side in attn_resolutions:
        if side not in sides:
            nearest = min(sides, key=lambda known: abs(known - side))
            allowed = ", ".join(map(str, sides))
            raise InputError(f"attn_resolutions: no level has side {side}; choose from {allowed} (nearest: {nearest})")
    return [side in attn_resolutions for side in sides]

"""The blocks of the VQGAN encoder and decoder, with the module names of taming-transformers.

Their checkpoints load with ``strict=True``, so attribute names here are part of the file format. Every block maps
``(B, C, H, W)`` to ``(B, C', H', W')``. Source: CompVis/taming-transformers, ``modules/diffusionmodules/model.py``.
"""

import math
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm of 32 groups, eps 1e-6; of gcd(32, channels) groups where 32 does not divide the channels.

    Source: Wu & He, "Group Normalization" (2018); eps of taming-transformers.
    """
    return nn.GroupNorm(math.gcd(32, channels), channels, eps=1e-6)


class ResnetBlock(nn.Module):
    """Two norm-swish-convolution stages around a skip; ``nin_shortcut`` is a 1x1 convolution where channels change."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1 = group_norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = group_norm(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        same = in_channels == out_channels
        self.nin_shortcut = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H, W)."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        return self.nin_shortcut(x) + h


class AttnBlock(nn.Module):
    """Single-head self-attention over all H*W positions, scale C^-0.5, added to its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        h = self.norm(x)
        q, k, v = (project(h).flatten(2).mT.unsqueeze(1) for project in (self.q, self.k, self.v))  # (B, 1, HW, C)
        attended = F.scaled_dot_product_attention(q, k, v)
        return x + self.proj_out(attended.squeeze(1).mT.reshape(x.shape))


class Downsample(nn.Module):
    """Halves H and W: convolution of stride 2, padded at the right and the bottom only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H / 2, W / 2)."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Doubles H and W: nearest neighbour, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, 2 H, 2 W)."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """The blocks of one resolution: each ResnetBlock is followed by attention where ``attention`` asks for it."""

    def __init__(self, in_channels: int, out_channels: int, blocks: int, *, attention: bool, dropout: float) -> None:
        super().__init__()
        widths = [in_channels] + [out_channels] * blocks
        self.block = nn.ModuleList(ResnetBlock(*pair, dropout) for pair in pairwise(widths))
        self.attn = nn.ModuleList(AttnBlock(out_channels) for _ in range(blocks if attention else 0))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H, W)."""
        for i, block in enumerate(self.block):
            x = block(x)
            if self.attn:
                x = self.attn[i](x)
        return x


class DownLevel(Level):
    """A level of the encoder; it halves H and W at its end unless it is the lowest."""

    def __init__(
        self, in_channels: int, out_channels: int, blocks: int, *, attention: bool, dropout: float, lowest: bool
    ) -> None:
        super().__init__(in_channels, out_channels, blocks, attention=attention, dropout=dropout)
        self.downsample = nn.Identity() if lowest else Downsample(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H / 2, W / 2), or H, W at the lowest."""
        return self.downsample(super().forward(x))


class UpLevel(Level):
    """A level of the decoder; it doubles H and W at its end unless it is the highest."""

    def __init__(
        self, in_channels: int, out_channels: int, blocks: int, *, attention: bool, dropout: float, highest: bool
    ) -> None:
        super().__init__(in_channels, out_channels, blocks, attention=attention, dropout=dropout)
        self.upsample = nn.Identity() if highest else Upsample(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, 2 H, 2 W), or H, W at the highest."""
        return self.upsample(super().forward(x))


class Middle(nn.Module):
    """ResnetBlock, attention, ResnetBlock at the lowest resolution."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels, dropout)
        self.attn_1 = AttnBlock(channels)
        self.block_2 = ResnetBlock(channels, channels, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return self.block_2(self.attn_1(self.block_1(x)))

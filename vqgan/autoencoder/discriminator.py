"""The PatchGAN discriminator: one logit per overlapping patch of the image."""

from torch import Tensor, nn

from ...diagnostics.errors import InputError


class NLayerDiscriminator(nn.Module):
    """4x4 convolutions, BatchNorm and LeakyReLU(0.2): (B, in_channels, H, W) -> patch logits (B, 1, h, w).

    ``n_layers`` convolutions of stride 2, then two of stride 1; widths ndf * (1, 2, 4, 8, 8, ...). With three layers a
    logit sees 70x70 pixels and an image needs 24 pixels a side: 32x32 gives 2x2 logits, 256x256 gives 30x30.
    Convolution weights start at N(0, 0.02), BatchNorm weights at N(1, 0.02).

    Source: Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks" (2017), section 3.2.2;
    keys of CompVis/taming-transformers, ``modules/discriminator/model.py``.
    """

    def __init__(self, in_channels: int = 3, ndf: int = 64, n_layers: int = 3) -> None:
        super().__init__()
        if n_layers < 1:
            raise InputError(f"discriminator: n_layers is {n_layers}, it must be 1 or more")
        self.n_layers = n_layers
        widths = [ndf * min(2**i, 8) for i in range(n_layers + 1)]
        layers: list[nn.Module] = [nn.Conv2d(in_channels, ndf, 4, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True)]
        for i in range(n_layers):
            last = i == n_layers - 1
            layers += [
                nn.Conv2d(widths[i], widths[i + 1], 4, stride=1 if last else 2, padding=1, bias=False),
                nn.BatchNorm2d(widths[i + 1]),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        layers.append(nn.Conv2d(widths[-1], 1, 4, padding=1))
        self.main = nn.Sequential(*layers)
        self.main.apply(_initialize)

    def forward(self, images: Tensor) -> Tensor:
        """Patch logits of the images, high where a patch looks real.

        Raises:
            InputError: The images are too small for ``n_layers``.
        """
        height, width = images.shape[-2:]
        smallest = 3 * 2**self.n_layers
        if min(height, width) < smallest:
            deepest = (min(height, width) // 3).bit_length() - 1
            way_out = f"choose n_layers {deepest} or less" if deepest >= 1 else "no n_layers takes fewer than 6"
            raise InputError(
                f"discriminator: n_layers {self.n_layers} needs images of {smallest} pixels a side or more,"
                f" got {height}x{width}; {way_out}"
            )
        return self.main(images)


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)

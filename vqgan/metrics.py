"""Image metrics over a whole split, on torchmetrics."""

from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torchmetrics import MeanMetric
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure
from torchmetrics.image.fid import FrechetInceptionDistance

from ..diagnostics.errors import InputError
from .perceptual import hub_file, missing_weights, perceptual_loss, read_weights

_INCEPTION = "weights-inception-2015-12-05-6726825d.pth"
_INCEPTION_URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{_INCEPTION}"


class ImageMetrics:
    """Distances between images and their reconstructions, accumulated over the batches of a split.

    All but ``rfid`` are means over images, so how the split is cut into batches does not matter; in a process group
    ``compute`` gives the figures over all ranks. Everything is computed in float32.

    - ``l1``, ``l2``: mean absolute and mean squared error per pixel and channel, after both images were mapped from
      [-1, 1] to [0, 1] and clamped: half and a quarter of the errors on the [-1, 1] scale of training.
    - ``psnr``: mean over images of 10 log10(1 / l2 of the image), in dB, data range 1. (The other convention, the PSNR
      of the split's l2, is 10 log10(1 / l2) and never larger.) Infinite, hence None, if an image is reproduced exactly.
    - ``ssim``: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity" (2004), 11x11
      Gaussian window of sigma 1.5, data range 1, averaged over every pixel with mirrored borders.
    - ``lpips``: see ``perceptual_loss``.
    - ``rfid``: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule" (2017), eq. 6, between the images and
      their reconstructions, both rounded to 8 bits, 2048 features of the TensorFlow Inception and its resizing, as
      torch-fidelity computes it. Biased upwards on few images (under 2048 the covariances are singular): the number is
      given all the same, from two images on, and is to be compared between splits of one size only.

    Args:
        device: Where the images are.
        perceptual_net: Backbone of LPIPS.
        perceptual_weights: Its file; None looks in the torch hub cache.
        inception_weights: File of the Inception weights; None looks in the torch hub cache.

    Attributes:
        missing: For each metric that is None, the reason in one line; complete once ``compute`` has run.

    Raises:
        InputError: The perceptual net is unknown, or a file of weights is there but cannot be used.
    """

    def __init__(
        self,
        device: torch.device | str,
        perceptual_net: str = "vgg",
        perceptual_weights: Path | None = None,
        inception_weights: Path | None = None,
    ) -> None:
        self.missing: dict[str, str] = {}
        self._device = torch.device(device)
        self._means = {
            name: MeanMetric(nan_strategy="disable").to(self._device) for name in ("l1", "l2", "psnr", "ssim", "lpips")
        }
        self._perceptual = self._frechet = None
        if line := missing_weights(perceptual_net, perceptual_weights):
            self.missing["lpips"] = line
        else:
            self._perceptual = perceptual_loss(perceptual_net, perceptual_weights).to(self._device)
        inception = inception_weights or hub_file(_INCEPTION)
        if inception.is_file():
            self._frechet = _frechet_inception_distance(inception).to(self._device)
        else:
            self.missing["rfid"] = f"rFID needs the file {inception}: place it there, from {_INCEPTION_URL}"

    @torch.no_grad()
    def update(self, images: Tensor, reconstructions: Tensor) -> None:
        """Add a batch: images and their reconstructions, both (B, 3, H, W), in [-1, 1] (beyond it they are clamped).

        Raises:
            InputError: The shapes differ.
        """
        if images.shape != reconstructions.shape:
            raise InputError(f"images {tuple(images.shape)} and reconstructions {tuple(reconstructions.shape)} differ")
        with torch.autocast(self._device.type, enabled=False):
            real, fake = (to_unit_range(batch.float()) for batch in (images, reconstructions))
            for name, values in _per_image(real, fake).items():
                self._means[name].update(values)
            if self._perceptual:
                self._means["lpips"].update(self._perceptual(2 * real - 1, 2 * fake - 1))
            if self._frechet:
                self._frechet.update(_to_bytes(real), real=True)
                self._frechet.update(_to_bytes(fake), real=False)

    def compute(self) -> dict[str, float | None]:
        """The metrics over all batches so far: l1, l2, psnr, ssim, lpips, rfid; None where ``missing`` says why.

        Raises:
            InputError: There were no batches.
        """
        if not self._means["l1"].update_called:
            raise InputError("no images to evaluate: the split is empty")
        values = {name: self._finite(name, mean.compute()) for name, mean in self._means.items() if mean.update_called}
        if self._frechet:
            values["rfid"] = self._rfid(self._frechet)
        return {name: values.get(name) for name in (*self._means, "rfid")}

    def _rfid(self, frechet: FrechetInceptionDistance) -> float | None:
        try:
            return self._finite("rfid", frechet.compute())
        except RuntimeError as error:  # a single image, or features that are not numbers
            self.missing["rfid"] = str(error).splitlines()[0]
            return None

    def _finite(self, name: str, value: Tensor) -> float | None:
        if torch.isfinite(value):
            return value.item()
        self.missing[name] = f"{name} is {value.item()} over these images"
        return None


def to_unit_range(images: Tensor) -> Tensor:
    """[-1, 1] to [0, 1], clamped."""
    return ((images + 1) / 2).clamp(0, 1)


def _per_image(real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """Each metric (B,) of images (B, 3, H, W) in [0, 1]."""
    return {
        "l1": (fake - real).abs().mean((1, 2, 3)),
        "l2": (fake - real).square().mean((1, 2, 3)),
        "psnr": peak_signal_noise_ratio(fake, real, data_range=1.0, reduction="none", dim=(1, 2, 3)),
        "ssim": cast(Tensor, structural_similarity_index_measure(fake, real, data_range=1.0, reduction="none")),
    }


def _to_bytes(images: Tensor) -> Tensor:
    """[0, 1] to uint8, rounded: a cast alone would cut off and darken both sides by half a level."""
    return (images * 255).round().to(torch.uint8)


def _frechet_inception_distance(path: Path) -> FrechetInceptionDistance:
    """FID with the Inception weights of a file.

    Raises:
        InputError: The file holds no such weights.
    """
    read_weights(path)  # torch-fidelity unpickles without restriction: only a file that is plain tensors gets there
    try:
        # antialias=False is the resizing of the original Inception, and of the published numbers
        return FrechetInceptionDistance(feature=2048, feature_extractor_weights_path=str(path), antialias=False)
    except RuntimeError as error:
        raise InputError(f"{path} does not hold the Inception weights of torch-fidelity") from error

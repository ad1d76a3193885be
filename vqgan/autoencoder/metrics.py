"""What a split says about images and labels that were reconstructed, or sampled; on torchmetrics."""

from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassJaccardIndex
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure
from torchmetrics.image.fid import FrechetInceptionDistance

from ...diagnostics.errors import InputError
from ..data.images import to_unit_range
from ..data.views import view_named
from .perceptual import hub_file, missing_weights, perceptual_loss, read_weights
from .settings import AutoencoderConfig

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
    ) -> None:
        self.missing: dict[str, str] = {}
        self._device = torch.device(device)
        self._means = {
            name: MeanMetric(nan_strategy="disable").to(self._device) for name in ("l1", "l2", "psnr", "ssim", "lpips")
        }
        self._perceptual = None
        if line := missing_weights(perceptual_net, perceptual_weights):
            self.missing["lpips"] = line
        else:
            self._perceptual = perceptual_loss(perceptual_net, perceptual_weights).to(self._device)
        self._distance = SampleDistance(self._device, "rfid")

    @torch.no_grad()
    def update(self, images: Tensor, reconstructions: Tensor) -> None:
        """Add a batch: images and their reconstructions, both (B, 3, H, W), in [-1, 1] (beyond it they are clamped).

        Raises:
            InputError: The shapes differ.
        """
        _check_shapes(images, reconstructions)
        with torch.autocast(self._device.type, enabled=False):
            real, fake = (to_unit_range(batch.float()) for batch in (images, reconstructions))
            for name, values in _per_image(real, fake).items():
                self._means[name].update(values)
            if self._perceptual:
                self._means["lpips"].update(self._perceptual(2 * real - 1, 2 * fake - 1))
        self._distance.update_real(images)
        self._distance.update_samples(reconstructions)

    def compute(self) -> dict[str, float | None]:
        """The metrics over all batches so far: l1, l2, psnr, ssim, lpips, rfid; None where ``missing`` says why.

        Raises:
            InputError: There were no batches.
        """
        _check_updated(self._means["l1"])
        values = {
            name: _finite(name, mean.compute(), self.missing)
            for name, mean in self._means.items()
            if mean.update_called
        }
        values |= self._distance.compute()
        self.missing |= self._distance.missing
        return {name: values.get(name) for name in (*self._means, "rfid")}


class LabelMetrics:
    """How well labels are told at each pixel, accumulated over the batches of a split as in ``ImageMetrics``.

    - ``pixel_accuracy``: share of the pixels whose likeliest label is theirs.
    - ``mean_iou``: intersection over union of the pixels that have a label and those that are given it, over the whole
      split, and the mean of that over the labels that occur (Everingham et al., "The PASCAL Visual Object Classes
      Challenge" (2015), sec. 3.4): in the data or in the reconstructions, a label that is only made up counting 0.
    - ``bce``: binary cross-entropy per label and pixel in nats, the loss of training.

    Args:
        device: Where the maps are.
        labels: How many labels there are.

    Attributes:
        missing: For each metric that is None, the reason in one line; complete once ``compute`` has run.
    """

    def __init__(self, device: torch.device | str, labels: int) -> None:
        self.missing: dict[str, str] = {}
        self._device = torch.device(device)
        self._means = {name: MeanMetric(nan_strategy="disable").to(self._device) for name in ("pixel_accuracy", "bce")}
        self._overlap = MulticlassJaccardIndex(labels, average="macro", validate_args=False).to(self._device)

    @torch.no_grad()
    def update(self, images: Tensor, reconstructions: Tensor) -> None:
        """Add a batch: one-hot maps and the logits for them, both (B, labels, H, W).

        Raises:
            InputError: The shapes differ.
        """
        _check_shapes(images, reconstructions)
        with torch.autocast(self._device.type, enabled=False):
            real, fake = images.argmax(1), reconstructions.argmax(1)
            self._overlap.update(fake, real)
            self._means["pixel_accuracy"].update((real == fake).float().mean((1, 2)))
            bce = F.binary_cross_entropy_with_logits(reconstructions.float(), images.float(), reduction="none")
            self._means["bce"].update(bce.mean((1, 2, 3)))

    def compute(self) -> dict[str, float | None]:
        """The metrics over all batches so far: pixel_accuracy, mean_iou, bce; None where ``missing`` says why.

        Raises:
            InputError: There were no batches.
        """
        _check_updated(self._means["bce"])
        values = {
            "pixel_accuracy": self._means["pixel_accuracy"].compute(),
            "mean_iou": self._overlap.compute(),
            "bce": self._means["bce"].compute(),
        }
        return {name: _finite(name, value, self.missing) for name, value in values.items()}


def metrics_for(config: AutoencoderConfig, device: torch.device | str) -> ImageMetrics | LabelMetrics:
    """The metrics that suit the view of the run.

    Raises:
        InputError: A file of weights is there but cannot be used.
    """
    if (labels := view_named(config.data.view).labels) is not None:
        return LabelMetrics(device, labels)
    net = "vgg" if config.loss.perceptual == "none" else config.loss.perceptual
    return ImageMetrics(device, net, config.loss.perceptual_weights)


class SampleDistance:
    """Frechet Inception distance between two sets of images, see ``rfid`` of ``ImageMetrics``.

    Args:
        device: Where the images are.
        name: What the distance is called.

    Attributes:
        missing: Where the distance is None, the reason in one line; complete once ``compute`` has run.

    Raises:
        InputError: The file of weights is there but cannot be used.
    """

    def __init__(self, device: torch.device | str, name: str = "fid") -> None:
        self.missing: dict[str, str] = {}
        self._device, self._name, self._frechet = torch.device(device), name, None
        path = hub_file(_INCEPTION)
        if path.is_file():
            self._frechet = _frechet_inception_distance(path).to(self._device)
        else:
            self.missing[name] = f"{name} needs the file {path}: place it there, from {_INCEPTION_URL}"

    def update_real(self, images: Tensor) -> None:
        """Add images (B, 3, H, W) of the one set, in [-1, 1] (beyond it they are clamped)."""
        self._update(images, real=True)

    def update_samples(self, images: Tensor) -> None:
        """Add images (B, 3, H, W) of the other set, in [-1, 1] (beyond it they are clamped)."""
        self._update(images, real=False)

    @torch.no_grad()
    def _update(self, images: Tensor, real: bool) -> None:
        if self._frechet:
            with torch.autocast(self._device.type, enabled=False):
                self._frechet.update(_to_bytes(to_unit_range(images.float())), real=real)

    def compute(self) -> dict[str, float | None]:
        """The distance by its name; None where ``missing`` says why."""
        if not self._frechet:
            return {self._name: None}
        try:
            return {self._name: _finite(self._name, self._frechet.compute(), self.missing)}
        except RuntimeError as error:  # fewer than two images in a set, or features that are not numbers
            self.missing[self._name] = str(error).splitlines()[0]
            return {self._name: None}


def _check_shapes(images: Tensor, reconstructions: Tensor) -> None:
    if images.shape != reconstructions.shape:
        raise InputError(f"images {tuple(images.shape)} and reconstructions {tuple(reconstructions.shape)} differ")


def _check_updated(mean: MeanMetric) -> None:
    if not mean.update_called:
        raise InputError("no images to evaluate: the split is empty")


def _finite(name: str, value: Tensor, missing: dict[str, str]) -> float | None:
    """The value, or None and an entry in ``missing`` where it is no number."""
    if torch.isfinite(value):
        return value.item()
    missing[name] = f"{name} is {value.item()} over these images"
    return None


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

"""What the autoencoder minimises, and the discriminator that joins in later."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.views import view_named
from ..training.devices import gradients_by_hand
from ..training.learner import Losses
from .losses import DISCRIMINATOR_LOSSES, adaptive_weight, generator_loss
from .settings import AutoencoderConfig, LossSettings


class Reconstruction(nn.Module):
    """nll = l1_weight |x - x'| + l2_weight (x - x')^2 + perceptual_weight LPIPS(x, x'), means over all elements.

    Esser et al. 2021 (arXiv:2012.09841), sec. 3.1. It has no trainable parameters.

    Raises:
        InputError: The weights of the perceptual network are not to be had.
    """

    def __init__(self, settings: LossSettings):
        super().__init__()
        self.settings = settings
        self.perceptual = None
        if settings.perceptual != "none":
            from .perceptual import perceptual_loss

            self.perceptual = perceptual_loss(settings.perceptual, settings.perceptual_weights)

    def forward(self, images: Tensor, reconstructions: Tensor) -> tuple[Tensor, Losses]:
        """() the weighted sum and the unweighted parts that have a weight."""
        weights = {"l1": self.settings.l1_weight, "l2": self.settings.l2_weight}
        terms: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"l1": F.l1_loss, "l2": F.mse_loss}
        losses = {name: term(reconstructions, images) for name, term in terms.items() if weights[name]}
        if self.perceptual is not None:
            losses["perceptual"] = self.perceptual(reconstructions, images).mean()
            weights["perceptual"] = self.settings.perceptual_weight
        return sum((weights[name] * loss for name, loss in losses.items()), start=images.new_zeros(())), losses


class LabelReconstruction(nn.Module):
    """Binary cross-entropy of each label at each pixel, the mean over all elements; it has no weights.

    CompVis/taming-transformers, ``modules/losses/segmentation.py``.
    """

    def forward(self, images: Tensor, reconstructions: Tensor) -> tuple[Tensor, Losses]:
        """() the loss and its only part, of one-hot maps (B, labels, S, S) and logits of the same shape."""
        bce = F.binary_cross_entropy_with_logits(reconstructions, images)
        return bce, {"bce": bce}


def reconstruction_loss(config: AutoencoderConfig) -> Reconstruction | LabelReconstruction:
    """The loss between images and their reconstructions that suits the view of the run.

    Raises:
        InputError: The weights of the perceptual network are not to be had.
    """
    if view_named(config.data.view).labels is not None:
        return LabelReconstruction()
    return Reconstruction(config.loss)


class Adversary:
    """The two sides of the adversarial game, each blind to the other's gradient.

    Args:
        discriminator: (B, 3, S, S) images -> logits; may be wrapped for several devices.
        optimizer: That of the discriminator.
        settings: Weights and form of the loss.
        reduce: Mean over ranks of a gradient, see ``adaptive_weight``.
        scale: Multiplies a loss by the gradient scaler's factor, see there; None where gradients are not scaled.
    """

    def __init__(
        self,
        discriminator: nn.Module,
        optimizer: Any,
        settings: LossSettings,
        reduce: Callable[[Tensor], Tensor] | None = None,
        scale: Callable[[Tensor], Tensor] | None = None,
    ):
        self.discriminator = discriminator
        self.optimizer = optimizer
        self.settings = settings
        self.reduce = reduce
        self.scale = scale

    @property
    def network(self) -> nn.Module:
        """The discriminator without its wrapper."""
        return getattr(self.discriminator, "module", self.discriminator)

    def _logits(self, network: nn.Module, images: Tensor) -> Tensor:
        """The network's logits, in float32 where losses are scaled: float16 ends below the usual first scale, 65536."""
        return network(images).float() if self.scale else network(images)

    def generator_side(self, nll: Tensor, reconstructions: Tensor, last_layer: Tensor) -> tuple[Tensor, Losses]:
        """() the generator's loss, weighted, and its parts. The discriminator's parameters get no gradient from it.

        Where the scaled gradients behind the adaptive weight overflow, the weight is 0 and the gradient of the loss is
        NaN: the scaler passes over the step and takes a smaller scale for the next, and what is logged is finite.
        """
        self.discriminator.requires_grad_(False)
        # Without the wrapper, which would wait for the gradients of parameters that get none here.
        generator = generator_loss(self._logits(self.network, reconstructions))
        self.discriminator.requires_grad_(True)
        weight = nll.new_ones(())
        if self.settings.disc_adaptive:
            with gradients_by_hand():
                weight = adaptive_weight(nll, generator, last_layer, self.reduce, self.scale)
        if not self.scale:
            return self.settings.disc_weight * weight * generator, {"generator": generator, "weight": weight}
        known, weight = weight.isfinite(), weight.nan_to_num(0.0)
        loss = self.settings.disc_weight * weight * generator
        loss.register_hook(lambda gradient: gradient.where(known, torch.nan))
        return loss, {"generator": generator, "weight": weight}

    def discriminator_side(self, images: Tensor, reconstructions: Tensor) -> tuple[Tensor, Losses]:
        """() the discriminator's loss and its parts. Reconstructions are taken as they are, without their history."""
        real, fake = (self._logits(self.discriminator, seen) for seen in (images, reconstructions.detach()))
        loss = DISCRIMINATOR_LOSSES[self.settings.disc_loss](real, fake)
        return loss, {"discriminator": loss, "logits_real": real.mean(), "logits_fake": fake.mean()}

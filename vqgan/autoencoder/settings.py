"""The settings of a first stage."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from ...diagnostics.errors import InputError
from ...diagnostics.run import RunDirectory
from ..config.base import Settings, Share
from ..config.layers import validated
from ..data.views import view_named
from ..quantizers.settings import QuantizerSettings
from ..training.settings import OptimizerSettings, RunConfig

#: Group normalization cuts the channels into groups of equal size, 32 of them where there are that many channels.
Channels = Annotated[int, Field(gt=0, multiple_of=32)]


class ModelSettings(Settings):
    """Encoder and decoder of Esser et al. 2021 (arXiv:2012.09841); the defaults are its f16 model."""

    ch: Channels = 128
    """Channels at full resolution."""
    ch_mult: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1, 1, 2, 2, 4)
    """Channel multiplier per level; each level but the last halves the resolution."""
    num_res_blocks: PositiveInt = 2
    """Residual blocks per level."""
    attn_resolutions: tuple[PositiveInt, ...] = (16,)
    """Resolutions with self-attention."""
    z_channels: PositiveInt = 256
    """Channels that the encoder ends with."""
    dropout: Share = 0.0
    """Dropout in the residual blocks."""


class LossSettings(Settings):
    """The objective; of a segmentation only ``quantizer_weight`` counts, see ``LabelReconstruction``."""

    l1_weight: NonNegativeFloat = 1.0
    """Weight of the mean absolute error of the pixels."""
    l2_weight: NonNegativeFloat = 0.0
    """Weight of their mean squared error."""
    perceptual: Literal["none", "vgg", "alex", "squeeze"] = "none"
    """Backbone of LPIPS (Zhang et al. 2018, arXiv:1801.03924)."""
    perceptual_weight: NonNegativeFloat = 1.0
    """Weight of LPIPS."""
    perceptual_weights: Path | None = None
    """File with the backbone's weights; by default the torch hub cache."""
    quantizer_weight: NonNegativeFloat = 1.0
    """Weight of the quantizer's loss."""
    disc_start: NonNegativeInt | None = None
    """Optimizer step after which the discriminator joins; null: never."""
    disc_weight: NonNegativeFloat = 0.8
    """Weight of the generator's loss, times the adaptive weight."""
    disc_adaptive: bool = True
    """Balance the generator's loss by its gradient at the decoder's last layer (arXiv:2012.09841, eq. 7)."""
    disc_loss: Literal["hinge", "vanilla"] = "hinge"
    """The discriminator's loss: hinge, or the binary cross-entropy of the first GAN."""
    disc_channels: PositiveInt = 64
    """Channels of its first layer."""
    disc_layers: PositiveInt = 3
    """Its layers that halve the resolution."""


class AutoencoderConfig(RunConfig):
    """The settings of a first stage."""

    stage: Literal["vqgan"] = "vqgan"
    """Which stage these are the settings of."""
    model: ModelSettings = ModelSettings()
    quantizer: QuantizerSettings = QuantizerSettings()
    loss: LossSettings = LossSettings()
    optimizer: OptimizerSettings = OptimizerSettings()

    @model_validator(mode="after")
    def _the_loss_suits_the_view(self) -> "AutoencoderConfig":
        loss = self.loss
        if view_named(self.data.view).labels is not None:
            for key, judge in {"loss.perceptual": loss.perceptual, "loss.disc_start": loss.disc_start}.items():
                if judge not in ("none", None):
                    raise ValueError(
                        f"{key} {judge} judges images, and data.view {self.data.view} has none: leave it out"
                    )
        elif not (loss.l1_weight or loss.l2_weight or (loss.perceptual != "none" and loss.perceptual_weight)):
            raise ValueError("loss has no reconstruction term: set loss.l1_weight, loss.l2_weight or loss.perceptual")
        return self

    @model_validator(mode="after")
    def _parts_fit(self) -> "AutoencoderConfig":
        factor = 2 ** (len(self.model.ch_mult) - 1)
        if self.data.image_size % factor:
            raise ValueError(
                f"data.image_size {self.data.image_size} is not a multiple of {factor}, the factor by which "
                f"model.ch_mult {list(self.model.ch_mult)} shrinks an image"
            )
        return self


def build_autoencoder_config(tree: Mapping[str, Any]) -> AutoencoderConfig:
    """The settings of a first stage from a tree; see ``validated``."""
    return validated(AutoencoderConfig, tree)


def autoencoder_config_of(run: RunDirectory) -> AutoencoderConfig:
    """The settings of a run of the first stage.

    Raises:
        InputError: The folder is no run, or one of another stage.
    """
    if run.stage != "vqgan":
        raise InputError(f"first stage {run.path} is a run of the stage {run.stage!r}: give one of vqgan")
    return build_autoencoder_config(run.read_config())

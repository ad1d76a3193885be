"""The settings of a run: one validated, frozen tree, from YAML and back to it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from .spec import Spec, parse_spec
from .views import view_named

Share = Annotated[float, Field(ge=0, le=1)]
#: Decay per step of a moving average.
Decay = Annotated[float, Field(ge=0, lt=1)]
#: Group normalization cuts the channels into groups of equal size, 32 of them where there are that many channels.
Channels = Annotated[int, Field(gt=0, multiple_of=32)]


class Settings(BaseModel):
    """A branch of the tree: unknown keys are refused, nothing changes after validation."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True, protected_namespaces=()
    )


class DataSettings(Settings):
    """Which images."""

    spec: str = "photos"
    """``photos``, ``folder:PATH``, ``pairs:PATH``, ``cifar10:PATH``, ``mnist:PATH`` or ``fashion-mnist:PATH``."""
    view: str = "image"
    """What is seen of them: ``image``, ``edges``, ``lowres:FACTOR``; with ``pairs`` ``segmentation:LABELS`` or
    ``depth``."""
    image_size: Annotated[int, Field(ge=8)] = 256
    """Height and width of the crops in pixels."""
    flip: bool = True
    """Flip training crops left to right at random."""
    skip_unreadable: bool = False
    """Leave unreadable files out and list them, instead of stopping."""
    download: bool = False
    """Let torchvision fetch its data sets."""
    cache: Path | None = None
    """Folder of the decoded images; by default the user's cache folder."""

    @model_validator(mode="after")
    def _view_fits(self) -> Self:
        factor, side = view_named(self.view).factor, self.image_size
        if side % factor:
            divisors = [number for number in range(2, side + 1) if side % number == 0]
            nearest = min(divisors, key=lambda number: abs(number - factor))
            raise ValueError(
                f"data.view {self.view}: {factor} does not divide data.image_size {side}; "
                f"the nearest that does is lowres:{nearest}"
            )
        return self


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


class StandardSettings(Settings):
    """See ``StandardQuantizer``."""

    commitment_weight: NonNegativeFloat = 0.25
    legacy: bool = False


class EMASettings(Settings):
    """See ``EMAQuantizer``."""

    commitment_weight: NonNegativeFloat = 0.25
    decay: Decay = 0.99
    eps: PositiveFloat = 1e-5


class GumbelSettings(Settings):
    """See ``GumbelQuantizer``."""

    straight_through: bool = True
    temperature_start: PositiveFloat = 1.0
    temperature_end: PositiveFloat = 1 / 16
    temperature_steps: PositiveInt = 10_000
    kl_weight: NonNegativeFloat = 5e-4
    kl_warmup_steps: NonNegativeInt = 0


class EntropySettings(StandardSettings):
    """See ``EntropyQuantizer``."""

    temperature: PositiveFloat = 0.01
    entropy_weight: NonNegativeFloat = 0.1
    kl_weight: NonNegativeFloat = 0.1


class ResetSettings(Settings):
    """See ``DeadCodeReset``."""

    every: PositiveInt = 100
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.1
    source: Literal["latents", "codes", "kmeans"] = "latents"
    noise: NonNegativeFloat = 0.01


class QuantizerSettings(Settings):
    """Which quantizer, with which remedies."""

    spec: str = "standard"
    """``standard``, ``ema``, ``gumbel`` or ``entropy``, ``+reset``, and settings as in ``gumbel:kl_weight=0.01``."""
    codebook_size: Annotated[int, Field(ge=2)] = 1024
    """K, the number of codes."""
    dim: PositiveInt = 256
    """D, the dimension of a code."""
    init: Literal["default", "uniform", "normal", "kmeans"] = "default"
    """First codes: the quantizer's own choice, U(-1/K, 1/K), N(0, 1), or k-means of the first batches' latents."""
    kmeans_batches: PositiveInt = 8
    """Batches whose latents k-means starts from."""
    standard: StandardSettings = StandardSettings()
    ema: EMASettings = EMASettings()
    gumbel: GumbelSettings = GumbelSettings()
    entropy: EntropySettings = EntropySettings()
    reset: ResetSettings = ResetSettings()

    @model_validator(mode="before")
    @classmethod
    def _settings_from_spec(cls, values: Any) -> Any:
        return spelled_out(values) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _spec_and_settings_agree(self) -> "QuantizerSettings":
        for name, settings in self.parsed.settings.items():
            branch = getattr(self, name)
            told = type(branch).model_validate(branch.model_dump() | settings)
            for key in settings:
                if getattr(told, key) != (value := getattr(branch, key)):
                    raise ValueError(
                        f"quantizer.{name}.{key} is {value}, but quantizer.spec says {self.spec!r}: change the spec"
                    )
        return self

    @model_validator(mode="after")
    def _gumbel_has_no_kmeans(self) -> "QuantizerSettings":
        if self.init == "kmeans" and self.parsed.quantizer == "gumbel":
            raise ValueError("init 'kmeans' does not apply to gumbel, whose codes are not chosen by their distance")
        return self

    @property
    def parsed(self) -> Spec:
        """The spec, taken apart."""
        return _parse(self.spec)


def spelled_out(branch: Mapping[str, Any]) -> dict[str, Any]:
    """A ``quantizer`` branch with what its spec sets written beside it, where the branch itself does not say."""
    if not isinstance(spec := branch.get("spec"), str):
        return dict(branch)
    told = _parse(spec).settings
    plain = {name: value.model_dump() if isinstance(value, Settings) else value for name, value in branch.items()}
    return plain | {
        name: settings | plain.get(name, {}) for name, settings in told.items() if isinstance(plain.get(name, {}), dict)
    }


def _parse(spec: str) -> Spec:
    return parse_spec(spec, {"standard", "ema", "gumbel", "entropy"}, {"reset"})


class LossSettings(Settings):
    """The objective; of a segmentation only ``quantizer_weight`` counts, see ``LabelReconstruction``."""

    l1_weight: NonNegativeFloat = 1.0
    l2_weight: NonNegativeFloat = 0.0
    perceptual: Literal["none", "vgg", "alex", "squeeze"] = "none"
    """Backbone of LPIPS (Zhang et al. 2018, arXiv:1801.03924)."""
    perceptual_weight: NonNegativeFloat = 1.0
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
    disc_channels: PositiveInt = 64
    disc_layers: PositiveInt = 3


class OptimizerSettings(Settings):
    """Adam for the autoencoder, and a second one for the discriminator."""

    lr: PositiveFloat = 4.5e-6 * 12
    """Peak learning rate."""
    betas: tuple[Decay, Decay] = (0.5, 0.9)
    warmup_steps: NonNegativeInt = 0
    """Steps over which the rate rises linearly."""
    schedule: Literal["constant", "cosine", "noam"] = "constant"
    """After the warm-up: as it is, a half cosine, or falling with the square root of the step."""
    min_lr_share: Share = 0.0
    """Where the cosine ends, as a share of ``lr``."""
    clip_norm: PositiveFloat | None = None
    """Largest gradient norm; null: not clipped."""

    @model_validator(mode="after")
    def _noam_warms_up(self) -> Self:
        if self.schedule == "noam" and not self.warmup_steps:
            raise ValueError("optimizer.schedule noam needs optimizer.warmup_steps of at least 1")
        return self


class TrainSettings(Settings):
    """The run."""

    steps: PositiveInt = 100_000
    """Optimizer steps."""
    batch_size: PositiveInt = 12
    """Images per optimizer step, over all devices and micro-batches."""
    accumulate: PositiveInt = 1
    """Micro-batches per optimizer step and device."""
    seed: NonNegativeInt = 0
    every: PositiveInt = 100
    """Optimizer steps per codebook record."""
    log_every: PositiveInt = 10
    """Optimizer steps per line of metrics."""
    validate_every: PositiveInt | None = 1000
    """Optimizer steps between validations and sample images; null: only at the end."""
    validate_images: PositiveInt = 512
    """Images of the validation split that a validation during training looks at, at most."""
    checkpoint_every: PositiveInt = 1000
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["32", "bf16", "16"] = "32"
    devices: PositiveInt = 1
    tensorboard: bool = True

    @model_validator(mode="before")
    @classmethod
    def _precision_is_a_name(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("precision"), int):
            values = {**values, "precision": str(values["precision"])}
        return values


class RunConfig(Settings):
    """All settings of a run; ``config.yaml`` in the run folder is this tree and repeats the run."""

    data: DataSettings = DataSettings()
    train: TrainSettings = TrainSettings()

    @model_validator(mode="after")
    def _batches_can_be_divided(self) -> Self:
        parts = self.train.devices * self.train.accumulate
        if self.train.batch_size % parts:
            raise ValueError(
                f"train.batch_size {self.train.batch_size} is not a multiple of devices x accumulate = {parts}"
            )
        return self

    def to_yaml(self) -> str:
        """The whole tree, defaults included."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


class Config(RunConfig):
    """The settings of a first stage."""

    stage: Literal["vqgan"] = "vqgan"
    """Which stage these are the settings of."""
    model: ModelSettings = ModelSettings()
    quantizer: QuantizerSettings = QuantizerSettings()
    loss: LossSettings = LossSettings()
    optimizer: OptimizerSettings = OptimizerSettings()

    @model_validator(mode="after")
    def _the_loss_suits_the_view(self) -> "Config":
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
    def _parts_fit(self) -> "Config":
        factor = 2 ** (len(self.model.ch_mult) - 1)
        if self.data.image_size % factor:
            raise ValueError(
                f"data.image_size {self.data.image_size} is not a multiple of {factor}, the factor by which "
                f"model.ch_mult {list(self.model.ch_mult)} shrinks an image"
            )
        return self

"""The settings that both stages have: the optimizer, the run, the tree itself."""

from typing import Any, Literal, Self

import yaml
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from ..config.base import Decay, Settings, Share
from ..data.settings import DataSettings


class OptimizerSettings(Settings):
    """Adam for the autoencoder, and a second one for the discriminator."""

    lr: PositiveFloat = 4.5e-6 * 12
    """Peak learning rate."""
    betas: tuple[Decay, Decay] = (0.5, 0.9)
    """Decay per step of Adam's two moments."""
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
    """Of weights, data order and noise."""
    every: PositiveInt = 100
    """Optimizer steps per codebook record."""
    log_every: PositiveInt = 10
    """Optimizer steps per line of metrics."""
    validate_every: PositiveInt | None = 1000
    """Optimizer steps between validations and sample images; null: only at the end."""
    validate_images: PositiveInt = 512
    """Images of the validation split that a validation during training looks at, at most."""
    checkpoint_every: PositiveInt = 1000
    """Optimizer steps between checkpoints to go on from."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; ``auto``: on a GPU where there is one."""
    precision: Literal["32", "bf16", "16"] = "32"
    """Float32, or mixed with bfloat16 or float16; quantizers compute in float32 all the same."""
    devices: PositiveInt = 1
    """How many devices share each batch."""
    tensorboard: bool = True
    """Write TensorBoard files beside ``metrics.jsonl``."""

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

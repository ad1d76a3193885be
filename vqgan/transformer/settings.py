"""The settings of a second stage."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from ...diagnostics.errors import InputError
from ...diagnostics.run import RunDirectory
from ..autoencoder.settings import autoencoder_config_of
from ..config.base import Decay, Settings, Share
from ..config.layers import merge, validated
from ..sampling.settings import DrawingSettings
from ..training.settings import OptimizerSettings, RunConfig
from .gpt import Size, size_named
from .orders import check_order


class ConditionSettings(Settings):
    """What the codes are conditioned on."""

    kind: Literal["none", "class", "coordinates", "spatial"] = "none"
    """A start token alone; the class of the image; where the crop lies in its picture; the codes of another VQGAN."""
    stage: Path | None = None
    """For ``spatial``: the finished run of a first stage whose ``data.view`` is the condition."""
    levels: PositiveInt = 1024
    """For ``coordinates``: tokens that a coordinate in [0, 1) is rounded to."""
    drop: Share = 0.0
    """Share of the training sequences whose condition is left out; classifier-free guidance needs some."""

    @model_validator(mode="after")
    def _a_spatial_condition_has_a_stage(self) -> Self:
        if (self.kind == "spatial") != (self.stage is not None):
            raise ValueError(
                "condition.stage, the run of a first stage, belongs to condition.kind spatial, and it only"
            )
        if self.kind == "none" and self.drop:
            raise ValueError("condition.drop is for conditions: with condition.kind none there is none to leave out")
        return self


class TransformerSettings(Settings):
    """See ``GPT``."""

    size: str = "small"
    """``tiny``, ``small``, ``base``, ``taming`` or ``taming-imagenet``."""
    layers: PositiveInt | None = None
    """Layers, where they are to differ from those of ``size``."""
    heads: PositiveInt | None = None
    """Attention heads, likewise."""
    width: PositiveInt | None = None
    """Channels of a token, likewise."""
    dropout: Share = 0.0
    """Dropout of embeddings, attention weights and residuals."""
    pkeep: Share = 1.0
    """Probability that an input code stays what it is; else it is replaced by a random one, in training only."""
    order: str = "raster"
    """In which order the codes of the grid are told: raster, z-curve, spiral-out, spiral-in, random, alternate."""
    sos: NonNegativeInt | None = None
    """Token that starts an unconditional sequence; null: one of its own, after codes and condition."""

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        check_order(self.order)
        if self.sizes.width % self.sizes.heads:
            raise ValueError(f"transformer.width {self.sizes.width} is not a multiple of {self.sizes.heads} heads")
        return self

    @property
    def sizes(self) -> Size:
        """Layers, heads and width."""
        named = size_named(self.size)
        return Size(self.layers or named.layers, self.heads or named.heads, self.width or named.width)


class AdamWSettings(OptimizerSettings):
    """AdamW; only the weights of linear layers decay."""

    betas: tuple[Decay, Decay] = (0.9, 0.95)
    """Decay per step of Adam's two moments."""
    weight_decay: NonNegativeFloat = 0.01
    """Share of the weights of linear layers that decays, times the learning rate."""


class SamplingSettings(DrawingSettings):
    """How the evaluation samples."""

    guidance: NonNegativeFloat = 1.0
    """Scale of classifier-free guidance; 1: none, 0: as if there were no condition."""
    count: Annotated[int, Field(ge=2)] = 1000
    """Images that are sampled for the evaluation, under the conditions of the split's images."""
    seed: NonNegativeInt = 0
    """Of the random numbers that the codes are drawn with."""

    def told(self) -> dict[str, Any]:
        """As an evaluation tells them beside the count of its samples; of ``greedy`` nothing where it is not so."""
        return self.model_dump(mode="json", exclude={"count"} if self.greedy else {"count", "greedy"})


class TransformerConfig(RunConfig):
    """The settings of a second stage."""

    stage: Literal["transformer"] = "transformer"
    """Which stage these are the settings of."""
    first_stage: Path
    """The finished run whose codes are learned."""
    codebook_size: PositiveInt
    """K of the first stage."""
    condition: ConditionSettings = ConditionSettings()
    transformer: TransformerSettings = TransformerSettings()
    optimizer: AdamWSettings = AdamWSettings()
    sampling: SamplingSettings = SamplingSettings()

    @model_validator(mode="after")
    def _guidance_was_learned(self) -> Self:
        if self.sampling.guidance != 1 and not self.condition.drop:
            raise ValueError(
                f"sampling.guidance {self.sampling.guidance} needs a condition that training leaves out now and then: "
                "condition.kind other than none, and condition.drop such as 0.1"
            )
        return self

    @model_validator(mode="after")
    def _only_the_unconditional_start(self) -> Self:
        if self.transformer.sos is not None and self.condition.kind != "none":
            raise ValueError(
                f"transformer.sos is the start of an unconditional sequence: with condition.kind {self.condition.kind} "
                "the condition is what a sequence starts with"
            )
        return self


def build_transformer_config(tree: Mapping[str, Any]) -> TransformerConfig:
    """The settings of a second stage from a tree; data and codebook size are those of the first, where not given.

    Raises:
        InputError: There is no first stage, or see ``validated``.
    """
    if tree.get("first_stage") is None:
        raise InputError("a transformer needs a finished first stage: name its run with first_stage", "first_stage")
    run = RunDirectory(Path(str(tree["first_stage"])))
    if not run.has_config and "codebook_size" in tree:
        return validated(TransformerConfig, tree)
    first = autoencoder_config_of(run)
    inherited = {"data": first.data.model_dump(mode="json"), "codebook_size": first.quantizer.codebook_size}
    return validated(TransformerConfig, merge(inherited, tree))

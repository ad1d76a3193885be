"""Which quantizer, with which remedies, as settings."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, model_validator

from ..config.base import Settings
from ..config.spec import Spec, parse_spec
from .ema import EMASettings
from .entropy import EntropySettings
from .gumbel import GumbelSettings
from .reset import ResetSettings
from .standard import StandardSettings


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

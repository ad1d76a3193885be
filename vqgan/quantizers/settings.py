"""Which quantizer, with which remedies: a tree of settings that the registries make."""

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, ValidationError, create_model, model_validator

from ...diagnostics.errors import InputError, unknown
from ..config.base import Settings
from ..config.spec import Spec, parse_spec, spelled_out
from . import QUANTIZERS, REMEDIES
from .base import LearnedQuantizer, Quantizer


class QuantizerChoice(Settings):
    """Which quantizer, with which remedies; see ``QuantizerSettings`` for the branches that belong to them."""

    spec: str = "standard"
    """A quantizer, ``+`` its remedies, and what is set of them, as in ``gumbel:kl_weight=0.01+reset:every=50``."""
    codebook_size: Annotated[int, Field(ge=2)] = 1024
    """K, the number of codes."""
    dim: PositiveInt = 256
    """D, the dimension of a code."""
    init: Literal["default", "uniform", "normal", "kmeans"] = "default"
    """First codes: the quantizer's own choice, U(-1/K, 1/K), N(0, 1), or k-means of the first batches' latents."""
    kmeans_batches: PositiveInt = 8
    """Batches whose latents k-means starts from."""

    @model_validator(mode="before")
    @classmethod
    def _spec_and_branches_say_the_same(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("spec", ""), str):
            return values
        told = spelled_out({"spec": "standard", **values})
        spec = parse_spec(told["spec"])
        _check_names(spec)
        return told | {"spec": str(spec._replace(settings={name: _set(name, told.get(name)) for name in spec.names}))}

    @model_validator(mode="after")
    def _codes_that_are_fixed_stay(self) -> Self:
        kind, name = self.kind, self.parsed.quantizer
        if not issubclass(kind, LearnedQuantizer):
            if self.parsed.remedies:
                remedies = "".join(f"+{remedy}" for remedy in self.parsed.remedies)
                raise InputError(f"quantizer {name!r} has fixed codes, which {remedies} cannot rewrite: leave it out")
            if self.init != "default":
                raise InputError(
                    f"quantizer.init {self.init!r} is for codes that are learned, those of {name} are fixed"
                )
        if self.init == "kmeans" and not kind.by_distance:
            raise InputError(f"init 'kmeans' does not apply to {name}, whose codes are not chosen by their distance")
        kind.check_size(self.codebook_size, self.dim, self.of(name))
        return self

    @property
    def parsed(self) -> Spec:
        """The spec, taken apart."""
        return parse_spec(self.spec)

    @property
    def kind(self) -> type[Quantizer]:
        """The class of the quantizer."""
        return QUANTIZERS[self.parsed.quantizer]

    def of(self, name: str) -> Settings:
        """The settings of a quantizer or a remedy."""
        return getattr(self, name)


def _check_names(spec: Spec) -> None:
    if spec.quantizer not in QUANTIZERS:
        raise unknown("quantizer", spec.quantizer, QUANTIZERS)
    for name in spec.remedies:
        if name not in REMEDIES:
            raise unknown("remedy", name, REMEDIES)


def _set(name: str, branch: Any) -> dict[str, Any]:
    """What a branch sets to another value than the default; nothing where the branch is wrong, which shows later."""
    kind = _BRANCHES[name]
    try:
        branch = kind.model_validate({} if branch is None else branch)
    except ValidationError:
        return {}
    return {key: value for key, value in branch.model_dump(mode="json").items() if value != getattr(kind(), key)}


_BRANCHES = {name: kind.settings_type for name, kind in {**QUANTIZERS, **REMEDIES}.items()}

if TYPE_CHECKING:
    QuantizerSettings = QuantizerChoice
else:  # with a branch for each name in the registries
    QuantizerSettings = create_model(
        "QuantizerSettings",
        __base__=QuantizerChoice,
        __doc__="Which quantizer, with which remedies.",
        **{name: (kind, kind()) for name, kind in _BRANCHES.items()},
    )

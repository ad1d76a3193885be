"""Quantizer specs: the strings by which people name a quantizer, its settings and its remedies."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import yaml

from ...diagnostics.errors import InputError


class Spec(NamedTuple):
    """A parsed spec: ``gumbel:kl_weight=0.01+reset:every=50``.

    Attributes:
        quantizer: Name of the quantizer.
        remedies: Names of the remedies on it.
        settings: What the spec sets, by the name of the quantizer or remedy.
    """

    quantizer: str
    remedies: tuple[str, ...]
    settings: dict[str, dict[str, Any]]

    @property
    def names(self) -> tuple[str, ...]:
        """The quantizer and its remedies."""
        return self.quantizer, *self.remedies

    def __str__(self) -> str:
        parts = [
            [name, *(f"{key}={_text(v)}" for key, v in self.settings.get(name, {}).items())] for name in self.names
        ]
        return "+".join(":".join(part) for part in parts)


def parse_spec(text: str) -> Spec:
    """Parse ``QUANTIZER[:key=value...][+REMEDY[:key=value...]]...``; whether the names exist is not looked at.

    Raises:
        InputError: A remedy stands twice, or a setting is not ``key=value``.
    """
    names: list[str] = []
    settings: dict[str, dict[str, Any]] = {}
    for part in text.split("+"):
        name, *options = part.strip().split(":")
        if name in names[1:]:
            raise InputError(f"remedy {name!r} stands twice in {text!r}")
        names.append(name)
        settings[name] = dict(_setting(option, text) for option in options)
    return Spec(names[0], tuple(names[1:]), settings)


def spelled_out(branch: Mapping[str, Any]) -> dict[str, Any]:
    """A ``quantizer`` branch with what its spec sets written beside it: the branch of a layer says all that it says.

    Raises:
        InputError: The spec cannot be parsed, or it sets a value that the branch gives another one.
    """
    if not isinstance(text := branch.get("spec"), str):
        return dict(branch)
    told = dict(branch)
    for name, settings in parse_spec(text).settings.items():
        beside = told.get(name, {})
        if settings and isinstance(beside, Mapping):
            for key, value in settings.items():
                if key in beside and beside[key] != value:
                    raise InputError(
                        f"quantizer.{name}.{key} is {beside[key]}, but quantizer.spec says {text!r}: make them agree"
                    )
            told[name] = {**beside, **settings}
    return told


def _setting(option: str, text: str) -> tuple[str, Any]:
    key, equals, value = option.partition("=")
    if not (key and equals and value):
        raise InputError(f"{option!r} in quantizer {text!r} should read key=value, as in gumbel:kl_weight=0.01")
    try:
        return key, _value(value)
    except yaml.YAMLError:
        raise InputError(f"the value {value!r} of {key} in quantizer {text!r} cannot be read") from None


def _value(text: str) -> Any:
    """As YAML has it, and numbers such as 1e-3, which YAML 1.1 takes for words."""
    value = yaml.safe_load(text)
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _text(value: Any) -> str:
    """As ``_value`` reads it, without the ``+`` of an exponent, which would begin a remedy."""
    return value if isinstance(value, str) else json.dumps(value).replace("e+", "e")

"""Quantizer specs: the strings by which people name a quantizer, its settings and its remedies."""

from typing import Any, NamedTuple

import yaml

from ...diagnostics.errors import InputError, unknown


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


def parse_spec(text: str, quantizers: set[str], remedies: set[str]) -> Spec:
    """Parse ``QUANTIZER[:key=value...][+REMEDY[:key=value...]]...``.

    Raises:
        InputError: An unknown quantizer or remedy, a remedy named twice, a setting that is not ``key=value``.
    """
    names, settings = [], {}
    for position, part in enumerate(text.split("+")):
        name, *options = part.strip().split(":")
        allowed, kind = (quantizers, "quantizer") if position == 0 else (remedies, "remedy")
        if name not in allowed:
            raise unknown(kind, name, allowed)
        if name in names:
            raise InputError(f"remedy {name!r} stands twice in {text!r}")
        names.append(name)
        settings[name] = dict(_setting(option, text) for option in options)
    return Spec(names[0], tuple(names[1:]), settings)


def _setting(option: str, text: str) -> tuple[str, Any]:
    key, equals, value = option.partition("=")
    if not (key and equals and value):
        raise InputError(f"{option!r} in quantizer {text!r} should read key=value, as in gumbel:kl_weight=0.01")
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError:
        raise InputError(f"the value {value!r} of {key} in quantizer {text!r} cannot be read") from None

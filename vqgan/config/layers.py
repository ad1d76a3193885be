"""From files and options to a validated config."""

import functools
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from ...diagnostics.errors import InputError, unknown
from .spec import spelled_out

Kind = TypeVar("Kind", bound=BaseModel)


def validated(kind: type[Kind], tree: Mapping[str, Any]) -> Kind:
    """Validate a tree of settings.

    Raises:
        InputError: The first thing that is wrong, in one line: an unknown key with the nearest right one, a value of
            the wrong type or out of range, parts that do not fit together.
    """
    try:
        return kind.model_validate(dict(tree))
    except ValidationError as error:
        raise explained(error, kind) from None


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the leaves of ``over`` in place of its own."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


def layered(trees: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """One tree from several layers, each of which wins over those before it, leaf by leaf."""
    return functools.reduce(merge, map(layer, trees), {})


def layer(tree: Mapping[str, Any]) -> dict[str, Any]:
    """``tree`` with the settings of its quantizer spec spelled out, so that they replace those of the layers below."""
    branch = tree.get("quantizer")
    return {**tree, "quantizer": spelled_out(branch)} if isinstance(branch, Mapping) else dict(tree)


def assignment(text: str) -> dict[str, Any]:
    """``train.steps=400`` -> ``{"train": {"steps": 400}}``; the value is read as YAML.

    Raises:
        InputError: There is no ``=`` or no key, or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise InputError(f"set {text!r} should read key=value, as in train.steps=400", "set")
    try:
        tree = yaml.safe_load(value)
    except yaml.YAMLError:
        raise InputError(f"set {key}: the value {value!r} cannot be read", "set") from None
    return nest(key, tree)


def nest(key: str, value: Any) -> dict[str, Any]:
    """``("train.steps", 400)`` -> ``{"train": {"steps": 400}}``."""
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


def keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """The dotted names of all settings."""
    names = []
    for name, field in model.model_fields.items():
        branch = field.annotation
        if isinstance(branch, type) and issubclass(branch, BaseModel):
            names += keys(branch, f"{prefix}{name}.")
        else:
            names.append(f"{prefix}{name}")
    return names


def explained(error: ValidationError, kind: type[BaseModel]) -> InputError:
    """The first thing that is wrong with a tree of this kind, in one line."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"] if isinstance(part, str))
    if first["type"] == "extra_forbidden":
        return unknown_key(where, kind)
    if isinstance(cause := first.get("ctx", {}).get("error"), InputError):
        return cause
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return InputError(message)
    return InputError(f"{where or 'config'}: {message[0].lower()}{message[1:]}, not {first['input']!r}")


def unknown_key(key: str, kind: type[BaseModel]) -> InputError:
    """The error for a key that is not in the tree, with the keys of the nearest branch that is."""
    leaf = key.rpartition(".")[2]
    if homes := [name for name in keys(kind) if name.endswith(f".{leaf}")]:
        return InputError(f"config key {key!r} is unknown; did you mean {' or '.join(map(repr, homes))}?")
    branch = key.partition(".")[0]
    siblings = [name for name in keys(kind) if name.startswith(f"{branch}.")]
    return unknown("config key", key, siblings or kind.model_fields)

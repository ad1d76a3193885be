"""Every setting of a tree, for people: its name, default, bounds and sentence."""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, get_args, get_origin

import yaml
from annotated_types import Ge, Gt, Le, Lt, MinLen, MultipleOf
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ...diagnostics.errors import unknown


class Setting(NamedTuple):
    """A leaf of a tree of settings.

    Attributes:
        name: Its dotted name.
        default: As YAML has it; ``required`` where there is none.
        allowed: Its type, or its choices, and its bounds.
        about: What it is, in a sentence.
    """

    name: str
    default: str
    allowed: str
    about: str


def settings_below(tree: type[BaseModel], prefix: str = "") -> list[Setting]:
    """The settings whose dotted name begins with ``prefix``, in the order of the tree.

    Raises:
        InputError: There is none.
    """
    settings = list(_leaves(tree, ""))
    found = [setting for setting in settings if _begins(setting.name, prefix)]
    if not found:
        names = [setting.name for setting in settings]
        raise unknown("setting", prefix, {*names, *(name.rpartition(".")[0] for name in names)} - {""})
    return found


def _begins(name: str, prefix: str) -> bool:
    return not prefix or name == prefix or name.startswith(prefix.rstrip(".") + ".")


def _leaves(tree: type[BaseModel], prefix: str) -> Iterator[Setting]:
    for name, field in tree.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _leaves(kind, f"{prefix}{name}.")
        else:
            about = " ".join((field.description or "").split()).replace("``", "")
            yield Setting(f"{prefix}{name}", _default(field), _allowed(field), about)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = list(field.default) if isinstance(field.default, tuple) else field.default
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("\n...\n").strip()


def _allowed(field: FieldInfo) -> str:
    bounds = [text for mark in field.metadata for text in _bound(mark)]
    return ", ".join([_kind(field.annotation), *bounds])


def _kind(annotation: Any) -> str:
    """A type as people say it: ``a | b`` for choices, ``null`` for None, ``[...]`` for lists."""
    arguments = get_args(annotation)
    if get_origin(annotation) is Literal:
        return " | ".join(map(str, arguments))
    if get_origin(annotation) is tuple:
        return f"[{', '.join(_kind(argument) for argument in arguments if argument is not ...)}" + (
            ", ...]" if ... in arguments else "]"
        )
    if arguments and hasattr(annotation, "__metadata__"):
        marks = [text for mark in annotation.__metadata__ for text in _bound(mark)]
        return " ".join([_kind(arguments[0]), *marks])
    if arguments:
        return " | ".join(_kind(argument) for argument in arguments)
    names = {type(None): "null", bool: "true | false", int: "whole number", float: "number", str: "text"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)).lower())


def _bound(mark: Any) -> Iterator[str]:
    """What a constraint of annotated-types, or of pydantic's Field, allows."""
    match mark:
        case Ge(ge=least):
            yield f">= {least}"
        case Gt(gt=least):
            yield f"> {least}"
        case Le(le=most):
            yield f"<= {most}"
        case Lt(lt=most):
            yield f"< {most}"
        case MultipleOf(multiple_of=number):
            yield f"a multiple of {number}"
        case MinLen(min_length=least):
            yield f"at least {least}"
        case FieldInfo(metadata=marks):
            for inner in marks:
                yield from _bound(inner)

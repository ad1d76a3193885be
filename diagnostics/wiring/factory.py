"""``module:factory``: the model that the command lints, made by a function of the user's."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import InputError, in_short, unknown

_RETURNS = "model or (model, batch, loss, optimizer)"


def make(spec: str) -> tuple[Any, ...]:
    """What the factory returns, as (model,) or (model, batch, loss, optimizer). The working directory is importable.

    Args:
        spec: ``module:factory``, the module as it is imported.

    Raises:
        InputError: It cannot be imported or called, or returns something else.
    """
    made = _called(_factory(spec), spec)
    from torch import nn

    parts = made if isinstance(made, tuple) else (made,)
    if len(parts) not in (1, 4) or not isinstance(parts[0], nn.Module):
        shown = f"({', '.join(type(part).__name__ for part in parts)})" if len(parts) != 1 else type(made).__name__
        raise InputError(f"{spec} should return {_RETURNS}, where model is a torch.nn.Module; it returned {shown}")
    if len(parts) == 4 and not callable(parts[2]):
        raise InputError(f"{spec} should return {_RETURNS}: its loss is {type(parts[2]).__name__} and cannot be called")
    return parts


def _factory(spec: str) -> Callable[[], Any]:
    name, colon, attribute = spec.partition(":")
    if not (name and colon and attribute):
        raise InputError(f"{spec!r} should be MODULE:FACTORY, as in train:make for the function make in train.py")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise InputError(f"there is no module {error.name!r}, neither installed nor in {here}") from None
        raise InputError(f"{name} cannot be imported: {in_short(error)}") from error
    except Exception as error:
        raise InputError(f"{name} cannot be imported: {in_short(error)}") from error
    found = getattr(module, attribute, None)
    if found is None:
        own = [each for each, value in vars(module).items() if callable(value) and not each.startswith("_")]
        raise unknown(f"factory of {name}", attribute, own)
    if not callable(found):
        raise InputError(f"{spec} is {type(found).__name__} and no function that makes {_RETURNS}")
    return found


def _called(factory: Callable[[], Any], spec: str) -> Any:
    try:
        return factory()
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{spec} failed: {in_short(error)}") from error

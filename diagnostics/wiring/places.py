"""Where to look: paths in a model, files of classes."""

import inspect
import itertools
import os

from torch import Tensor, nn


def path_of(model: nn.Module, module: nn.Module) -> str:
    """The path of a module in the model that holds it; empty for the model itself."""
    return next((path for path, part in model.named_modules() if part is module), "")


def place_of(model: nn.Module, codes: Tensor | None) -> str | None:
    """Path of the parameter or buffer that the codes are."""
    if codes is None:
        return None
    named = itertools.chain(model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False))
    return next((path for path, value in named if value.data_ptr() == codes.data_ptr()), None)


def file_of(kind: type) -> str:
    """Where a class is written, as short as it can be found by."""
    module = kind.__module__.replace(".", os.sep) + ".py"
    try:
        path, (_, line) = inspect.getsourcefile(kind) or module, inspect.getsourcelines(kind)
    except (OSError, TypeError):
        return "unknown"
    path, near = os.path.realpath(path), os.path.relpath(os.path.realpath(path))
    if kind.__module__ == "__main__":
        module = os.path.basename(path)
    installed = near.startswith(os.pardir) or "site-packages" in near
    return f"{module if installed else near}:{line}"

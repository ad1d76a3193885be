"""Hooks on a stranger's modules that leave no trace in what is copied or saved of them."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from ..probes import Call, Tap

OnReturn = Callable[[Call], None]


class _ForwardHook:
    """Tells of a call of a module. In a copy of the module, or in a saved one, it is a hook that does nothing."""

    def __init__(self, module: nn.Module, on_return: OnReturn):
        self._on_return = on_return
        self._left_out = left_out_of_graphs(module)
        self._tell: Any = torch.compiler.disable(self._told) if self._left_out else self._told

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if torch.compiler.is_compiling() and not self._left_out:
            return  # traced to nothing: the compiled graph is as without the hook, and nothing is read of it
        self._tell(module, args, kwargs, output)

    def _told(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        self._on_return(Call(module, "forward", args, kwargs, output))

    def __reduce__(self) -> tuple[Any, ...]:
        # Takes any arguments and returns None, and who loads it needs no vqtool.
        return getattr, (nullcontext(), "__exit__")


def left_out_of_graphs(module: nn.Module) -> bool:
    """Whether ``torch.compiler.disable`` has taken a module's forward out of what is compiled."""
    return getattr(vars(module).get("forward"), "_torchdynamo_disable", False) is True


class _WatchedMethod:
    """A method that tells of its calls. In a copy of the module it is the copy's own method again."""

    def __init__(self, tap: Tap, on_return: OnReturn):
        self.before = vars(tap.module).get(tap.method)
        self.active = True
        self._tap, self._on_return = tap, on_return
        self._method = getattr(tap.module, tap.method)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        output = self._method(*args, **kwargs)
        if self.active:
            self._on_return(Call(self._tap.module, self._tap.method, args, kwargs, output))
        return output

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self._tap.module, self._tap.method)


class _MethodHandle:
    """Gives a module its own method back, as soon as nobody else watches it either."""

    def __init__(self, tap: Tap, watched: _WatchedMethod):
        self._tap, self._watched = tap, watched
        vars(tap.module)[tap.method] = watched

    def remove(self) -> None:
        self._watched.active = False
        own, name = vars(self._tap.module), self._tap.method
        while isinstance(outer := own.get(name), _WatchedMethod) and not outer.active:
            if outer.before is None:
                del own[name]
            else:
                own[name] = outer.before


def watch(tap: Tap, on_return: OnReturn) -> RemovableHandle | _MethodHandle:
    """Have ``on_return`` told of every call of ``tap`` when it returns; what it returns is not touched.

    Returns:
        What takes the hook away again.
    """
    if tap.method == "forward":
        return tap.module.register_forward_hook(_ForwardHook(tap.module, on_return), with_kwargs=True)
    return _MethodHandle(tap, _WatchedMethod(tap, on_return))

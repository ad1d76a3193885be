"""The errors that the command line tells in one line: wrong input, and a run that failed."""

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """Wrong input, told in one line; the command line prints it and exits with code 2.

    Attributes:
        parameters: Names of parameters and settings in that line, each of which the command line turns into its option.
    """

    def __init__(self, message: str, *parameters: str):
        super().__init__(message)
        self.parameters = parameters


class RunFailedError(RuntimeError):
    """A run came to a bad end, told in one line; the command line prints it and exits with code 1."""


def in_short(error: Exception) -> str:
    """An error's kind and the first line of what it says."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def unknown(kind: str, name: str, allowed: Iterable[str]) -> InputError:
    """The error for a name that is not in a closed list: the name, the nearest right one, the whole list.

    Args:
        kind: What the name should have named, such as "quantizer".
        name: The name that was given.
        allowed: The names that exist.
    """
    names = sorted(allowed)
    near = get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return InputError(f"{kind} {name!r} is unknown{hint} (choose from {', '.join(names)})")

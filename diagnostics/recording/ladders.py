"""Which codebooks are the layers of one quantizer, or its heads or groups: told by their names."""

import re
from collections.abc import Iterable
from typing import NamedTuple

_NUMBERED = re.compile(r"(?:(?P<path>.*)\.)?(?P<kind>layer|head|group|)(?P<number>\d+)")


class Ladder(NamedTuple):
    """Codebooks that the same tokens pass, in their order.

    Attributes:
        name: The path that they have in common.
        codebooks: Their names.
        layered: Whether they are layers, each of which may quantize what the one before left. Heads and groups are
            parts of a latent side by side.
    """

    name: str
    codebooks: tuple[str, ...]
    layered: bool


def ladders(codebooks: Iterable[str]) -> list[Ladder]:
    """The ladders among codebooks: ``PATH.0``, ``PATH.1``, ..., or ``PATH.layer0``, ``PATH.head0``, ``PATH.group0``.

    One rung is a ladder too: a residual quantizer of one layer may be a part of another one.
    """
    found: dict[tuple[str, str], dict[int, str]] = {}
    for name in codebooks:
        if match := _NUMBERED.fullmatch(name):
            found.setdefault((match["path"] or "codebook", match["kind"]), {})[int(match["number"])] = name
    return [
        Ladder(path, tuple(numbered[number] for number in sorted(numbered)), kind in ("", "layer"))
        for (path, kind), numbered in found.items()
        if max(numbered) == len(numbered) - 1
    ]

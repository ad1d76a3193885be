"""Quantizers of other libraries, by convention and configuration."""

from strangers.base import Host, Stranger, Tokens, loss
from strangers.lucidrains import LUCIDRAINS

STRANGERS: dict[str, Stranger] = {**{f"lucidrains {name}": each for name, each in LUCIDRAINS.items()}}

__all__ = ["STRANGERS", "Host", "Stranger", "Tokens", "loss"]

"""Quantizers of other libraries, by convention and configuration."""

from strangers.audio_stub import stand_in

stand_in()

from strangers.audio import AUDIO
from strangers.base import Host, Stranger, Tokens, loss
from strangers.copies import COPIES
from strangers.levels import LEVELLED
from strangers.lucidrains import LUCIDRAINS
from strangers.tables import TABLES

STRANGERS: dict[str, Stranger] = {
    **{f"lucidrains {name}": each for name, each in LUCIDRAINS.items()},
    **LEVELLED,
    **TABLES,
    **AUDIO,
    **COPIES,
}

__all__ = ["STRANGERS", "Host", "Stranger", "Tokens", "loss"]

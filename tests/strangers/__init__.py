"""Quantizers of other libraries, by convention and configuration."""

from strangers.audio_stub import stand_in  # isort: skip

stand_in()

from strangers.audio import AUDIO  # noqa: E402
from strangers.base import Host, Stranger, Tokens, loss  # noqa: E402
from strangers.copies import COPIES  # noqa: E402
from strangers.levels import LEVELLED  # noqa: E402
from strangers.lucidrains import LUCIDRAINS  # noqa: E402
from strangers.tables import TABLES  # noqa: E402

STRANGERS: dict[str, Stranger] = {
    **{f"lucidrains {name}": each for name, each in LUCIDRAINS.items()},
    **LEVELLED,
    **TABLES,
    **AUDIO,
    **COPIES,
}

__all__ = ["AUDIO", "COPIES", "LEVELLED", "LUCIDRAINS", "STRANGERS", "TABLES", "Host", "Stranger", "Tokens", "loss"]

"""Quantizers and the remedies that work on any of them."""

from .base import LearnedQuantizer, Quantizer, QuantizerOutput
from .ema import EMAQuantizer
from .entropy import EntropyQuantizer
from .gumbel import GumbelQuantizer
from .reset import DeadCodeReset
from .search import nearest_codes
from .standard import StandardQuantizer

#: Every quantizer by the name that a spec calls it by.
QUANTIZERS: dict[str, type[Quantizer]] = {
    "standard": StandardQuantizer,
    "ema": EMAQuantizer,
    "gumbel": GumbelQuantizer,
    "entropy": EntropyQuantizer,
}
#: Every remedy by the name that a spec adds it by, as in ``ema+reset``.
REMEDIES: dict[str, type[DeadCodeReset]] = {"reset": DeadCodeReset}

__all__ = [
    "QUANTIZERS",
    "REMEDIES",
    "DeadCodeReset",
    "EMAQuantizer",
    "EntropyQuantizer",
    "GumbelQuantizer",
    "LearnedQuantizer",
    "Quantizer",
    "QuantizerOutput",
    "StandardQuantizer",
    "nearest_codes",
]

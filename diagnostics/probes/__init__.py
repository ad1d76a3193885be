"""Probes: how the instrument reads quantizers that it does not own."""

from .base import Call, CodebookReading, Live, Probe, Tap, WatchedCodebook
from .find import PROBES, FoundCodebooks, find_codebooks

__all__ = [
    "PROBES",
    "Call",
    "CodebookReading",
    "FoundCodebooks",
    "Live",
    "Probe",
    "Tap",
    "WatchedCodebook",
    "find_codebooks",
]

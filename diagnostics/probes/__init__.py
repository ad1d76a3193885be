"""Probes: how the instrument reads quantizers that it does not own."""

from .base import Call, CodebookReading, Live, NotAQuantizerError, Probe, Tap, WatchedCodebook
from .find import PROBES, FoundCodebooks, find_codebooks, recognised
from .reader import Reader

__all__ = [
    "PROBES",
    "Call",
    "CodebookReading",
    "FoundCodebooks",
    "Live",
    "NotAQuantizerError",
    "Probe",
    "Reader",
    "Tap",
    "WatchedCodebook",
    "find_codebooks",
    "recognised",
]

"""The instrument: attaches to any vector-quantized model, or a model over its codes, and records what the codes do."""

from .errors import InputError
from .monitor import CodebookMonitor
from .probes import PROBES, CodebookReading, Probe, find_codebooks
from .record import CodebookRecord, TokenRecord
from .run import RunDirectory, find_runs
from .sinks import Sink, TraceSink
from .token_monitor import TokenMonitor

__all__ = [
    "PROBES",
    "CodebookMonitor",
    "CodebookReading",
    "CodebookRecord",
    "InputError",
    "Probe",
    "RunDirectory",
    "Sink",
    "TokenMonitor",
    "TokenRecord",
    "TraceSink",
    "find_codebooks",
    "find_runs",
]

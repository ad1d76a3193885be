"""The instrument: attaches to any vector-quantized model and records what its codebooks do."""

from .errors import InputError
from .monitor import CodebookMonitor
from .probes import PROBES, CodebookReading, Probe, find_codebooks
from .record import CodebookRecord
from .run import RunDirectory, find_runs
from .sinks import Sink, TraceSink

__all__ = [
    "PROBES",
    "CodebookMonitor",
    "CodebookReading",
    "CodebookRecord",
    "InputError",
    "Probe",
    "RunDirectory",
    "Sink",
    "TraceSink",
    "find_codebooks",
    "find_runs",
]

"""The instrument: attaches to any vector-quantized model, or a model over its codes, and records what the codes do."""

from .errors import InputError
from .probes import PROBES, CodebookReading, Probe, find_codebooks
from .recording.codebook_monitor import CodebookMonitor
from .recording.records import CodebookRecord, TokenRecord
from .recording.sinks import Sink, TraceSink
from .recording.token_monitor import TokenMonitor
from .run import RunDirectory, find_runs

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

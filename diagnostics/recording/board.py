"""What the sinks for TensorBoard have in common: what is written of every record, and what of one now and then."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Generic, TypeVar

from ..run import RunDirectory
from .records import Record
from .scalars import scalars

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

R = TypeVar("R", bound=Record)


class BoardSink(ABC, Generic[R]):
    """Writes each record to TensorBoard. Every codebook counts its records for itself.

    Args:
        writer: Open summary writer; it stays the caller's to close.
        detail_every: Records between two sets of histograms and images, which cost far more than scalars. The first
            record of a codebook has one, and so has the last before a ``flush``: what is looked at is never behind.
    """

    def __init__(self, writer: "SummaryWriter", detail_every: int = 10):
        self.writer = writer
        self.detail_every = detail_every
        self._newest: dict[str, R] = {}
        self._since: dict[str, int] = {}  # records of a codebook since its last details

    @abstractmethod
    def _write_details(self, record: R) -> None:
        """What is written now and then."""

    def recall(self, run: RunDirectory) -> None:
        """Take in what a resumed run has recorded before; here nothing."""

    def write(self, record: R) -> None:
        """Scalars of every record, and details where they are due."""
        for name, value in scalars(record).items():
            self.writer.add_scalar(name, value, record.step)
        self._newest[record.codebook] = record
        self._since[record.codebook] = self._since.get(record.codebook, self.detail_every - 1) + 1
        if self._since[record.codebook] >= self.detail_every:
            self._catch_up(record.codebook)

    def _catch_up(self, codebook: str) -> None:
        self._write_details(self._newest[codebook])
        self._since[codebook] = 0

    def flush(self) -> None:
        """Details of what came since the last ones, and TensorBoard's files brought up to date."""
        for codebook, records in self._since.items():
            if records:
                self._catch_up(codebook)
        self.writer.flush()

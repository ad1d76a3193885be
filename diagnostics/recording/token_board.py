"""Records of a second stage's tokens as TensorBoard sees them."""

from typing import TYPE_CHECKING

import numpy as np

from .. import stats
from .records import TokenRecord

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

NORMS = [name for name in TokenRecord.columns() if name.endswith("_norm")]


class TokenBoardSink:
    """Writes each record to TensorBoard.

    Args:
        writer: Open summary writer; it stays the caller's to close.
        detail_every: Records between two sets of histograms, which cost far more than scalars.
    """

    def __init__(self, writer: "SummaryWriter", detail_every: int = 10):
        self.writer = writer
        self.detail_every = detail_every
        self._records = 0

    def write(self, record: TokenRecord) -> None:
        """Scalars of every record, and the distributions over codes of every ``detail_every``-th."""
        for name, value in _scalars(record).items():
            self.writer.add_scalar(f"{record.codebook}/{name}", value, record.step)
        if self._records % self.detail_every == 0:
            for name in ["nll", *NORMS]:
                values = getattr(record, name)
                if len(finite := values[np.isfinite(values)]):
                    self.writer.add_histogram(f"{record.codebook}/{name}", finite, record.step)
        self._records += 1

    def flush(self) -> None:
        """Have TensorBoard's files brought up to date."""
        self.writer.flush()


def _scalars(record: TokenRecord) -> dict[str, float]:
    tokens = record.targets.sum()
    scalars = {
        "tokens_window": tokens,
        "nll_window": np.nansum(record.nll * record.targets) / tokens if tokens else np.nan,
        "codes_targeted_window": stats.codes_used(record.targets),
    }
    groups = {"targets": record.targets > 0, "others": record.targets == 0}
    for name in NORMS:
        for group, codes in groups.items():
            if codes.any():
                scalars[f"{name}_{group}_mean"] = getattr(record, name)[codes].mean()
    return {name: float(value) for name, value in scalars.items() if np.isfinite(value)}

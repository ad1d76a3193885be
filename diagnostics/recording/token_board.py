"""Records of a second stage's tokens as TensorBoard sees them."""

import numpy as np

from .. import stats
from .board import BoardSink
from .records import TokenRecord

NORMS = [name for name in TokenRecord.columns() if name.endswith("_norm")]


class TokenBoardSink(BoardSink[TokenRecord]):
    """Writes the records of a second stage's tokens to TensorBoard; see ``BoardSink``."""

    def _write_scalars(self, record: TokenRecord) -> None:
        for name, value in _scalars(record).items():
            self.writer.add_scalar(f"{record.codebook}/{name}", value, record.step)

    def _write_details(self, record: TokenRecord) -> None:
        for name in ["nll", *NORMS]:
            values = getattr(record, name)
            if len(finite := values[np.isfinite(values)]):
                self.writer.add_histogram(f"{record.codebook}/{name}", finite, record.step)


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

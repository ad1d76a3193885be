"""Records of a second stage's tokens as TensorBoard sees them."""

from .board import BoardSink
from .records import TokenRecord
from .scalars import TOKEN_NORMS, finite


class TokenBoardSink(BoardSink[TokenRecord]):
    """Writes the records of a second stage's tokens to TensorBoard; see ``BoardSink``."""

    def _write_details(self, record: TokenRecord) -> None:
        for name in ["nll", *TOKEN_NORMS]:
            if len(values := finite(getattr(record, name))):
                self.writer.add_histogram(f"{record.codebook}/{name}", values, record.step)

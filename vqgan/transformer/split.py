"""A split as the transformer sees it: prefixes and codes."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..data import Images
from .conditions import Condition, chosen
from .tokenizer import Tokenizer
from .tokens import Codes, codes_of, hits


class CodeSplit:
    """The codes of a split's fixed crops with what stands before them.

    Attributes:
        images: The split.
        condition: What stands before the codes.
        codes: (N, h, w) code indices, memory-mapped.
        mirrored: The same of the crops flipped left to right, where those take part.
    """

    def __init__(self, tokenizer: Tokenizer, images: Images, condition: Condition, cache: Path, *, flip: bool = False):
        self.images, self.condition = images, condition
        self.codes: Codes = codes_of(tokenizer, images, cache)
        self.mirrored: Codes | None = codes_of(tokenizer, images, cache, mirrored=True) if flip else None
        self._prefixes = condition.of(images)

    def __len__(self) -> int:
        return len(self.codes)

    def hits(self, codebook_size: int) -> NDArray[np.int64]:
        """(K,) how often each code occurs, in mirrored crops too where those take part."""
        total = hits(self.codes, codebook_size)
        return total if self.mirrored is None else total + hits(self.mirrored, codebook_size)

    def batch(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Prefixes (B, P) and codes (B, h, w), int64."""
        return self._chosen(rows, np.zeros(len(rows), bool))

    def drawn_batch(self, indices: NDArray[np.int64], draws: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
        """The same, mirrored where the last of the ``draws`` (B, 3) in [0, 1) is 1/2 or more; see ``Batches``."""
        return self._chosen(indices, draws[:, 2] >= 0.5)

    def _chosen(self, rows: NDArray[np.int64], mirrored: NDArray[np.bool_]) -> tuple[Tensor, Tensor]:
        return self._prefixes(rows, mirrored), chosen(self._codes, rows, mirrored)

    def _codes(self, mirror: bool) -> Codes:
        if not mirror:
            return self.codes
        assert self.mirrored is not None
        return self.mirrored

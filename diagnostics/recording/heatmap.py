"""The picture of a collapse as it grows: hits, code x time, in bounded memory."""

import numpy as np
from numpy.typing import NDArray

from ..stats.lives import by_life

#: Anchors of a perceptually even, colour-blind-safe ramp from dark blue to yellow (cividis, Nunez et al. 2018).
RAMP = np.array(
    [[0, 32, 77], [57, 72, 108], [100, 104, 112], [126, 124, 120], [156, 146, 117], [207, 184, 94], [255, 234, 70]]
)
#: Codes without a hit stand out from every colour of the ramp.
DEAD = np.array([255, 255, 255])
#: Rows and columns of a picture, at most.
SIDE = 512
#: Hits are kept in 32 bits: 32 MiB for 16,384 codes.
MOST = np.iinfo(np.uint32).max


class Heatmap:
    """Hits, code x time, drawn in at most ``SIDE`` rows and columns whatever the codebook and the run.

    Codes stand in the order of ``by_life``: those with a hit in the newest record on top, those that never had one at
    the bottom. Records are merged as they come, codes when the picture is drawn, both by their maximum: a code that
    lives is seen in its row.

    Args:
        codes: K, the number of codes.
    """

    def __init__(self, codes: int):
        self._columns = np.zeros((SIDE, codes), np.uint32)  # the system gives memory only where it is written
        self._merge = 1  # records in a column
        self._records = 0
        self._last = np.full(codes, -1)
        self._total = np.zeros(codes, np.int64)

    def add(self, hits: NDArray[np.int64]) -> None:
        """Take the (K,) hits of the next record."""
        if self._records == SIDE * self._merge:
            self._columns[: SIDE // 2] = np.maximum(self._columns[::2], self._columns[1::2])
            self._columns[SIDE // 2 :] = 0
            self._merge *= 2
        column = self._columns[self._records // self._merge]
        np.maximum(column, np.minimum(hits, MOST).astype(np.uint32), out=column)
        self._last[hits > 0] = self._records
        self._total += hits
        self._records += 1

    def image(self) -> NDArray[np.uint8]:
        """(rows, columns, 3) colours, logarithmic in the hits; few records and few codes are drawn larger."""
        used = self._columns[: -(-self._records // self._merge)]
        hits = np.take(used, by_life(self._last, self._total), axis=1)
        edges = np.linspace(0, hits.shape[1], min(hits.shape[1], SIDE) + 1).astype(int)[:-1]
        rows = np.maximum.reduceat(hits, edges, axis=1).T
        level = np.log1p(rows) / max(np.log1p(rows.max()), 1e-9) * (len(RAMP) - 1)
        colours = np.stack([np.interp(level, np.arange(len(RAMP)), RAMP[:, c]) for c in range(3)], axis=-1)
        picture = np.where(rows[..., None] > 0, colours, DEAD).astype(np.uint8)
        return picture.repeat(SIDE // picture.shape[0], axis=0).repeat(SIDE // picture.shape[1], axis=1)

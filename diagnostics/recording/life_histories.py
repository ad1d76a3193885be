"""The life histories of a codebook, from its trace on disk."""

from pathlib import Path

from ..errors import InputError
from ..stats.counts import TOKENS_PER_CODE
from ..stats.fold import LifeFold
from ..stats.histories import LifeHistories
from .parquet import read_columns
from .parts import parts_of


def read_life_histories(folder: Path | str, tokens_per_code: float = TOKENS_PER_CODE) -> LifeHistories:
    """The life histories that a trace tells, read part by part: memory is that of one part and of the lives.

    Args:
        folder: ``RUN/trace/CODEBOOK``, also of a run that still goes on.
        tokens_per_code: Tokens per code without a hit that make a code dead.

    Raises:
        InputError: The folder has no trace, or a part cannot be read or lacks a column, as those of older versions may.
    """
    fold = None
    for part in parts_of(folder := Path(folder)):
        table = read_columns(part, ["step", "window", "code", "hits", "resets"])
        codes = int(table["code"].to_numpy().max()) + 1
        steps, windows = (table[name].to_numpy()[::codes] for name in ("step", "window"))
        hits, resets = (table[name].to_numpy().reshape(-1, codes) for name in ("hits", "resets"))
        fold = fold or LifeFold(codes, tokens_per_code)
        for record in zip(steps, windows, hits, resets, strict=True):
            fold.add(*record)
    if fold is None:
        raise InputError(f"no codebook trace in {folder}")
    return fold.histories()

"""Life histories from a trace that comes record by record; ``histories`` has the definitions."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError
from .counts import TOKENS_PER_CODE
from .histories import (
    BEFORE,
    BORN,
    CENSORED,
    REPLACED,
    RESET,
    REVIVED,
    SILENCE,
    UNKNOWN,
    LifeHistories,
    Lives,
)

Codes = NDArray[np.intp]


def life_histories(
    steps: ArrayLike, window: ArrayLike, hits: ArrayLike, resets: ArrayLike, tokens_per_code: float = TOKENS_PER_CODE
) -> LifeHistories:
    """The life histories of the codes of a trace: ``life_histories(t.steps, t.window, t.hits, t.resets)``.

    It keeps no copy of its arguments; ``read_life_histories`` does not even need the trace in memory.

    Args:
        steps: (T,) optimizer step that closed each window.
        window: (T,) optimizer steps that each window covers.
        hits: (T, K) hits of the codes.
        resets: (T, K) how often each was re-initialised, NaN where that cannot be known.
        tokens_per_code: Tokens per code without a hit that make a code dead.

    Raises:
        InputError: There are no records, their shapes differ, or their steps do not rise.
    """
    records = [np.asarray(column) for column in (steps, window, hits, resets)]
    if records[2].ndim != 2 or len({len(column) for column in records}) > 1 or not len(records[2]):
        raise InputError(
            "life histories need hits and resets (T, K) with T steps and T windows, T at least 1, not"
            f" {', '.join(str(column.shape) for column in records)}"
        )
    fold = LifeFold(records[2].shape[1], tokens_per_code)
    for record in zip(*records, strict=True):
        fold.add(*record)
    return fold.histories()


class LifeFold:
    """Life histories of a trace that comes record by record, also of a run that still goes on.

    The state is a few arrays (K,); what grows is the list of lives that have ended.

    Args:
        codes: K.
        tokens_per_code: Tokens per code without a hit that make a code dead.
    """

    def __init__(self, codes: int, tokens_per_code: float = TOKENS_PER_CODE):
        self.codes, self.verdict = codes, tokens_per_code * codes
        self._steps: list[int] = []
        self._tokens: list[int] = []  # up to and with each record
        self._first = 0
        self._unknown_resets = 0
        self._closed: list[Lives] = []
        # Of each code, the life that is open or was the last one:
        self._open = np.zeros(codes, np.bool_)
        self._life = np.zeros(codes, np.int64)
        self._began = np.zeros(codes, np.int8)
        self._start = np.zeros(codes, np.int64)
        self._end = np.zeros(codes, np.int64)
        self._silent_since = np.zeros(codes, np.int64)  # tokens up to its last hit or its reset
        # Of each code, whatever its lives:
        self._last_hit = np.full(codes, np.nan)
        self._doubt = np.zeros(codes, np.bool_)  # whether it may have been reset since its last hit

    def add(self, step: int, window: int, hits: ArrayLike, resets: ArrayLike) -> None:
        """Take in the next record: the step that closed it, the steps that it covers, its (K,) hits and (K,) resets.

        Raises:
            InputError: The record is of another number of codes, or does not come after the one before.
        """
        hits, resets = np.asarray(hits), np.asarray(resets, np.float64)
        if not hits.shape == resets.shape == (self.codes,):
            raise InputError(f"a record of {self.codes} codes has hits {hits.shape} and resets {resets.shape}")
        if self._steps and step <= self._steps[-1]:
            raise InputError(f"records must be in the order of their steps: {step} comes after {self._steps[-1]}")
        if not self._steps:
            self._first = int(step - window)
        before = self._tokens[-1] if self._tokens else 0
        self._steps.append(int(step))
        self._tokens.append(before + int(hits.sum()))
        untold = np.isnan(resets)
        self._unknown_resets += int(untold.sum())
        self._hit(np.flatnonzero(hits), int(step), int(window), before, untold)
        self._reset(np.nan_to_num(resets).astype(np.int64), int(step))

    def _hit(self, codes: Codes, step: int, window: int, before: int, untold: NDArray[np.bool_]) -> None:
        """Hits of ``codes`` (R,) in a window that began when ``before`` tokens had been seen."""
        self._close(codes[self._open[codes] & (before - self._silent_since[codes] >= self.verdict)], SILENCE)
        self._doubt |= untold
        new = codes[~self._open[codes]]
        start = np.full(len(new), step - window)
        began = np.where(self._doubt[new], UNKNOWN, REVIVED)
        at_first = self._life[new] == 0
        if self._first > 0 and before < self.verdict:
            start[at_first], began[at_first] = self._first, BEFORE
        elif self._first > 0:  # dead so far: whether it had lived before the trace cannot be known
            began[at_first] = UNKNOWN
        else:
            sure = at_first if len(self._steps) == 1 else at_first & ~self._doubt[new]
            began[sure] = BORN
        self._begin(new, began, start)
        self._end[codes] = self._last_hit[codes] = step
        self._silent_since[codes] = self._tokens[-1]
        self._doubt[codes] = untold[codes]

    def _reset(self, resets: NDArray[np.int64], step: int) -> None:
        """Resets (K,) in the window that was closed by ``step``, after its hits."""
        codes = np.flatnonzero(resets)
        silent = self._tokens[-1] - self._silent_since[codes] >= self.verdict
        self._close(codes[self._open[codes] & silent], SILENCE)
        self._close(codes[self._open[codes] & ~silent], REPLACED)
        overwritten = codes[resets[codes] > 1]
        if len(overwritten):
            self._begin(overwritten, RESET, step)
            self._end[overwritten] = step
            self._close(overwritten, REPLACED, resets[overwritten] - 1)
            self._life[overwritten] += resets[overwritten] - 2
        self._begin(codes, RESET, step)
        self._end[codes] = step
        self._silent_since[codes] = self._tokens[-1]
        self._doubt[codes] = False

    def _begin(self, codes: Codes, began: int | NDArray[np.int_], start: int | NDArray[np.int_]) -> None:
        self._open[codes] = True
        self._life[codes] += 1
        self._began[codes], self._start[codes] = began, start

    def _close(self, codes: Codes, ended: int, times: int | NDArray[np.int64] = 1) -> None:
        if len(codes):
            self._closed.append(self._lives(codes, np.full(len(codes), ended), np.broadcast_to(times, len(codes))))
            self._open[codes] = False

    def _lives(self, codes: Codes, ended: NDArray[np.int_], times: NDArray[np.int64]) -> Lives:
        """The lives of ``codes`` as they stand."""
        state = (self._life[codes], self._began[codes], self._start[codes], self._end[codes])
        return Lives(codes.astype(np.int32), *state, ended.astype(np.int8), times.astype(np.int64))

    def histories(self) -> LifeHistories:
        """The histories up to the last record; more records may follow.

        Raises:
            InputError: There was no record.
        """
        if not self._steps:
            raise InputError("life histories need at least one record")
        open_now, tokens = np.flatnonzero(self._open), self._tokens[-1]
        silent = tokens - self._silent_since[open_now] >= self.verdict
        ended = np.where(silent, SILENCE, CENSORED)
        parts = [*self._closed, self._lives(open_now, ended, np.ones(len(open_now), np.int64))]
        lives = Lives(*(np.concatenate(column) for column in zip(*parts, strict=True)))
        order = np.lexsort((lives.life, lives.code))
        judged = int(np.searchsorted(self._tokens, tokens - self.verdict, side="right"))
        return LifeHistories(
            lives=Lives(*(column[order] for column in lives)),
            records=len(self._steps),
            first=self._first,
            last=self._steps[-1],
            horizon=self._steps[judged - 1] if judged else None,
            since_hit=self._steps[-1] - self._last_hit,
            unknown_resets=self._unknown_resets,
        )

"""How a codebook stands at the end of its trace: one sentence made of numbers, and no judgement on them."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...diagnostics import stats
from ...diagnostics.recording.recent import Recent, recent
from ...diagnostics.recording.trace import CodebookTrace
from ..page.words import counted

#: Share of the codes used by which their number may differ and still count as the same; one code at least.
TOLERANCE = 0.1


class Trend(NamedTuple):
    """Codes used in two windows that share no record: one that ends as the last third of the run begins, and the last.

    Attributes:
        steps: Last optimizer step of each.
        codes: Codes used in each.
        same: Codes by which they may differ and still be called steady.
    """

    steps: tuple[int, int]
    codes: tuple[int, int]
    same: int

    @property
    def name(self) -> Literal["falling", "steady", "rising"]:
        """What the two numbers say."""
        before, now = self.codes
        if abs(now - before) <= self.same:
            return "steady"
        return "falling" if now < before else "rising"

    def __str__(self) -> str:
        (before, now), (codes_before, codes_now) = self.steps, self.codes
        numbers = f"{counted(codes_before, 'code')} up to step {before:,}, {codes_now:,} up to step {now:,}"
        return f"{self.name} over the last third of the run ({numbers})"


@dataclass(frozen=True)
class Standing:
    """How many codes are used, since when it has been so many, and where that is going.

    Attributes:
        codebook: Name of the codebook.
        end: The last records, over which codes are counted.
        since: Step from which on every such window showed as many codes, give or take ``same``; 0: the whole run; None
            where the trace holds fewer than two such windows.
        trend: None where two such windows do not fit beside each other.
    """

    codebook: str
    end: Recent
    since: int | None = None
    trend: Trend | None = None

    @property
    def used(self) -> int:
        """Codes with a hit in the last records."""
        return int(stats.codes_used(self.end.hits))

    @property
    def same(self) -> int:
        """Codes by which another count may differ and still be called the same."""
        return max(1, round(TOLERANCE * self.used))

    def __str__(self) -> str:
        training = "In training, codebook" if self.end.last else "Codebook"
        now = (
            f"{training} {self.codebook} used {self.used:,} of {counted(len(self.end.hits), 'code')} over"
            f" {self.end.over}, {self.end.usage.of_ceiling}"
        )
        if self.end.usage.shortfall:
            return f"{now}; no verdict, and no code is called dead: {self.end.usage.shortfall}."
        if self.since is None:
            few = self.end.last  # of a single pass nobody asks since when
            return f"{now}{'; too few records to tell since when' if few else ''}."
        since = f"since step {self.since:,}" if self.since else "from the start"
        trend = self.trend or "too few records to tell a trend"
        return f"{now}; so, give or take {counted(self.same, 'code')}, {since}; {trend}."


def standing(trace: CodebookTrace) -> Standing:
    """How the codebook of a trace stands, judged only where its last records may be (``stats.Usage.enough``)."""
    now = Standing(trace.codebook, recent(trace))
    if not now.end.usage.enough:
        return now
    first, used = pooled_use(trace.hits)
    whole = np.flatnonzero(first >= 0)
    if len(whole) == 1:
        return now
    other = whole[np.abs(used[whole] - now.used) > now.same]
    begun = trace.steps - trace.window  # the step before each record
    stayed = whole[0] if not other.size else other[-1] + 1
    return Standing(trace.codebook, now.end, int(begun[first[stayed]]), _trend(trace, first, used, now.same))


def _trend(trace: CodebookTrace, first: NDArray[np.intp], used: NDArray[np.int64], same: int) -> Trend | None:
    steps = trace.steps
    third = steps[-1] - (steps[-1] - steps[0] + trace.window[0]) / 3
    before = int(np.searchsorted(steps, third, side="right")) - 1  # the record that ends where the last third begins
    if before < 0 or first[before] < 0 or first[-1] <= before:
        return None
    return Trend((int(steps[before]), int(steps[-1])), (int(used[before]), int(used[-1])), same)


def pooled_use(hits: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Codes used in time, all counted over about as many tokens: in the window of ``recent`` that ends at each record.

    Args:
        hits: (T, K) hits of the records.

    Returns:
        (T,) index of the first record of the window that ends at each, -1 where usage could not be judged by then; and
        (T,) codes with a hit in it, 0 where there is none.
    """
    first = stats.pooled_starts(hits)
    last, used = np.full(hits.shape[1], -1), np.zeros(len(hits), np.int64)
    for t, record in enumerate(hits):  # record by record: no second array as large as the trace
        last[record > 0] = t
        used[t] = np.count_nonzero(last >= first[t]) if first[t] >= 0 else 0
    return first, used

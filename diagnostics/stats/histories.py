"""Life histories: when the codes of a codebook began to live, died, came back and were re-initialised.

All of it is made of the hits and resets of a trace. A record says what happened within its window of optimizer steps
but not when, so a life is known to the window. The definitions:

- A code *dies* when it goes without a hit for ``tokens_per_code`` tokens per code, counted over whole windows. Its
  death is dated at the end of its last window with a hit. A code that has gone without hits for fewer tokens when the
  trace ends is not dead: its life is *censored*. A code that is used so rarely that it often gets no hit in that many
  tokens dies and comes back, again and again.
- A *life* begins with a hit: as a *birth* where the code had no life before, as a *revival* where it was dead and came
  back by itself. It is dated at the beginning of the window of that hit. A code that never had a hit was never born.
- A *reset* makes another individual of the code. Its life begins at the end of the window of the reset, hit or not, and
  like every other lasts to the end of its last window with a hit: 0 steps where it gets none before it counts as dead.
  The life before it ends by *replacement*, unless the code was dead already.

What happens within one window has no order. Hits are assumed to come before resets: a hit in the window of a reset is
one of the individual before, so that no reset is called a success for what came before it. The price is that a new
individual with hits in that window alone has a life of 0. Of several resets of a code in one window all but the last
had no time: they are lives of 0. So lives that begin with a hit are told too long, by less than two windows, and those
that begin with a reset are right to a window. A shorter record interval dates all of them better.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import unknown
from .durations import Durations

if TYPE_CHECKING:
    import pandas as pd

#: How a life began: with the code's first hit, with a hit after a death, with a reset; with a hit before which there
#: may have been a reset, or a life before the trace; or before the trace itself.
BEGAN = ("born", "revived", "reset", "unknown", "before")
#: How it ended: without hits, by a reset that replaced it, or not before the trace did.
ENDED = ("silence", "reset", "censored")
BORN, REVIVED, RESET, UNKNOWN, BEFORE = range(len(BEGAN))
SILENCE, REPLACED, CENSORED = range(len(ENDED))
_BEGINNINGS = {BORN: "birth", REVIVED: "revival", RESET: "reset", UNKNOWN: "beginning"}
_ENDS = {SILENCE: "death", REPLACED: "replacement"}

Integers = NDArray[np.integer]


class Lives(NamedTuple):
    """Lives of codes, one entry (M,) each, ordered by code and life.

    Attributes:
        code: Which code, from 0.
        life: Which of its lives, from 1.
        began: Index into ``BEGAN``.
        start: Optimizer step that it began at. Where it began before the trace, the step that the trace begins at.
        end: Optimizer step that closed its last window with a hit; ``start`` where it had none.
        ended: Index into ``ENDED``.
        times: Lives that the entry stands for: more than 1 for resets in one window that were overwritten in it.
    """

    code: Integers
    life: Integers
    began: Integers
    start: Integers
    end: Integers
    ended: Integers
    times: Integers


@dataclass(frozen=True)
class LifeHistories:
    """What became of the codes of one codebook; see the definitions above.

    Attributes:
        lives: All lives.
        records: Records of the trace.
        first: Optimizer step that the trace begins at: 0, or more where it began late.
        last: Optimizer step of its last record.
        horizon: The last record's step that is followed by the tokens of a verdict: which codes were alive then is
            known, and of no later step. None where the trace is too short for any verdict.
        since_hit: (K,) optimizer steps from the end of each code's last window with a hit to ``last``; NaN for a code
            that never had one.
        unknown_resets: Pairs of a record and a code of which the trace cannot tell whether the code was reset. They are
            not counted as resets.
    """

    lives: Lives
    records: int
    first: int
    last: int
    horizon: int | None
    since_hit: NDArray[np.float64]
    unknown_resets: int

    def durations(self, *began: str) -> Durations:
        """How long the lives lasted that began in one of these ways, each as far as the horizon.

        A life is followed from its beginning to its end or to the horizon, whichever comes first: beyond it survivors
        are seen and deaths are not yet, and a survival curve of both would be too high. Lives that began later, or
        before the trace, are left out.

        Args:
            began: Of ``BEGAN``; none for all of them but "before", whose age is not known.

        Raises:
            InputError: There is no such beginning, or it is "before".
        """
        lives, chosen = self.lives, self._chosen(began)
        horizon = self.last if self.horizon is None else self.horizon
        ended = (lives.end <= horizon)[chosen]  # silence or a replacement: a life that is censored had a hit later
        age = (np.minimum(lives.end, horizon) - lives.start)[chosen]
        times = lives.times[chosen]
        return Durations(age.repeat(times), ended.repeat(times))

    def in_use(self, after: int, *began: str) -> NDArray[np.bool_]:
        """Which codes are in use ``after`` steps after a life of theirs began in one of these ways.

        In use is a code that lives, in that life or in a later one to which it came back by itself; one that was reset
        in between is another individual, and is not.

        Returns:
            (N,) one for every life that ``durations`` follows and that began so long before the horizon.

        Raises:
            InputError: There is no such beginning, or it is "before".
        """
        lives, chosen = self.lives, self._chosen(began)
        chosen = chosen & (lives.start + after <= (self.last if self.horizon is None else self.horizon))
        return self.in_use_at(lives.start[chosen] + after, chosen).repeat(lives.times[chosen])

    def in_use_at(self, steps: ArrayLike, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Whether the codes of some lives, C of the (M,) ``chosen``, are in use at ``steps`` (C,), not reset since."""
        lives, steps, code = self.lives, np.asarray(steps), self.lives.code.astype(np.int64)
        individual = np.cumsum(lives.began == RESET)
        span = self.last + 1  # codes one after the other, each with its lives in time
        until = np.searchsorted(code * span + lives.start, code[chosen] * span + steps, side="right") - 1
        return (individual[until] == individual[chosen]) & (lives.end[until] > steps)

    def _chosen(self, began: tuple[str, ...]) -> NDArray[np.bool_]:
        """(M,) the lives to follow that began in one of these ways, in any where none is named."""
        known = [name for name in BEGAN if name != "before"]
        for name in began:
            if name not in known:
                raise unknown("beginning of a life", name, known)
        return self.followed & np.isin(self.lives.began, [BEGAN.index(name) for name in began or known])

    @property
    def followed(self) -> NDArray[np.bool_]:
        """(M,) the lives that began by the horizon, and not before the trace: those that ``durations`` follows."""
        lives = self.lives
        if self.horizon is None:
            return np.zeros(len(lives.code), np.bool_)
        # A reset has the step of its record, a hit that of the beginning of its window.
        in_time = np.where(lives.began == RESET, lives.start <= self.horizon, lives.start < self.horizon)
        return in_time & (lives.began != BEFORE)

    def frame(self) -> "pd.DataFrame":
        """Tidy: one row per entry of ``lives``, with the names of beginnings and ends, and ``steps``, its length."""
        import pandas as pd

        lives = self.lives
        named = {
            "began": pd.Categorical.from_codes(lives.began, dtype=pd.CategoricalDtype([*BEGAN])),
            "ended": pd.Categorical.from_codes(lives.ended, dtype=pd.CategoricalDtype([*ENDED])),
        }
        return pd.DataFrame(lives._asdict() | named).assign(steps=lives.end - lives.start)

    def events(self) -> "pd.DataFrame":
        """Tidy: one row per event, by step, then code, then life.

        The columns are ``step``, ``code``, ``event``, ``life`` (which of the code's, from 1), ``age`` (its steps at the
        event: 0 at its beginning) and ``times`` (as of ``Lives``). The events are "birth", "revival" and "reset";
        "beginning" where how a life began cannot be known; "death"; and "replacement", the end of a life by a reset. A
        life that began before the trace has no beginning here, one that is censored no end.
        """
        import pandas as pd

        lives = self.lives
        begun, over = lives.began != BEFORE, lives.ended != CENSORED
        is_end = np.repeat([False, True], [begun.sum(), over.sum()])
        name = np.array([*_BEGINNINGS.values(), *_ENDS.values()])
        columns = {
            "step": np.concatenate([lives.start[begun], lives.end[over]]),
            "code": np.concatenate([lives.code[begun], lives.code[over]]),
            "event": name[np.concatenate([lives.began[begun], len(_BEGINNINGS) + lives.ended[over]])],
            "life": np.concatenate([lives.life[begun], lives.life[over]]),
            "age": np.concatenate([np.zeros(begun.sum(), np.int64), (lives.end - lives.start)[over]]),
            "times": np.concatenate([lives.times[begun], lives.times[over]]),
        }
        order = np.lexsort((is_end, columns["life"], columns["code"], columns["step"]))
        return pd.DataFrame({key: column[order] for key, column in columns.items()})

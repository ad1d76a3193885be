"""The lives of a codebook's codes on the page: how long they last, and what became of the codes that were reset."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...diagnostics import stats
from ...diagnostics.recording.trace import CodebookTrace
from ...diagnostics.stats import AliveAfter, Durations, LifeHistories
from ..page.logged import window_label
from ..page.numbers import bins
from ..page.sections import Panel, Section, Table, hang, lay_cells
from . import survival_figures as figures

#: What lives are called by their beginning, as ``stats.BEGAN`` has them.
KINDS = {"born": "born", "revived": "came back by itself", "reset": "reset", "unknown": "began, unknown how"}
#: Bars of the figure of generations, at most.
MOST_GENERATIONS = 25


def add_life_histories(section: Section, trace: CodebookTrace, folder: Path) -> None:
    """Add the lives of a trace's codes to their section; a single record has none to tell of."""
    if len(trace.steps) == 1:
        return
    histories = stats.life_histories(trace.steps, trace.window, trace.hits, trace.resets)
    section.text.append(told(histories, window_label(trace.window)))
    followed = followed_by_kind(histories)
    if any(durations.ended.any() for durations in followed.values()):
        section.pictures += hang(life_panels(trace, histories, followed), folder)
        section.tables.append(life_table(trace.codebook, histories, followed, folder))


def followed_by_kind(histories: LifeHistories) -> dict[str, Durations]:
    """How long lives lasted, by their beginning as ``stats.BEGAN`` has it, where there are any of it."""
    durations = {kind: histories.durations(kind) for kind in KINDS}
    return {kind: lives for kind, lives in durations.items() if len(lives.age)}


def told(histories: LifeHistories, label: str) -> str:
    """Births, revivals, resets and deaths in a sentence; ``label`` names the window of the records."""
    verdict = f"{stats.TOKENS_PER_CODE} tokens per code"
    if histories.horizon is None:
        return f"Which codes died cannot be told: no record is followed by the {verdict} that a verdict takes."
    lives, before = histories.lives, histories.lives.began == stats.BEGAN.index("before")
    told_of = histories.followed | before
    over = told_of & (lives.end <= histories.horizon)
    groups = {
        "births": lives.began == stats.BEGAN.index("born"),
        "revivals by themselves": lives.began == stats.BEGAN.index("revived"),
        "resets": lives.began == stats.BEGAN.index("reset"),
        "beginnings, by themselves or by resets that were not seen": lives.began == stats.BEGAN.index("unknown"),
        "lives from before the trace": before,
        "deaths": over & (lives.ended == stats.ENDED.index("silence")),
        "replacements by a reset": over & (lives.ended == stats.ENDED.index("reset")),
    }
    numbers = {name: int(lives.times[told_of & group].sum()) for name, group in groups.items()}
    never = int(np.isnan(histories.since_hit).sum())
    return (
        f"Life histories up to step {histories.horizon:,}, the last that is followed by the {verdict} that a verdict of"
        f" death takes, known to a {label}. {_listed(numbers)}. {never:,} of {len(histories.since_hit):,} codes never"
        " had a hit."
    )


def _listed(numbers: Mapping[str, int]) -> str:
    """What there were any of: "Births: 12, deaths: 3"."""
    there = [f"{name}: {number:,}" for name, number in numbers.items() if number]
    return ", ".join(there).capitalize()


def life_panels(trace: CodebookTrace, histories: LifeHistories, followed: Mapping[str, Durations]) -> Iterator[Panel]:
    """Survival and hazard by how lives began, and the generations of reset codes."""
    by_name = {KINDS[kind]: lives for kind, lives in followed.items()}
    until = f"followed to step {histories.horizon:,}"
    yield Panel(
        f"{trace.codebook}-survival",
        "Survival of codes",
        f"Share of lives that go on beyond an age, by how they began (Kaplan-Meier, band: 95 %), {until}; beneath, how"
        " many lives were followed to each age. A curve that falls at once and then stays level is of codes that die"
        " young or not at all; where that of resets drops at age 0, so many new codes never got a hit.",
        figures.survival_curves({name: stats.survival(lives) for name, lives in by_name.items()}),
    )
    edges = stats.doubling_ages(stats.pooled(followed.values()), int(trace.window.max()))
    yield Panel(
        f"{trace.codebook}-hazard",
        "Hazard by age",
        "How many lives end per code and 100 steps, in bins of age that double; bars: 95 % of a Poisson count;"
        " triangles: no life ended, and so many are still possible; beneath, the lives that entered each bin. A line"
        " that falls says that codes which have lived for long go on to live.",
        figures.hazards({name: stats.hazard(lives, edges) for name, lives in by_name.items()}),
    )
    if "reset" in followed:
        bars, fates = generations(histories, trace.steps)
        yield Panel(
            f"{trace.codebook}-generations",
            "What became of the codes that were reset",
            f"Each bar holds the codes that were reset in one stretch of steps, {len(followed['reset'].age):,} in all,"
            f" {until}; beneath, how many they are. Dark: the reset came to nothing, no hit before the code counted as"
            " dead again or was reset again. Orange: the new code lived, but is no longer in use, or was reset again."
            " Blue: it is in use, pale where it died and came back by itself. Of young generations that says little.",
            figures.generations(bars, fates),
        )


def generations(
    histories: LifeHistories, steps: NDArray[np.int64]
) -> tuple[NDArray[np.int64], dict[str, NDArray[np.int64]]]:
    """What became of the resets in each of at most ``MOST_GENERATIONS`` stretches of as many records.

    Args:
        histories: The lives.
        steps: (T,) step that closed each record.

    Returns:
        (G + 1,) edges of the stretches, each without its first step and with its last, and by fate (G,) resets: those
        no longer in use by how long their first life was, then those that are in use, with a break and without.
    """
    assert histories.horizon is not None
    steps = steps[steps <= histories.horizon]
    edges = np.append(histories.first, steps[bins(len(steps), MOST_GENERATIONS)[1:] - 1])
    lives = histories.lives
    chosen = histories.followed & (lives.began == stats.BEGAN.index("reset"))
    age, times, unbroken = (lives.end - lives.start)[chosen], lives.times[chosen], lives.end[chosen] > histories.horizon
    in_use = histories.in_use_at(np.full(len(age), histories.horizon), chosen)
    limits = [after for after in stats.AFTER if after < histories.horizon - histories.first]
    over = ["came to nothing", *(f"first died within {after:,} steps" for after in limits), "first died later"]
    fate = np.select([unbroken, in_use], [len(over) + 1, len(over)], np.searchsorted([0, *limits], age))
    generation = np.searchsorted(edges[1:-1], lives.start[chosen])
    names = [*over, "in use, after a break", f"in use at step {histories.horizon:,}"]
    return edges, {
        name: np.bincount(generation[fate == i], times[fate == i], len(edges) - 1).astype(np.int64)
        for i, name in enumerate(names)
    }


def life_table(codebook: str, histories: LifeHistories, followed: Mapping[str, Durations], folder: Path) -> Table:
    """How many lives there were by how they began, how they ended, and what share goes on after 100 steps and more."""
    numbers, text = [], {}
    for kind, durations in followed.items():
        ends, unbroken = _ends(histories, kind), stats.alive_after(durations)
        in_use = [stats.in_use_after(histories.in_use(n, kind), n, len(durations.age)) for n in stats.AFTER]
        numbers.append({"began": kind, **ends})
        for name, several in (("unbroken", unbroken), ("in_use", in_use)):
            for at in several:
                numbers[-1] |= columns_of(f"{name}_{at.after}", at)
        cells = [f"{number:,}" for number in ends.values()]
        text[KINDS[kind].capitalize()] = [*cells, *map(share_cell, unbroken), *map(share_cell, in_use)]
    rows = ["lives", "without a hit", "ended in silence", "of these came back by themselves", "ended by a reset"]
    rows += [f"went on at step {histories.horizon:,}", *(f"go on after {after:,} steps" for after in stats.AFTER)]
    rows += [f"in use after {after:,} steps" for after in stats.AFTER]
    notes = [
        f"Lives that began up to step {histories.horizon:,}, each from its beginning. Silence: no hit in"
        f" {stats.TOKENS_PER_CODE} tokens per code; a code that is used rarely falls silent and comes back.",
        SHARES,
    ]
    body = pd.DataFrame({"Lives that began": rows, **text})
    return lay_cells(pd.DataFrame(numbers), body, notes, "Lives and revivals", f"{codebook}-lives", folder)


#: What a cell of ``share_cell`` says.
SHARES = (
    "Go on: without a break so far, by the Kaplan-Meier estimate. In use: alive at that age, after breaks too, as the"
    " individual that it was. Each with its 95 % interval, and in brackets how many lives were last seen before that"
    " age and still went on, or began too late to be asked. A dash: no life was followed so long."
)


def share_cell(at: AliveAfter) -> str:
    """A share for people: "34.0% (30.9 to 37.2%) [144]"."""
    if np.isnan(at.share):
        return f"– [{at.censored:,}]"
    return f"{at.share:.1%} ({100 * at.low:.1f} to {at.high:.1%}) [{at.censored:,}]"


def columns_of(name: str, at: AliveAfter) -> dict[str, float]:
    """The numbers behind ``share_cell`` by the names of their columns: ``name``, ``name_low`` and so on."""
    return {name: at.share, f"{name}_low": at.low, f"{name}_high": at.high, f"{name}_censored": at.censored}


def _ends(histories: LifeHistories, kind: str) -> dict[str, int]:
    """How the followed lives of one kind ended, up to the horizon."""
    assert histories.horizon is not None
    lives = histories.lives
    chosen = histories.followed & (lives.began == stats.BEGAN.index(kind))
    over = chosen & (lives.end <= histories.horizon)
    silent = over & (lives.ended == stats.ENDED.index("silence"))
    by_itself = np.isin(lives.began, [stats.BEGAN.index(name) for name in ("revived", "unknown")])
    back = np.append((lives.code[1:] == lives.code[:-1]) & by_itself[1:], False)
    groups = {
        "lives": chosen,
        "without_a_hit": over & (lives.end == lives.start),
        "silent": silent,
        "came_back": silent & back,
        "replaced": over & ~silent,
        "went_on": chosen & ~over,
    }
    return {name: int(lives.times[group].sum()) for name, group in groups.items()}

"""The lives of codes in several runs side by side: how long they last, and which remedy's resets succeed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ...diagnostics import stats
from ...diagnostics.errors import InputError
from ...diagnostics.recording.life_histories import read_life_histories
from ...diagnostics.stats import AliveAfter, Durations
from ..codebook.survival import KINDS, SHARES, columns_of, followed_by_kind, share_cell
from ..codebook.survival_figures import AGE, draw_survival
from ..page.sections import Panel, Section, Table, hang, lay_cells
from ..page.style import few_ticks, looks, theme


class Lived(NamedTuple):
    """What a comparison keeps of the life histories of a run.

    Attributes:
        run: What it is called beside others under its name, such as "seed 0".
        followed: How long lives lasted, by their beginning.
        in_use: By steps after a reset, which of the codes were in use then, as ``LifeHistories.in_use`` says.
        resets_known: Whether the trace can tell of any reset.
    """

    run: str
    followed: Mapping[str, Durations]
    in_use: Mapping[int, NDArray[np.bool_]]
    resets_known: bool


def add_survival(section: Section, stem: str, traces: Mapping[str, Sequence[tuple[str, Path]]], folder: Path) -> None:
    """Add to the section of a codebook how long codes live under each name, and what became of its resets.

    Args:
        section: Where to.
        stem: What the files are called by.
        traces: By name, what each of its runs is called, and its trace.
        folder: Where figures and tables go.
    """
    found: dict[str, list[Lived]] = {}
    for name, runs in traces.items():
        for run, trace in runs:
            try:
                found.setdefault(name, []).append(lived(run, trace))
            except InputError as error:
                section.missing.append(f"No life histories of {name}, {run}: {error}.")
    if not any(lives.ended.any() for runs in found.values() for one in runs for lives in one.followed.values()):
        section.text.append("No life of a code is known to have ended: there are no survival curves.")
        return
    section.pictures += hang([_panel(stem, found)], folder)
    reset = {name: stats.pooled(lives) for name, lives in by_kind(found, "reset").items()}
    if any(not np.isnan(at.share) for lives in reset.values() for at in stats.alive_after(lives)):
        section.tables.append(success_table(stem, found, folder))
    elif reset:
        section.text.append(
            f"No reset was followed for {stats.AFTER[0]} steps: of their success no more is known than the curves show."
        )


def lived(run: str, trace: Path) -> Lived:
    """The life histories of a run, in what is compared of them.

    Raises:
        InputError: Its trace cannot be read.
    """
    histories = read_life_histories(trace)
    in_use = {after: histories.in_use(after, "reset") for after in stats.AFTER}
    records_and_codes = histories.records * len(histories.since_hit)
    return Lived(run, followed_by_kind(histories), in_use, histories.unknown_resets < records_and_codes)


def by_kind(every: Mapping[str, Sequence[Lived]], kind: str) -> dict[str, list[Durations]]:
    """By name, the lives of each run that began in one way; names without any are left out."""
    found = {name: [one.followed[kind] for one in runs if kind in one.followed] for name, runs in every.items()}
    return {name: some for name, some in found.items() if some}


def _panel(stem: str, every: Mapping[str, Sequence[Lived]]) -> Panel:
    kinds = {KINDS[kind]: drawn for kind in KINDS if (drawn := by_kind(every, kind))}
    names = "; ".join(f"{name}: {', '.join(one.run for one in runs)}" for name, runs in every.items())
    return Panel(
        f"{stem}-survival-side-by-side",
        "Survival of codes",
        "Share of lives that go on beyond an age, by how they began (Kaplan-Meier): thick, all runs pooled, with a"
        f" 95 % band; thin, each run ({names}). In brackets, how many lives are pooled. A remedy that works keeps its"
        " curve of reset codes high; where that drops at age 0, new codes got no hit.",
        side_by_side(kinds, list(every)),
        wide=True,
    )


@theme()
def side_by_side(kinds: Mapping[str, Mapping[str, Sequence[Durations]]], names: Sequence[str]) -> Figure:
    """Survival curves, one pair of axes for each way to begin, in it each name with its runs."""
    figure = Figure(figsize=(3.6 * len(kinds) + 0.6, 3.4 + 0.22 * len(names)), layout="constrained")
    row = figure.subplots(1, len(kinds), sharex=True, sharey=True, squeeze=False)[0]
    look = looks(names)
    for axes, (kind, drawn) in zip(row, kinds.items(), strict=True):
        for name, runs in drawn.items():
            for run in runs if len(runs) > 1 else []:
                thin = {"color": look[name]["color"], "linewidth": 0.7, "alpha": 0.5}
                draw_survival(axes, stats.survival(run), "_run", band=False, **thin)
            curve = stats.survival(stats.pooled(runs))
            draw_survival(axes, curve, f"{name} ({len(curve.durations.age):,})", **look[name])
        axes.set_title(kind, loc="left", fontsize="medium")
        axes.set_xlabel(AGE)
        axes.tick_params(labelbottom=True)
        axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.08), fontsize="small", borderaxespad=0)
        few_ticks(axes.xaxis, 5)
    row[0].set_xlim(left=-0.02 * row[0].get_xlim()[1])  # a curve that drops at age 0 is not hidden by the axis
    row[0].set_ylabel("share of lives that go on")
    return figure


def success_table(stem: str, every: Mapping[str, Sequence[Lived]], folder: Path) -> Table:
    """What share of the codes that each remedy reset still lives some steps later, pooled over its runs."""
    numbers, text = [], []
    for name, runs in every.items():
        if not (reset := [one for one in runs if "reset" in one.followed]):
            continue
        pooled = stats.pooled(one.followed["reset"] for one in reset)
        without = float((pooled.ended & (pooled.age == 0)).mean())
        of = ", ".join(one.run for one in reset)
        row = {"remedy": name, "runs": of, "resets": len(pooled.age), "without_a_hit": without}
        for after in stats.AFTER:
            unbroken, in_use = _after(reset, after)
            if np.isnan([unbroken.share, in_use.share]).all():
                continue
            numbers.append({**row, "after": after, **columns_of("unbroken", unbroken), **columns_of("in_use", in_use)})
            by_run = [_by_run(several) for several in zip(*(_after([one], after) for one in reset), strict=True)]
            cells = (share_cell(unbroken), by_run[0], share_cell(in_use), by_run[1])
            text.append([name, of, f"{len(pooled.age):,}", f"{without:.1%}", f"{after:,}", *cells])
    heads = ["Remedy", "Runs", "Resets", "Without a hit", "Steps after", "Go on", "Go on, by run", "In use"]
    body = pd.DataFrame(text, columns=[*heads, "In use, by run"])
    return lay_cells(pd.DataFrame(numbers), body, _notes(every), "Success of revivals", f"{stem}-revivals", folder)


def _after(runs: Sequence[Lived], after: int) -> tuple[AliveAfter, AliveAfter]:
    """Of the resets of some runs, how many go on after some steps, and how many are in use."""
    pooled = stats.pooled(one.followed["reset"] for one in runs)
    in_use = np.concatenate([one.in_use[after] for one in runs])
    return stats.alive_after(pooled, [after])[0], stats.in_use_after(in_use, after, len(pooled.age))


def _by_run(several: Sequence[AliveAfter]) -> str:
    return ", ".join("–" if np.isnan(at.share) else f"{at.share:.1%}" for at in several)


def _notes(every: Mapping[str, Sequence[Lived]]) -> list[str]:
    verdict = f"{stats.TOKENS_PER_CODE} tokens per code"
    notes = [
        "Resets of all runs pooled, with intervals that take them as independent; how far the runs, in their order, lie"
        " apart says more of the next one. Ages that no reset was followed to are left out."
        f" Without a hit: none before the code counted as dead again ({verdict}) or was reset again.",
        SHARES,
    ]
    unknown = [name for name, runs in every.items() if not any(one.resets_known for one in runs)]
    if unknown:
        notes.append(f"Whether codes were reset cannot be known: {', '.join(unknown)}.")
    none = [name for name, runs in every.items() if not any("reset" in one.followed for one in runs)]
    if none := [name for name in none if name not in unknown]:
        notes.append(f"No resets: {', '.join(none)}.")
    return notes

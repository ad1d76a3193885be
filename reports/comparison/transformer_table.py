"""The table of runs of the second stage."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ...diagnostics.run import flatten
from ..page.facts import RunFacts, number
from ..page.tables import plus_minus, spreads

#: Settings in which runs of one group differ.
SEEDS = ("train.seed", "sampling.seed")


class Figure(NamedTuple):
    """A column of figures: its key, its heading, its decimals (None: three significant digits), and where it stands."""

    key: str
    heading: str
    decimals: int | None
    value: Callable[[RunFacts, str], float]


def _evaluated(key: str) -> Callable[[RunFacts, str], float]:
    return lambda fact, split: number(fact.evaluation(split).get(key))


FIGURES = (
    Figure("nll", "NLL ↓", 3, _evaluated("nll")),
    Figure("bits_per_dim", "Bits/dim ↓", 4, _evaluated("bits_per_dim")),
    Figure("top1", "Top-1 ↑", 3, _evaluated("top1")),
    Figure("total_variation", "Total variation ↓", 3, _evaluated("total_variation")),
    Figure("codes_sampled", "Codes sampled", 0, _evaluated("codes_sampled")),
    Figure("codes_in_train", "Codes in train", 0, _evaluated("codes_in_train")),
    Figure("fid", "FID ↓", 2, _evaluated("fid")),
    Figure("steps", "Steps", 0, lambda fact, _: number(fact.done.get("steps", fact.last_step))),
)


def group_by_settings(facts: Sequence[RunFacts], folder: Path) -> dict[str, list[RunFacts]]:
    """The runs by all settings but the seeds, each group by seed, named after its first run and how many more."""
    groups: dict[str, list[RunFacts]] = {}
    for fact in facts:
        settings = {name: value for name, value in flatten(fact.config).items() if name not in SEEDS}
        groups.setdefault(repr(sorted(settings.items(), key=str)), []).append(fact)
    ordered = [sorted(group, key=lambda fact: number(fact.setting("train.seed"))) for group in groups.values()]
    return {_group_name(group, folder): group for group in ordered}


def _group_name(group: Sequence[RunFacts], folder: Path) -> str:
    first = name_below(group[0].run.path, folder)
    return first if len(group) == 1 else f"{first} and {len(group) - 1} more"


def name_below(path: Path, folder: Path) -> str:
    """The path of a run below ``folder``, its name alone where it lies elsewhere."""
    path, folder = path.resolve(), folder.resolve()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name


def transformer_table(groups: Mapping[str, Sequence[RunFacts]], folder: Path, split: str = "test") -> pd.DataFrame:
    """Runs of the second stage compared: mean and sample standard deviation (n - 1) over the seeds of equal settings.

    Returns:
        One row per group: ``run``, ``runs`` (the names of all of them), ``n``, ``split``, ``first_stage``,
        ``condition``, ``size``, ``codebook_size``, ``<key>_mean`` and ``<key>_sd`` for each of ``FIGURES``, and
        ``total_variation_low`` and ``_high``, which stand for a single run only.
    """
    return pd.DataFrame([_row(name, group, folder, split) for name, group in groups.items()])


def _row(name: str, group: Sequence[RunFacts], folder: Path, split: str) -> dict[str, Any]:
    first, alone = group[0], len(group) == 1
    names = ", ".join(name_below(fact.run.path, folder) for fact in group)
    row: dict[str, Any] = {"run": name, "runs": names, "n": len(group), "split": split}
    row["first_stage"] = name_below(Path(str(first.setting("first_stage", "unknown"))), folder)
    row["condition"] = first.setting("condition.kind", "unknown")
    row["size"] = first.setting("transformer.size", "unknown")
    row["codebook_size"] = number(first.setting("codebook_size"))
    for figure in FIGURES:
        values = np.array([figure.value(fact, split) for fact in group])
        there = values[~np.isnan(values)]
        row[f"{figure.key}_mean"] = there.mean() if there.size else math.nan
        row[f"{figure.key}_sd"] = there.std(ddof=1) if there.size > 1 else math.nan
    for end in ("low", "high"):
        key = f"total_variation_{end}"
        row[key] = number(first.evaluation(split).get(key)) if alone else math.nan
    return row


def table_for_people(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Text cells and footnotes of ``transformer_table``."""
    columns = {"run": "Run", "first_stage": "First stage", "condition": "Condition", "size": "Size"}
    text = pd.DataFrame({heading: frame[name] for name, heading in columns.items()})
    for key, heading, decimals, _ in FIGURES:
        text[heading] = spreads([*frame[f"{key}_mean"]], [*frame[f"{key}_sd"]], decimals)
    ends = zip(frame["total_variation_low"], frame["total_variation_high"], strict=True)
    variation = FIGURES[3].heading
    text[variation] = [
        cell if math.isnan(low) else f"{cell} [{low:.3f}, {high:.3f}]"
        for cell, (low, high) in zip(text[variation], ends, strict=True)
    ]
    sizes = [plus_minus(value, decimals=0) for value in frame["codebook_size"]]
    text["Codes in train"] = [f"{codes} of {size}" for codes, size in zip(text["Codes in train"], sizes, strict=True)]
    return text.rename(columns={"Codes in train": "Codes in train, of K"}), _notes(frame)


def _notes(frame: pd.DataFrame) -> list[str]:
    split = frame["split"].iloc[0]
    notes = [
        f"Figures over the whole {split} split. NLL in nats per token. [low, high]: 95 % interval of the total"
        " variation between the distributions; the number before it is what was counted, noise and all."
    ]
    if (frame["n"] > 1).any():
        several = [f"{row.run}: {row.runs}" for row in frame[frame["n"] > 1].itertuples()]
        notes.append(f"Mean ± sample standard deviation over runs that differ by their seeds ({'; '.join(several)}).")
    lacking = frame["run"][frame["nll_mean"].isna()]
    if len(lacking):
        notes.append(f"The {split} split was not evaluated: {', '.join(lacking)}.")
    return notes

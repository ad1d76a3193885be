"""Sections that the pages of runs of both stages have."""

import json
import re
from collections.abc import Container, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.image import imread

from . import logged
from .facts import RunFacts, number
from .sections import Section, Table, lay
from .words import counted

_NO_FIGURES = ("split", "step", "missing", "checkpoint", "grid", "sampling", "usage")


def not_measured(facts: Sequence[RunFacts], told: Container[tuple[str, str]] = ()) -> list[str]:
    """What the evaluations at the top of the page could not measure, and why; nothing where they measured everything.

    Args:
        facts: The runs of the page.
        told: Pairs of split and figure whose reason stands elsewhere.

    Returns:
        One line for all that is true of the same runs; it names them where they are not all.
    """
    runs: dict[tuple[str, str, str], list[str]] = {}
    for fact in facts:
        for split in fact.splits()[:1]:
            for key, reason in (fact.evaluation(split).get("missing") or {}).items():
                if (split, key) not in told:
                    runs.setdefault((split, key, reason), []).append(fact.name)
    lines: dict[str, list[str]] = {}
    for (split, key, reason), names in runs.items():
        of = "" if len(names) == len(facts) else f" of {', '.join(names)}"
        lines.setdefault(f"the {split} split{of}", []).append(f"{key} ({reason})")
    return [f"Not measured on {where}: {'; '.join(reasons)}." for where, reasons in lines.items()]


def findings(fact: RunFacts) -> list[Section]:
    """What the checks found, the most severe first; no section where they found nothing."""
    found = fact.findings()
    return [Section("Findings", findings=found)] if found else []


def single_points(
    rows: Sequence[Mapping[str, Any]], names: Mapping[str, tuple[str, str]], title: str, file: str, folder: Path
) -> Table:
    """What was logged at a single step, as a table: a curve takes two points at least.

    Args:
        rows: The logged steps.
        names: Keys of which at least one was logged, each with what it is and its unit.
        title: What they are and over what; the step is added.
        file: Stem of the files of the table.
        folder: Where the page will be.
    """
    found = {name: values for name in names if len(values := logged.series(rows, name))}
    lines = [(names[name][0], values.iloc[-1], names[name][1]) for name, values in found.items()]
    step = max(values.index[-1] for values in found.values())
    frame = pd.DataFrame(lines, columns=["figure", "value", "unit"])
    return lay(frame, f"{title} at step {step:,}", file, folder)


def single_look(rows: Sequence[Mapping[str, Any]], names: Mapping[str, tuple[str, str]], folder: Path) -> Table:
    """As ``single_points``, of the one look that a run took at its validation split."""
    over = f" over {counted(images, 'image')}" if (images := looked_at(rows)) else ""
    return single_points(rows, names, f"Validation{over}", "validation", folder)


def looked_at(rows: Sequence[Mapping[str, Any]]) -> int:
    """Images that a look at the validation split took at most, 0 where no look says so."""
    return int(max(logged.series(rows, "validation/images"), default=0))


def newest_picture(folder: Path, name: str) -> tuple[int, np.ndarray] | None:
    """Step and image of the newest ``<name>-<step>.png`` that is whole, or None.

    One that was drawn later, ``<name>-<step>-<how>.png``, counts where the run itself left none at that step.
    """
    pattern = re.compile(rf"{name}-(\d+)(-.*)?\.png")
    paths = sorted(folder.glob("*.png"))  # of a step the run's own comes last: "-" before "."
    found = {int(match[1]): path for path in paths if (match := pattern.fullmatch(path.name))}
    for step in sorted(found, reverse=True):
        with suppress(OSError, SyntaxError):  # how a PNG that is cut short fails
            return step, imread(found[step])
    return None


def numbers(fact: RunFacts, folder: Path) -> Section:
    """The last value of every figure of a run."""
    frame = final_numbers(fact)
    if frame.empty:
        return Section("Last numbers", missing=["No numbers yet: nothing logged, nothing evaluated."])
    return Section("Last numbers", tables=[lay(frame, "The last value of every figure", "final-numbers", folder)])


def final_numbers(fact: RunFacts) -> pd.DataFrame:
    """The last numbers of a run: ``quantity``, ``value``, and ``measured``: over what, and at which step."""
    rows: list[tuple[str, float, str]] = []
    for split in fact.splits():
        evaluation = fact.evaluation(split)
        over = f"whole {split} split, {evaluation.get('images', '?')} images, step {evaluation.get('step', '?')}"
        rows += [(key, number(value), over) for key, value in evaluation.items() if key not in _NO_FIGURES]
    rows += [(key, number(value), "whole run") for key, value in fact.done.items()]
    last: dict[str, tuple[float, str]] = {}
    for row in fact.metrics:
        over = (
            "one look at the validation split"
            if any(key.startswith("validation/") for key in row)
            else "one logged step"
        )
        last |= {key: (number(value), f"{over}, step {row.get('step')}") for key, value in row.items() if key != "step"}
    rows += [(key, *found) for key, found in last.items()]
    return pd.DataFrame(rows, columns=["quantity", "value", "measured"])


def circumstances(fact: RunFacts) -> list[Section]:
    """Config and environment, word by word."""
    config = Section("Config", verbatim=fact.run.config.read_text(encoding="utf-8"))
    environment = Section("Environment")
    if fact.environment:
        environment.verbatim = json.dumps(fact.environment, indent=2, ensure_ascii=False)
    else:
        environment.missing.append("Not recorded: no environment.json.")
    return [config, environment]

"""Sections that the pages of runs of both stages have."""

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.image import imread

from .facts import RunFacts, number
from .sections import Section, lay

_NO_FIGURES = ("split", "step", "missing", "checkpoint", "grid", "sampling")


def not_measured(split: str, evaluation: dict[str, Any]) -> list[str]:
    """One line on what an evaluation could not measure, and why; none where it measured everything."""
    reasons = "; ".join(f"{key} ({reason})" for key, reason in (evaluation.get("missing") or {}).items())
    return [f"Not measured on the {split} split: {reasons}."] if reasons else []


def findings(fact: RunFacts) -> Section:
    """What the checks found, the most severe first."""
    if not fact.run.findings.exists():
        return Section("Findings", missing=["The run was not diagnosed yet: no findings.jsonl."])
    found = fact.findings()
    return Section("Findings", findings=found, text=[] if found else ["The checks found nothing to report."])


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

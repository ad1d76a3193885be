"""Quantizers compared over seeds, as a table."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ...diagnostics import stats
from ...diagnostics.run import RunDirectory
from ..page.facts import RunFacts, number
from ..page.tables import METRICS, Metric


def comparison(runs: list[RunDirectory], split: str = "test") -> pd.DataFrame:
    """Quantizers compared: mean and sample standard deviation (n - 1) over the runs of each, which differ by seed.

    Returns:
        One row per quantizer (runs of a transformer are left out): ``quantizer``, ``n`` (runs), ``split``,
        ``<metric>_mean`` and ``<metric>_sd`` for each of ``METRICS`` (NaN where no run has it; sd NaN where fewer than
        two have), and ``notes``: what is missing and why.
    """
    rows = []
    for name, group in group_by_quantizer(runs).items():
        row: dict[str, object] = {"quantizer": name, "n": len(group), "split": split}
        notes = []
        for metric in METRICS:
            values = np.array([_value(fact, metric.key, split) for fact in group])
            there = values[~np.isnan(values)]
            row[f"{metric.key}_mean"] = there.mean() if there.size else math.nan
            row[f"{metric.key}_sd"] = there.std(ddof=1) if there.size > 1 else math.nan
            if metric.ceiling:
                row[f"{metric.ceiling}_mean"] = np.mean([_value(fact, metric.ceiling, split) for fact in group])
            notes += _reasons(metric, group, values, split)
        notes += _counted_over(group, split)
        rows.append({**row, "notes": "; ".join(notes)})
    return pd.DataFrame(rows)


def group_by_quantizer(runs: Sequence[RunDirectory]) -> dict[str, list[RunFacts]]:
    """First stages by quantizer spec, and by codebook size where the runs differ in it, in the order of ``runs``.

    A run that vqtool did not train stands for itself, by its path below the folder that all runs have in common; beside
    quantizers it is called a folder, since folders may have the names of quantizers.
    """
    facts = [fact for fact in map(RunFacts, runs) if not fact.is_transformer]
    sizes = {fact.setting("quantizer.codebook_size") for fact in facts if fact.run.has_config}
    groups: dict[str, list[RunFacts]] = {}
    for fact in facts:
        size = f", K = {fact.setting('quantizer.codebook_size')}" if len(sizes) > 1 else ""
        name = fact.quantizer + size if fact.run.has_config else "folder " * bool(sizes) + _place(fact, facts)
        groups.setdefault(name, []).append(fact)
    return groups


def _place(fact: RunFacts, facts: Sequence[RunFacts]) -> str:
    paths = [one.run.path.resolve() for one in facts]
    above = Path(os.path.commonpath(paths)) if len(paths) > 1 else paths[0].parent
    return fact.run.path.resolve().relative_to(above).as_posix()


def _value(fact: RunFacts, key: str, split: str) -> float:
    evaluation = fact.evaluation(split)
    return number({**evaluation, **_shares(evaluation), **fact.done}.get(key))


def _shares(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """Codes used, and what even use would show for as many tokens, in percent of the codebook."""
    codes, tokens = number(evaluation.get("codebook_size")), number(evaluation.get("tokens"))
    if math.isnan(codes) or math.isnan(tokens):
        return {}
    ceiling = stats.expected_codes_used(int(codes), int(tokens))
    used = number(evaluation.get("codes_used_split"))
    return {"usage_split": 100 * used / codes, "usage_ceiling_split": 100 * ceiling / codes}


def _counted_over(group: Sequence[RunFacts], split: str) -> list[str]:
    """How many tokens usage and perplexity are of, and how much of all use they have seen."""
    tokens = {tokens for fact in group if not math.isnan(tokens := _value(fact, "tokens", split))}
    several = " or ".join(f"{n:,.0f}" for n in sorted(tokens))
    seen = [_value(fact, "coverage_split", split) for fact in group]
    coverage = "" if any(map(math.isnan, seen)) else f", coverage {stats.percent(min(seen))}"
    return [f"Usage and perplexity over the {several} tokens of the {split} split{coverage}"] if tokens else []


def _reasons(metric: Metric, group: Sequence[RunFacts], values: np.ndarray, split: str) -> list[str]:
    """Why a metric is missing, once per reason, with the number of runs where it is not all of them."""
    lacking = [_reason(fact, metric.key, split) for fact, value in zip(group, values, strict=True) if math.isnan(value)]
    share = "" if len(lacking) == len(group) else f" in {len(lacking)} of {len(group)} runs"
    name = metric.heading.format(split=split).rstrip(" ↑↓")
    return [f"{name} missing{share}: {reason.replace('; ', ', ')}" for reason in dict.fromkeys(lacking)]


def _reason(fact: RunFacts, key: str, split: str) -> str:
    if key in ("device_hours_per_epoch", "trainable_parameters"):
        return "not reported by the run" if fact.run.is_finished else "run not finished"
    evaluation = fact.evaluation(split)
    if not evaluation:
        return f"{split} split not evaluated"
    return str((evaluation.get("missing") or {}).get(key, "not measured"))

"""Codebooks in a few numbers each: what stands on top of the page of a model that vqtool did not train."""

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from ...diagnostics import stats
from ...diagnostics.errors import InputError
from ...diagnostics.recording.recent import recent
from ...diagnostics.recording.rows import DigitsRow
from ...diagnostics.recording.trace import CodebookTrace
from ...diagnostics.run import RunDirectory
from ..page.records import codebook_size, read_rows
from ..page.sections import Card, Table, lay_cells
from ..page.tables import plus_minus


class Use(NamedTuple):
    """How much of a codebook was used over its last records.

    Attributes:
        codebook: Its name.
        usage: What is known of it; where there are too many codes to be counted, an estimate of those used.
    """

    codebook: str
    usage: stats.Usage


def use(run: RunDirectory, codebook: str) -> Use:
    """The use of one codebook.

    Raises:
        InputError: Its records cannot be read.
    """
    if not (run.trace / codebook).is_dir():
        row = read_rows(run, DigitsRow, codebook).iloc[-1]
        seen, tokens = float(row["codes_seen"]), int(row["tokens"])
        return Use(codebook, stats.Usage(codebook_size(run, codebook), tokens, "the last window", seen))
    return Use(codebook, recent(CodebookTrace.load(run.trace / codebook, columns=())).usage)


def uses(run: RunDirectory) -> Iterator[Use]:
    """The use of each codebook of a run; one that cannot be read is told of in its own section."""
    for codebook in run.codebook_names():
        with suppress(InputError):
            yield use(run, codebook)


def cards(one: stats.Usage) -> list[Card]:
    """A single codebook in large numbers."""
    over = f"{one.window}, {one.tokens:,} tokens"
    return [
        Card(one.of_ceiling, f"{one.counted}; the ceiling is what even use would show", over),
        Card(plus_minus(one.perplexity, decimals=1), f"perplexity, in codes; {_correction(one)}", over),
        Card(stats.percent(one.coverage), "coverage: share of all use that falls on codes which were seen", over),
    ]


def _correction(one: stats.Usage) -> str:
    if math.isnan(one.corrected):
        return "unknown where not every code is counted"
    return f"corrected for few tokens: {one.corrected:,.1f}{' (clamped to K)' * one.clamped}"


def overview(several: Sequence[tuple[str, Use]], folder: Path) -> Table:
    """A table of codebooks, each with the run that it is of; on the page of a single run that is empty."""
    used = [one for _, one in several]
    columns = {"Run": [run for run, _ in several]} if any(run for run, _ in several) else {}
    columns |= {
        "Codebook": [one.codebook for one in used],
        "Codes used": [usage.counted.removesuffix(" codes used") for _, usage in used],
        "Usage": [usage.of_ceiling for _, usage in used],
        "Coverage": [stats.percent(usage.coverage) for _, usage in used],
        "Perplexity": [plus_minus(usage.perplexity, decimals=1) for _, usage in used],
        "Corrected": [plus_minus(usage.corrected, decimals=1) + "*" * usage.clamped for _, usage in used],
        "Tokens": [f"{usage.tokens:,}" for _, usage in used],
        "Over": [usage.window for _, usage in used],
    }
    frame = pd.DataFrame([{"run": run, "codebook": one.codebook, **_numbers(one.usage)} for run, one in several])
    notes = [
        f"Each over as many last records as a verdict takes ({stats.TOKENS_PER_CODE} tokens per code and a coverage of"
        f" {stats.percent(stats.COVERAGE_LIMIT)}), or all that there are. Ceiling: the usage that perfectly even use"
        " would show with as many tokens. Coverage: share of all use that falls on codes which were seen. Corrected:"
        " perplexity (in codes) corrected for few tokens."
    ]
    short: dict[str, list[str]] = {}
    for one in used:
        short.setdefault(one.usage.shortfall, []).append(one.codebook)
    notes += [f"No verdict on {', '.join(dict.fromkeys(some))}: {why}." for why, some in short.items() if why]
    if any(usage.clamped for _, usage in used):
        notes.append("* The correction gave more codes than there are, and all are told.")
    return lay_cells(frame, text=pd.DataFrame(columns), notes=notes, title="Codebooks", name="codebooks", folder=folder)


def _numbers(usage: stats.Usage) -> dict[str, object]:
    return {
        "codes": usage.codes,
        "codes_used": usage.used,
        "ceiling": usage.ceiling,
        "coverage": usage.coverage,
        "chao1": usage.chao1,
        "perplexity": usage.perplexity,
        "perplexity_corrected": usage.corrected,
        "tokens": usage.tokens,
        "over": usage.window,
    }

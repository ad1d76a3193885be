"""Codebooks in a few numbers each: what stands on top of the page of a model that vqtool did not train."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from ...diagnostics import stats
from ...diagnostics.errors import InputError
from ...diagnostics.recording.rows import DigitsRow
from ...diagnostics.recording.trace import CodebookTrace
from ...diagnostics.run import RunDirectory
from ..page.records import codebook_size, read_rows
from ..page.sections import Card, Table, lay_cells
from ..page.tables import plus_minus
from .lives import recent


class Use(NamedTuple):
    """How much of a codebook was used over its last records.

    Attributes:
        codebook: Its name.
        codes: K.
        codes_used: Codes with a hit; estimated where there are too many to be counted.
        ceiling: Codes that perfectly even use would show on average with as many tokens.
        perplexity: In codes; NaN where not every code was counted.
        tokens: Tokens in these records.
        over: Which records they are.
    """

    codebook: str
    codes: int
    codes_used: float
    ceiling: float
    perplexity: float
    tokens: int
    over: str


def use(run: RunDirectory, codebook: str) -> Use:
    """The use of one codebook.

    Raises:
        InputError: Its records cannot be read.
    """
    if not (run.trace / codebook).is_dir():
        return _use_of_digits(run, codebook)
    end = recent(CodebookTrace.load(run.trace / codebook, columns=()))
    codes, used = len(end.hits), float(stats.codes_used(end.hits))
    ceiling = stats.expected_codes_used(codes, end.tokens)
    return Use(codebook, codes, used, ceiling, float(stats.perplexity(end.hits)), end.tokens, end.span)


def _use_of_digits(run: RunDirectory, codebook: str) -> Use:
    row, codes = read_rows(run, DigitsRow, codebook).iloc[-1], codebook_size(run, codebook)
    tokens, used = int(row["tokens"]), float(row["codes_seen"])
    return Use(codebook, codes, used, stats.expected_codes_used(codes, tokens), float("nan"), tokens, "the last window")


def uses(run: RunDirectory) -> Iterator[Use]:
    """The use of each codebook of a run; one that cannot be read is told of in its own section."""
    for codebook in run.codebook_names():
        with suppress(InputError):
            yield use(run, codebook)


def cards(one: Use) -> list[Card]:
    """A single codebook in large numbers."""
    over = f"{one.over}, {one.tokens:,} tokens"
    return [
        Card(f"{one.codes_used:,.0f} of {one.codes:,}", f"codes used ({one.codes_used / one.codes:.1%})", over),
        Card(plus_minus(one.perplexity, decimals=1), "perplexity, in codes", over),
        Card(f"{one.ceiling:,.0f}", "codes that perfectly even use would show", over),
    ]


def overview(several: Sequence[tuple[str, Use]], folder: Path) -> Table:
    """A table of codebooks, each with the run that it is of; on the page of a single run that is empty."""
    used = [one for _, one in several]
    columns = {"Run": [run for run, _ in several]} if any(run for run, _ in several) else {}
    columns |= {
        "Codebook": [one.codebook for one in used],
        "Codes used": [f"{one.codes_used:,.0f} of {one.codes:,}" for one in used],
        "Share": [f"{one.codes_used / one.codes:.1%}" for one in used],
        "Ceiling: even use": [f"{one.ceiling:,.0f}" for one in used],
        "Perplexity": [plus_minus(one.perplexity, decimals=1) for one in used],
        "Tokens": [f"{one.tokens:,}" for one in used],
        "Over": [one.over for one in used],
    }
    frame = pd.DataFrame([{"run": run, **one._asdict()} for run, one in several])
    note = (
        f"Each over as many last records as hold {stats.TOKENS_PER_CODE} tokens per code, or all that there are. Other"
        " numbers of tokens show other numbers of codes."
    )
    return lay_cells(frame, pd.DataFrame(columns), [note], "Codebooks", "codebooks", folder)

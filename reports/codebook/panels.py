"""The figures of one codebook's trace with their captions."""

from collections.abc import Iterator

import numpy as np

from ...diagnostics import stats
from ...diagnostics.recording.recent import Recent
from ...diagnostics.recording.trace import CodebookTrace
from ...diagnostics.stats.lives import last_hits, life_order
from ..page import logged
from ..page.numbers import mean_in_time
from ..page.sections import Panel
from ..page.style import spans_decades
from ..page.words import counted
from . import curves, heatmaps, populations
from .lives import gradient, heat, usage_in_time

GRADIENT = {
    "grad_norm": (
        "gradient norm (loss / latent unit)",
        "gradient norms as the optimizer saw them, means over the window",
    ),
    "pull_norm": (
        "pull norm (loss / latent unit)",
        "norms of the closed-form gradient of the codebook loss, means over the window, since this codebook has no"
        " gradient of its own (EMA, frozen or implicit)",
    ),
}


def trace_panels(trace: CodebookTrace, end: Recent) -> Iterator[Panel]:
    """The figures of a trace one by one, ``end`` being its last records; a single record has no course over time."""
    in_time = len(trace.steps) > 1
    if in_time:
        yield _usage(trace)
    yield _ranks(trace, end)
    if in_time:
        yield _collapse(trace, end)
        yield from _gradients(trace, end)
    yield from _norms(trace, end)
    if (count := np.nansum(trace.resets, axis=1)).any():
        yield Panel(
            f"{trace.codebook}-resets",
            "Resets per window",
            f"Codes that were re-initialised, {int(count.sum()):,} in {counted(len(count), 'record')}. Resets that"
            " go on at the same height for the whole run replace the same codes again and again.",
            curves.resets(trace.steps, trace.window, count),
        )


def _usage(trace: CodebookTrace) -> Panel:
    frame = usage_in_time(trace)
    last = stats.usage(trace.hits[-1], "the last record")
    return Panel(
        f"{trace.codebook}-usage",
        "Codes used and perplexity per window",
        f"{counted(len(frame), 'record')}, each over a {logged.window_label(trace.window)}"
        f" ({frame['tokens'].median():,.0f} tokens); the last: {last.of_ceiling}"
        f" ({last.used:,.0f} of {last.codes:,} codes used; dashed: the ceiling, what even use would show), coverage"
        f" {stats.percent(last.coverage)}, perplexity {last.perplexity:,.1f}, corrected for few tokens"
        f" {last.corrected:,.1f}. These are figures per window: a whole split has other tokens and other numbers.",
        curves.usage(frame, trace.hits.shape[1]),
    )


def _ranks(trace: CodebookTrace, end: Recent) -> Panel:
    early = end.records < len(trace.steps)
    first = trace.hits[: end.records].sum(0) if early else None
    return Panel(
        f"{trace.codebook}-rank-frequency",
        "Rank and frequency of codes",
        f"Share of the tokens by rank of the code, in {end}{' and in as many first records' * early}. A flat line is"
        " even use; a line that ends before the last rank is a codebook used in part. Codes without hits have no place"
        " on a logarithmic axis.",
        populations.rank_frequency(first, end.hits),
    )


def _collapse(trace: CodebookTrace, end: Recent) -> Panel:
    codes = trace.hits.shape[1]
    grid = heat(trace, trace.hits, life_order(trace.hits))
    uniform = np.median(trace.hits.sum(1)) / codes
    return Panel(
        f"{trace.codebook}-collapse",
        "Collapse: hits of every code over time",
        f"Every row is a code, ordered by its last hit, survivors on top; colour: hits per"
        f" {logged.window_label(trace.window)} (even use: {uniform:,.3g}); grey: none. Grey that grows upwards from the"
        f" lower right is codes dying. {int(end.unused.sum()):,} of {codes:,} codes had no hit in {end};"
        f" {int((last_hits(trace.hits) < 0).sum()):,} never had one.{grid.cell}",
        heatmaps.collapse(grid),
        wide=True,
    )


def _gradients(trace: CodebookTrace, end: Recent) -> Iterator[Panel]:
    which, values = gradient(trace)
    if not np.isfinite(values).any():
        return
    label, meaning = GRADIENT[which]
    codes = values.shape[1]
    grid = heat(trace, values, life_order(trace.hits))
    yield Panel(
        f"{trace.codebook}-gradients",
        "Gradient of every code over time",
        f"Per code the {meaning} ({which}, {logged.window_label(trace.window)}); codes in the order of the collapse"
        f" map; grey: exactly zero. A code whose row turns grey is no longer pulled by any latent.{grid.cell}",
        heatmaps.gradients(grid, label),
        wide=True,
    )
    first, last = mean_in_time(values[: end.records]), mean_in_time(values[-end.records :])
    yield Panel(
        f"{trace.codebook}-gradient-histogram",
        "Gradient norms",
        f"Each of the {codes:,} codes once, by its mean over {end}, and over as many first records (outline);"
        f" per code the {meaning} ({which}). Exactly zero, drawn apart on the left: {int((first == 0).sum()):,} codes"
        f" at first, {int((last == 0).sum()):,} at last.",
        populations.gradient_histogram(first, last, label),
    )


def _norms(trace: CodebookTrace, end: Recent) -> Iterator[Panel]:
    norm, unused, step = trace.norm[-1], end.unused, f"step {int(trace.steps[-1]):,}"
    if not np.isfinite(norm).any():  # no table of codes that could be read
        return
    classes = f"{int(unused.sum()):,} codes had no hit in {end}, {int((~unused).sum()):,} had"
    if end.usage.enough:
        classes = f"dead codes ({int(unused.sum()):,}) had no hit in {end}, live ones ({int((~unused).sum()):,}) had"
    none = int((norm == 0).sum())
    zero = f" Not drawn on this axis: {counted(none, 'norm')} of exactly zero." if none and spans_decades(norm) else ""
    yield Panel(
        f"{trace.codebook}-norm-histogram",
        "Code norms",
        f"Norms of {len(norm):,} codes at {step}; {classes}. Codes without a hit in one narrow peak never left"
        f" their initial place; near zero, an EMA has shrunk them.{zero}",
        populations.norm_histogram(norm, unused, end.names),
    )
    if len(trace.steps) > 1:
        yield _norms_in_time(trace, end, classes)
    yield Panel(
        f"{trace.codebook}-norm-against-hits",
        "Norm against hits",
        f"Every point is one of {len(norm):,} codes: its norm at {step} and its hits over {end}; triangles in the strip"
        f" on the left: the {int(unused.sum()):,} codes without a hit.{zero}",
        populations.norm_against_hits(norm, end.hits),
    )


def _norms_in_time(trace: CodebookTrace, end: Recent, classes: str) -> Panel:
    return Panel(
        f"{trace.codebook}-norm-in-time",
        "Code norms over time",
        f"Median (line) and 5 to 95 % of the codes (band); {classes}. Norms of used codes that run away from the others"
        " leave those where no latent comes.",
        populations.norm_in_time(trace.steps, trace.norm, end.unused, end.names),
    )

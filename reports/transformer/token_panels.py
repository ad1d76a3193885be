"""The figures of a transformer's trace of tokens with their captions."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...diagnostics import stats
from ...diagnostics.recording.code_use import Counts
from ...diagnostics.recording.trace import TokenTrace
from ..page.logged import window_label
from ..page.numbers import mean_in_time
from ..page.sections import Panel
from . import token_figures
from .token_numbers import bands, by_frequency, nll_heat

#: The rows that belong to a code, by the names of the trace, for people.
PARTS = {"embedding": "embedding", "head": "output head"}
#: Records that a figure of norms shows at most.
MOST = 300


def token_panels(folder: Path, train: Counts | None) -> Iterator[Panel]:
    """Load the trace in ``folder`` and draw its figures one by one.

    Args:
        folder: The folder of the trace.
        train: (K,) how often every code occurs in the training tokens; None: as often as the trace saw it.

    Raises:
        InputError: The trace is missing or broken.
    """
    trace = TokenTrace.load(folder, ["nll"])
    if trace.targets.any():
        yield _learning(trace, train)
    trace = TokenTrace.load(folder, [f"{part}_{kind}" for kind in ("norm", "grad_norm") for part in PARTS])
    yield _norms_in_time(trace)
    yield _norms_against_frequency(trace, train)


def _learning(trace: TokenTrace, train: Counts | None) -> Panel:
    seen = trace.targets.sum(0)
    counts = seen if train is None else train
    order = by_frequency(counts, trace.targets)
    # A code that was a target and is not in the training tokens that were counted has no frequency: as if seen once.
    by_itself = -np.log(np.maximum(counts, 1) / max(1, counts.sum()))
    nll, excess = (nll_heat(trace, order, less) for less in (np.zeros(len(seen)), by_itself))
    codes, records = int(np.diff(nll.codes).max(initial=1)), nll.records
    cell = f" A cell is the mean over all targets of up to {codes} codes × {records} records."
    merged = cell if codes * records > 1 else ""
    return Panel(
        "tokens-nll-in-time",
        "How every code is learned",
        "Every row is a code, the most frequent in training on top. Left: its mean NLL as a target per"
        f" {window_label(trace.window)} (median {np.median(trace.targets.sum(1)):,.0f} tokens); grey: not a target in"
        " that window. Right: the same less −ln p of its training frequency; what stays red to the end is never"
        f" learned. Codes that never were a target have no row: {len(seen) - len(order):,} of {len(seen):,}.{merged}",
        token_figures.nll_in_time(nll, excess),
        wide=True,
    )


def _norms_in_time(trace: TokenTrace) -> Panel:
    known = trace.targets.sum(0) > 0
    taken = np.unique(np.linspace(0, len(trace.steps) - 1, MOST).astype(int))
    drawn = {name: bands(getattr(trace, column), known, taken) for column, name in _columns().items()}
    return Panel(
        "tokens-rows-in-time",
        "Rows of the codes over time",
        f"Norm of the row that each code has in the embedding and in the output head, and the mean gradient norm of the"
        f" row per {window_label(trace.window)}, as the optimizer saw it: median (line) and 5 to 95 % (band) of the"
        f" {known.sum():,} codes that were a target and of the {(~known).sum():,} that never were. The head pushes rows"
        " without targets away as long as it gives them probability; an embedding row without input only decays.",
        token_figures.rows_in_time(trace.steps[taken], drawn),
        wide=True,
    )


def _norms_against_frequency(trace: TokenTrace, train: Counts | None) -> Panel:
    counts = trace.targets.sum(0) if train is None else train
    drawn, still, last = {}, [], max(1, len(trace.steps) // 10)
    for part, name in PARTS.items():
        norm, grad = getattr(trace, f"{part}_norm")[-1], mean_in_time(getattr(trace, f"{part}_grad_norm")[-last:])
        drawn |= {f"{part}_norm": norm, f"{part}_grad_norm": grad}
        still += [f"{(grad == 0).sum():,} of the {name}"] * bool((grad == 0).any())
    zero = f" Gradients that are exactly zero (a logarithmic axis has no place for them): {', '.join(still)}."
    where = "training tokens" if train is not None else "targets that the trace saw"
    return Panel(
        "tokens-rows-against-frequency",
        "Rows of the codes against their frequency",
        f"Every point is one of {len(counts):,} codes: the norm of its rows at step {trace.steps[-1]:,}, their gradient"
        f" norms over the last {last} records ({trace.window[-last:].sum():,} steps), and its share of"
        f" {counts.sum():,} {where}; strips on the left: {(counts == 0).sum():,} codes without any."
        + zero
        * bool(still),
        token_figures.rows_against_frequency(
            stats.frequencies(counts), {name: drawn[column] for column, name in _columns().items()}
        ),
        wide=True,
    )


def _columns() -> dict[str, str]:
    """The columns of the trace that are norms, in the order of the figures, with their titles."""
    kinds = {"norm": "norm", "grad_norm": "gradient norm (nats / unit)"}
    return {f"{part}_{kind}": f"{name}: {title}" for kind, title in kinds.items() for part, name in PARTS.items()}

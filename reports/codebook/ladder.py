"""The layers of a residual quantizer beside each other: what each adds, and what it leaves to the next."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ...diagnostics import stats
from ...diagnostics.errors import InputError
from ...diagnostics.recording.ladders import Ladder, ladders
from ...diagnostics.recording.rows import LatentsRow
from ...diagnostics.recording.trace import CodebookTrace
from ...diagnostics.run import RunDirectory
from ..page import logged
from ..page.records import read_rows
from ..page.sections import Panel, Section, Table, hang, lay_cells
from ..page.style import single, theme
from ..page.tables import plus_minus
from .measured import draw_lines

#: Layers with a curve of their own; of more, so many evenly among them.
MOST = 6
#: By how much of it the energy that enters a layer may differ from what the layer before left: where both are over the
#: same tokens, and where some tokens skipped a layer.
SAME_TOKENS, OTHER_TOKENS = 0.02, 0.2


class Energies(NamedTuple):
    """What each layer leaves, record by record.

    Attributes:
        left: A column for each layer, by step: E|z - q|^2 over the variance of what enters the first layer.
        window: Optimizer steps of each record.
    """

    left: pd.DataFrame
    window: np.ndarray


def ladder_sections(run: RunDirectory, uses: Mapping[str, stats.Usage], folder: Path) -> Iterator[Section]:
    """A section for each list of layers of a run.

    Args:
        run: The run.
        uses: The usage of its codebooks, those that can be read.
        folder: Where the page will be.
    """
    for ladder in ladders(run.codebook_names()):
        if ladder.layered and len(ladder.codebooks) > 1 and all(name in uses for name in ladder.codebooks):
            yield _section(run, ladder, [uses[name] for name in ladder.codebooks], folder)


def _section(run: RunDirectory, ladder: Ladder, used: list[stats.Usage], folder: Path) -> Section:
    section = Section(f"Layers of {ladder.name}")
    left = [math.nan] * len(used)
    over = ""
    try:
        energies = residual_energies(run, ladder)
    except InputError as error:
        section.missing.append(f"What each layer leaves is not shown: {error}.")
    else:
        left, step = energies.left.iloc[-1].tolist(), int(energies.left.index[-1])
        over = (
            f"the record of step {step:,} ({logged.window_label(energies.window[-1:])})" if step else "the whole pass"
        )
        if len(energies.left) > 1:
            section.pictures = hang([_panel(ladder, energies)], folder)
    section.tables = [_table(ladder, used, left, over, folder)]
    return section


def residual_energies(run: RunDirectory, ladder: Ladder) -> Energies:
    """What each layer leaves, from the distortion of its codes and the moments of the latents that enter it.

    Raises:
        InputError: A layer does not go on with what the one before left, in the same space, or there are no moments.
    """
    distortion, latents, window = {}, {}, {}
    for name in ladder.codebooks:
        trace, rows = CodebookTrace.load(run.trace / name, ["distortion"]), read_rows(run, LatentsRow, name)
        tokens = trace.hits.sum(1)
        error = np.nansum(trace.hits * trace.distortion.astype(np.float64), 1) / np.maximum(tokens, 1)
        distortion[name] = pd.Series(np.where(tokens > 0, error, np.nan), trace.steps)
        window[name] = pd.Series(trace.window, trace.steps)
        latents[name] = rows[rows["second_moment"].notna()]
    first = latents[ladder.codebooks[0]]
    shared = [*distortion.values(), *(rows.tokens for rows in latents.values())]
    steps = pd.concat(shared, axis=1, join="inner").index
    if steps.empty:
        raise InputError("the moments of the latents are not recorded for each of its layers")
    _check_residual(ladder, distortion, latents, steps)
    mean, second = (np.stack(first.loc[steps, column]) for column in ("mean", "second_moment"))
    variance = (second - mean**2).sum(1)
    left = pd.DataFrame({name: series[steps] / variance for name, series in distortion.items()}, steps)
    return Energies(left, window[ladder.codebooks[0]][steps].to_numpy(int))


def _check_residual(
    ladder: Ladder, distortion: Mapping[str, pd.Series], latents: Mapping[str, pd.DataFrame], steps: pd.Index
) -> None:
    for before, name in zip(ladder.codebooks, ladder.codebooks[1:], strict=False):
        entering = latents[name].loc[steps, "second_moment"].map(np.sum)
        same = (latents[name].loc[steps, "tokens"] == latents[before].loc[steps, "tokens"]).all()
        off = (entering - distortion[before][steps]).abs() / distortion[before][steps]
        if not float(off.median()) <= (SAME_TOKENS if same else OTHER_TOKENS):
            raise InputError(
                f"the energy of what enters {name} is not that of what {before} leaves, so they quantize in other"
                " spaces, or scaled"
            )


def _table(ladder: Ladder, used: list[stats.Usage], left: list[float], over: str, folder: Path) -> Table:
    bits = [math.log2(one.perplexity) if one.perplexity > 0 else math.nan for one in used]
    most = [math.log2(one.codes) for one in used]
    frame = pd.DataFrame(
        {
            "layer": ladder.codebooks,
            "codes": [one.codes for one in used],
            "codes_used": [one.used for one in used],
            "perplexity": [one.perplexity for one in used],
            "bits": bits,
            "log2_codes": most,
            "left": left,
            "tokens": [one.tokens for one in used],
            "over": [one.window for one in used],
        }
    )
    text = pd.DataFrame(
        {
            "Layer": frame["layer"],
            "Codes used": [f"{one.used:,.0f} of {one.codes:,}" for one in used],
            "Usage": [one.of_ceiling for one in used],
            "Perplexity": [plus_minus(one.perplexity, decimals=1) for one in used],
            "Bits": [f"{plus_minus(one, decimals=2)} of {size:.2f}" for one, size in zip(bits, most, strict=True)],
            "Variance left": [share_left(share) for share in left],
            "Tokens": [f"{one.tokens:,}" for one in used],
            "Over": [one.window for one in used],
        }
    )
    notes = [
        "Bits: entropy of the layer's codes, log2 of the perplexity, of the log2 K that it could have. What layers"
        " repeat of each other is not taken off: measure_codebooks does, which sees them token by token.",
    ]
    if over:
        notes.append(
            f"Variance left: mean |z - q|² of the layer over the variance of what enters the first layer, over {over}."
            " A layer that leaves as much as the one before adds nothing."
        )
    return lay_cells(frame, text, notes, "Layer by layer", f"{ladder.name}-layers", folder)


def share_left(share: float) -> str:
    """In percent, three significant digits; a dash for what is not known."""
    return "–" if math.isnan(share) else f"{100 * share:.3g} %"


def _panel(ladder: Ladder, energies: Energies) -> Panel:
    layers = [*energies.left.columns]
    shown = [layers[number] for number in np.unique(np.linspace(0, len(layers) - 1, MOST).round().astype(int))]
    few = f" {len(shown)} of {len(layers)} layers." if len(shown) < len(layers) else ""
    last = energies.left.iloc[-1]
    return Panel(
        f"{ladder.name}-left",
        "What each layer leaves",
        f"Share of the variance of what enters the first layer that is left after each, in every"
        f" {logged.window_label(energies.window)}. At the end {share_left(last.iloc[0])} after the first and"
        f" {share_left(last.iloc[-1])} after the last of {len(layers)}. A line on the one before it is a layer that"
        f" adds nothing, one above it a layer that does harm.{few}",
        left_over_time(energies.left[shown], {name: f"layer {layers.index(name)}" for name in shown}),
    )


@theme()
def left_over_time(left: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """The share that is left, a line for each layer."""
    figure, axes = single(height=3.4)
    draw_lines(axes, 100 * left, names, log=True)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("variance left after it (%)")
    return figure

"""What each term of the loss asks of the encoder, where the terms were named."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from ..page.sections import Panel, Table, lay_cells
from ..page.style import stacked, theme
from ..page.words import counted
from .measured import brief, cell, draw_lines


def terms_panels(codebook: str, frame: pd.DataFrame) -> Iterator[Panel]:
    """The figure of the table ``terms``, where it was measured in more than one step."""
    norms = by_term(frame)
    if len(norms) > 1:
        end = norms.iloc[-1].dropna().sort_values(ascending=False)
        told = ", ".join(f"{name} {brief(value)}" for name, value in end.items())
        yield Panel(
            f"{codebook}-terms",
            "What each term of the loss asks of the encoder",
            f"Norm of the gradient of each weighted term at the latents, in {counted(len(norms), 'step')}; at step"
            f" {norms.index[-1]:,}: {told}. The largest one is what the encoder follows.",
            terms(norms),
        )


def by_term(frame: pd.DataFrame) -> pd.DataFrame:
    """The weighted norms, a column for each term."""
    flat = frame.reset_index()
    return flat.pivot_table(index="step", columns="term", values="weighted_grad_norm", aggfunc="last", sort=False)


@theme()
def terms(norms: pd.DataFrame) -> Figure:
    """Weighted gradient norms by term."""
    figure, (axes,) = stacked(1, height=3.2)
    draw_lines(axes, norms, {str(name): str(name) for name in norms}, log=True)
    axes.set_ylabel("norm (loss / latent)")
    return figure


def terms_table(codebook: str, frame: pd.DataFrame, folder: Path) -> Table:
    """The terms as they were measured last."""
    last = frame[frame.index == frame.index[-1]]
    heads = {"term": "Term", "weight": "Weight", "value": "Value", "grad_norm": "Gradient norm at the latents"}
    heads["weighted_grad_norm"] = "The same, weighted"
    text = pd.DataFrame({head: [cell(value) for value in last[name]] for name, head in heads.items()})
    title = f"Terms of the loss at step {frame.index[-1]:,}"
    return lay_cells(frame.reset_index(), text, [], title, f"{codebook}-terms", folder)

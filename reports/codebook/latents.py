"""The latents of each window: where they lie, how wide, and whether they hold still."""

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from ..page import logged
from ..page.sections import Panel
from ..page.style import stacked, theme
from .measured import brief, draw_lines, last, there

PLACE = {"mean_norm": "mean |z|", "spread": "spread", "centre_norm": "|centre|"}
CHANGES = ("churn", "encoder_drift")


def latents_panels(codebook: str, frame: pd.DataFrame) -> Iterator[Panel]:
    """The figures of the table ``latents``."""
    if there(frame, *PLACE):
        yield Panel(f"{codebook}-latents", "Latents over time", _place_caption(frame), place(frame))
    if there(frame, *CHANGES):
        yield Panel(
            f"{codebook}-churn", "The reference batch from record to record", _churn_caption(frame), churn(frame)
        )


@theme()
def place(frame: pd.DataFrame) -> Figure:
    """Mean norm, spread and distance of the centre from the origin."""
    figure, (axes,) = stacked(1, height=3.2)
    draw_lines(axes, frame, PLACE, log=True)
    axes.set_ylabel("latent units")
    return figure


@theme()
def churn(frame: pd.DataFrame) -> Figure:
    """How many tokens of the reference batch change their code, and how far its latents move."""
    figure, (codes, drift) = stacked(2, height=1.9)
    draw_lines(codes, frame, {"churn": "churn"})
    codes.set_ylabel("tokens with another code")
    codes.set_ylim(-0.02, 1.02)
    draw_lines(drift, frame, {"encoder_drift": "drift"}, log=True)
    drift.set_ylabel("drift, in spreads")
    return figure


def _place_caption(frame: pd.DataFrame) -> str:
    first, grown = frame.iloc[0], last(frame, "mean_norm") / frame["mean_norm"].iloc[0]
    return (
        f"All latents of a {logged.window_label(frame['window'].to_numpy(int))}"
        f" ({brief(frame['tokens'].median())} tokens). Mean |z| goes from {brief(first['mean_norm'])} to"
        f" {brief(last(frame, 'mean_norm'))} ({brief(grown)} times), the spread (root mean square distance from the"
        f" centre) from {brief(first['spread'])} to {brief(last(frame, 'spread'))}; the centre ends"
        f" {brief(last(frame, 'centre_norm'))} from the origin. Latents that grow and grow run away from their codes;"
        " a centre farther out than the spread is a cloud that a codebook around the origin does not meet."
    )


def _churn_caption(frame: pd.DataFrame) -> str:
    return (
        "The same batch at every record, in evaluation mode. Since the record before, at the end:"
        f" {brief(100 * last(frame, 'churn'))} % of its tokens have another code, and its latents moved by"
        f" {brief(last(frame, 'encoder_drift'))} of their spread. Codes that change while the latents hold still are"
        " the codebook's doing; both falling is a codebook that settles."
    )

"""How the codes move in single steps, and what moves them."""

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from ..page.sections import Panel
from ..page.style import stacked, theme
from ..page.words import counted
from .measured import brief, draw_lines, last, there

MOVED = {"moved_mean": "mean, all codes", "moved_median_used": "median, used codes", "moved_max": "largest"}
ATTRACTION = ("attraction", "attraction_r2")
VELOCITIES = {"code_velocity": "codes", "centroid_velocity": "centroids of their latents"}
SHARES = {"moved_share": "codes that moved", "grad_share": "codes with a gradient"}


def movement_panels(codebook: str, frame: pd.DataFrame) -> Iterator[Panel]:
    """The figures of the table ``movement``; none of a codebook that stands still."""
    if unmoved(frame):
        return
    if there(frame, *MOVED):
        caption = f"{_moved_caption(frame)} {_optimizer(frame)}"
        yield Panel(f"{codebook}-movement", "How far the codes move in a step", caption, moved(frame))
    if there(frame, *ATTRACTION):
        caption = _attraction_caption(frame)
        yield Panel(f"{codebook}-attraction", "What the codes move towards", caption, attraction(frame))


def unmoved(frame: pd.DataFrame) -> list[str]:
    """A sentence where no code moved in any step."""
    if not there(frame, "moved_max") or frame["moved_max"].max() > 0:
        return []
    steps = counted(int(frame["moved_max"].notna().sum()), "step")
    return [f"None of its codes moved in the {steps} that were watched: it is frozen, or has fixed codes."]


@theme()
def moved(frame: pd.DataFrame) -> Figure:
    """Distances that codes move in a step, and the shares of codes that move and that have a gradient."""
    figure, (distance, shares) = stacked(2)
    draw_lines(distance, frame, MOVED, log=True)
    distance.set_ylabel("moved (latent units)")
    draw_lines(shares, frame, SHARES)
    shares.set_ylabel("share of the codes")
    shares.set_ylim(-0.05, 1.05)
    return figure


@theme()
def attraction(frame: pd.DataFrame) -> Figure:
    """The slope of the movement on the way to the centroid, what it explains, and how fast both go."""
    follows = there(frame, *VELOCITIES)
    figure, (slope, explained, *rest) = stacked(2 + follows, height=1.9)
    for axes in rest:
        draw_lines(axes, frame, VELOCITIES, log=True)
        axes.set_ylabel("latent units / step")
    draw_lines(slope, frame, {"attraction": "attraction"}, log=True)
    slope.set_ylabel("share of the way")
    draw_lines(explained, frame, {"attraction_r2": "R²"})
    explained.set_ylabel("R²")
    explained.set_ylim(min(0.0, frame["attraction_r2"].min()) - 0.05, 1.05)
    return figure


def _moved_caption(frame: pd.DataFrame) -> str:
    still = int((frame["moved_median_used"] == 0).sum())
    frozen = f" In {still:,} of them the used codes did not move at all: a frozen codebook." if still else ""
    return (
        f"|e after the step - e before| in {counted(len(frame), 'step')}. At step {frame.index[-1]:,}: mean"
        f" {brief(last(frame, 'moved_mean'))}, median of the used codes {brief(last(frame, 'moved_median_used'))},"
        f" largest {brief(last(frame, 'moved_max'))}; a largest far above the rest is a code that was placed anew."
        f"{frozen}"
    )


def _optimizer(frame: pd.DataFrame) -> str:
    held = frame["in_optimizer"].dropna()
    if not len(held):
        return ""
    if not held.iloc[-1]:
        text = "No optimizer holds the codes: they follow moving averages of their latents, or stand still."
    else:
        rates = frame["lr"].dropna()
        lr = (
            brief(rates.iloc[0])
            if rates.nunique() == 1
            else f"{brief(rates.iloc[0])} at first, {brief(rates.iloc[-1])} at last"
        )
        text = f"An optimizer holds the codes, with lr {lr} and weight decay {brief(last(frame, 'weight_decay'))}."
    if frame["attached_late"].eq(True).any():
        text += " The optimizer had taken steps before the instrument came: what stands under step 0 is no beginning."
    return text


def _velocities(frame: pd.DataFrame) -> str:
    if not there(frame, *VELOCITIES):
        return ""
    codes, centroids = (frame[name].median() for name in VELOCITIES)
    return (
        f" From look to look the most used codes go {brief(codes)} a step and the centroids of their latents"
        f" {brief(centroids)} (medians): codes that go slower lag behind."
    )


def _attraction_caption(frame: pd.DataFrame) -> str:
    return (
        "The movement of used codes regressed on the way to the centroid of their latents of the step: attraction 0.01"
        f" is a hundredth of the way, as an EMA of decay 0.99 goes. At step {frame.index[-1]:,}:"
        f" {brief(last(frame, 'attraction'))}; it explains {brief(last(frame, 'attraction_r2'))} of the movement (R²)."
        f"{_velocities(frame)} An attraction below about 0.0015 was too slow for the encoder in small models; a low R²"
        " says that something else moves the codes, such as the momentum of Adam or weight decay."
    )

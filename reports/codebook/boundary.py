"""The boundary over time: what the decoder sends back, what reaches the encoder, and what explains the difference."""

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from ...diagnostics.recording.rows import NAMED_FROM
from ..page.sections import Panel
from ..page.style import few_ticks, legend_above, stacked, theme
from ..page.words import counted
from .measured import brief, draw_lines, last, there

NORMS = {
    "decoder_grad_norm": "from the decoder |g_q|",
    "encoder_grad_norm": "to the encoder |g_z|",
    "commitment_grad_norm": "commitment part of |g_z|",
}
R2 = {"straight_through_r2": "straight-through", "cosine_r2": "cosine", "rotation_r2": "rotation"}


def boundary_panels(codebook: str, frame: pd.DataFrame) -> Iterator[Panel]:
    """The figures of the table ``boundary``."""
    if there(frame, *NORMS):
        caption = _gradients_caption(frame)
        yield Panel(f"{codebook}-boundary", "Gradients at the quantizer's boundary", caption, gradients(frame))
    if there(frame, *R2):
        caption = _estimator_caption(frame)
        yield Panel(f"{codebook}-estimator", "How the gradient crosses the quantizer", caption, estimator(frame))


@theme()
def gradients(frame: pd.DataFrame) -> Figure:
    """Norms of the gradients on both sides, their ratio and the cosine of their angle."""
    figure, (norms, ratio, cosine) = stacked(3, height=1.9)
    draw_lines(norms, frame, NORMS, log=True)
    norms.set_ylabel("norm (loss / latent)")
    draw_lines(ratio, frame, {"ratio": "ratio"}, log=True)
    ratio.axhline(1, color="#999999", linestyle=":", linewidth=1)
    ratio.set_ylabel("|g_z| / |g_q|")
    draw_lines(cosine, frame, {"cosine": "cosine"})
    cosine.set_ylabel("cosine of g_z, g_q")
    cosine.set_ylim(min(0.0, frame["cosine"].min()) - 0.05, 1.05)
    return figure


@theme()
def estimator(frame: pd.DataFrame) -> Figure:
    """R2 of each candidate, and the weight of a commitment loss that the gradients show."""
    measured = known(frame) and there(frame, "commitment")
    figure, axes = stacked(2 if measured else 1, height=2.4)
    draw_lines(axes[0], frame, R2)
    axes[0].axhline(NAMED_FROM, color="#999999", linestyle=":", linewidth=1, label="named from here on")
    axes[0].set_ylim(min(0.0, float(frame[[*R2]].min().min())) - 0.05, 1.05)
    axes[0].set_ylabel("R²")
    legend_above(axes[0])
    if measured:
        draw_lines(axes[1], frame, {"commitment": "measured weight", "gain": "decoder's coefficient"})
        values = frame[["commitment", "gain"]].dropna().to_numpy(float)
        low, high = min(0.0, values.min()), values.max()
        axes[1].set_ylim(low - 0.05 * (high - low), high + 0.15 * (high - low))
        axes[1].set_ylabel("weight (no unit)")
        few_ticks(axes[1].yaxis, 5)
    return figure


def known(frame: pd.DataFrame) -> bool:
    """Whether the estimator was named in most steps."""
    return 2 * int(frame["estimator"].notna().sum()) > len(frame)


def _gradients_caption(frame: pd.DataFrame) -> str:
    step, row = frame.index[-1], frame.iloc[-1]
    text = (
        f"{counted(len(frame), 'step')}, each over all its tokens ({brief(last(frame, 'tokens'))} in the last). At step"
        f" {step:,}: |g_q| {brief(row['decoder_grad_norm'])} comes from the decoder, |g_z|"
        f" {brief(row['encoder_grad_norm'])} reaches the encoder (ratio {brief(row['ratio'])}, cosine"
        f" {brief(row['cosine'])})."
    )
    if row["commitment_grad_norm"] > 0:
        text += (
            f" The decoder's gradient is {brief(row['decoder_grad_norm'] / row['commitment_grad_norm'])} times the"
            " commitment's; in small models, below about 0.5 commitment drowned reconstruction."
        )
    return text + " A jump of |g_q| at one step is a new loss or a shock."


def _estimator_caption(frame: pd.DataFrame) -> str:
    text = (
        "g_z regressed on what each candidate estimator makes of g_q, and on z - q: the one with R² 1 is what this"
        " quantizer does."
    )
    counts, steps = frame["estimator"].dropna().value_counts(), counted(len(frame), "step")
    told = ", ".join(f"{name} in {n:,}" for name, n in counts.items())
    if not known(frame):
        best, when = (
            max(R2, key=lambda name: last(frame, name)),
            f"most ({told} of {steps})" if told else f"any of {steps}",
        )
        return (
            f"{text} None comes to {NAMED_FROM} in {when}; the best at the end is {R2[best]},"
            f" {brief(last(frame, best))}. The estimator is unknown, and what rests on it is not told: one of another"
            " kind, or gradient that takes other ways too, as through the later layers of a residual quantizer."
        )
    rest = "" if counts.sum() == len(frame) else f"; in the others no candidate comes to {NAMED_FROM}"
    text += f" Named: {told} of {steps}{rest}."
    if "none" in counts:
        text += " None: nothing of the decoder's gradient reaches the encoder, as without a straight-through estimator."
    return text + (_weights(frame) if there(frame, "commitment") else "")


def _weights(frame: pd.DataFrame) -> str:
    weights, gain = frame["commitment"].dropna(), last(frame, "gain")
    low, high = weights.min(), weights.max()
    spread = f" ({brief(low)} to {brief(high)})" if high - low > 0.01 * abs(high) else ""
    text = (
        f" The encoder is pulled to the codes as by a commitment loss mean |z - sg q|² of weight"
        f" {brief(weights.median())}{spread}, its median over the steps with a name; below 0.05 there is next to none."
        f" The decoder's gradient arrives with coefficient {brief(gain)}: 1 is whole, 0 is no straight-through."
    )
    if abs(gain - 1) > 0.1:
        text += (
            " Here it takes other ways too, or is scaled: in a residual quantizer the later layers add theirs to that"
            " of an earlier one, whose weight is then not that of one loss."
        )
    return text

"""The figures of an evaluated split of a transformer with their captions."""

from collections.abc import Iterator

import numpy as np

from ...diagnostics import stats
from ...diagnostics.recording.code_use import CodeUse, PositionUse
from ..page.sections import Panel
from . import code_figures, position_figures

#: A mean NLL over fewer tokens than these may be luck.
FEW = 10
#: Codes in each figure of maps.
SHOWN = 8


def code_panels(split: str, use: CodeUse) -> Iterator[Panel]:
    """How well every code is predicted, and how often it is sampled."""
    yield Panel(
        f"{split}-frequency-against-nll",
        "Frequency against NLL",
        frequency_caption(split, use),
        code_figures.frequency_against_nll(use),
        wide=True,
    )
    if use.tokens and use.sampled_tokens:
        yield Panel(
            f"{split}-data-against-sampled",
            "Frequency in the data against the samples",
            sampled_caption(split, use),
            code_figures.data_against_sampled(use),
            wide=True,
        )


def frequency_caption(split: str, use: CodeUse) -> str:
    """What ``code_figures.frequency_against_nll`` shows."""
    never, judged = int(use.never_learned.sum()), int(use.judged.sum())
    few = int((use.never_learned & (use.data < FEW)).sum())
    unseen = int((~use.absent & (use.data == 0)).sum())
    luck = f"; {few:,} of them on fewer than {FEW} tokens, which may be chance" if few else ""
    return (
        f"Every point is a code: its share of {use.train.sum():,} training tokens, and its mean NLL as a target among"
        f" the {use.tokens:,} tokens of the whole {split} split. On or above the line −ln p a code is predicted no"
        f" better than by its frequency alone: never learned, {never:,} of {judged:,} (triangles{luck})."
        + (f" Not shown: {unseen:,} codes that do not occur in the split and cannot be judged." if unseen else "")
        + f" {_absent_caption(use)}"
    )


def _absent_caption(use: CodeUse) -> str:
    absent, met = int(use.absent.sum()), int((use.absent & (use.data > 0)).sum())
    if not absent:
        return "Every code occurs in training."
    dead = f"{met:,} of them in the split all the same (crosses)" if met else "none of them in the split either"
    return f"Dead in the first stage: {absent:,} of {len(use.train):,} codes do not occur in training, {dead}."


def sampled_caption(split: str, use: CodeUse) -> str:
    """What ``code_figures.data_against_sampled`` shows."""
    there = (use.data > 0) | (use.sampled > 0)
    outside = int((use.outside_chance & there).sum())
    missed, new = int(((use.data > 0) & (use.sampled == 0)).sum()), int(((use.data == 0) & (use.sampled > 0)).sum())
    odd, absent = int((use.absent & (use.sampled > 0)).sum()), int(use.absent.sum())
    dead = f"Codes that do not occur in training: {absent:,}, of which sampled: {odd:,}"
    return (
        f"Every point is a code: its share of the {use.tokens:,} tokens of the whole {split} split and of"
        f" {use.sampled_tokens:,} sampled tokens. Grey: where 95 % of the codes would lie if samples and data differed"
        " by chance only, every token drawn by itself; tokens of one image are not, so that a little more is no fault."
        f" Outside: {outside:,} of {there.sum():,} codes ({outside / there.sum():.1%}). In the strips: codes of the"
        f" split never sampled (below, {missed:,}) and sampled codes that are not in the split (left, {new:,})."
        f" {dead}{' (crosses); it should be none.' if odd else '.'}"
    )


def position_panels(split: str, use: CodeUse, where: PositionUse) -> Iterator[Panel]:
    """Maps over the grid: all codes, the most frequent ones, those that differ most."""
    images, sampled = where.images(where.data), where.images(where.sampled)
    over = f"{images:,} images of the {split} split" + (f" and {sampled:,} samples" if sampled else "")
    unequal = (
        " Fewer images show fewer codes, so that the two maps compare in shape, not in height."
        if sampled and sampled != images
        else ""
    )
    yield Panel(
        f"{split}-position-maps",
        "Codes and NLL by position",
        f"For each of the {where.grid[0]} × {where.grid[1]} positions, over {over}: the perplexity of code use there"
        f" (how many equally used codes it amounts to) and the mean NLL of the split's tokens.{unequal} An edge or"
        " a corner that stands out is a habit of the first stage; an NLL that falls along the order of codes is context"
        " at work.",
        position_figures.position_maps(where),
        wide=True,
    )
    meaning = f"Share of the images (%) that have the code at each position, over {over}; one colour scale per pair."
    data, drawn = stats.frequencies(use.data), stats.frequencies(use.sampled)
    shares = {"data": data, "samples": drawn}
    most = np.argsort(-use.data, kind="stable")[:SHOWN]
    yield Panel(
        f"{split}-positions-frequent",
        "Where the most frequent codes occur",
        f"The {len(most)} most frequent codes of the split. {meaning} Samples that know where a code belongs repeat the"
        " pattern of the data.",
        position_figures.pairs(where, [k for k in most if data[k]], shares),
        wide=True,
    )
    apart = [k for k in np.argsort(-use.gap, kind="stable")[:SHOWN] if use.gap[k]]
    if use.sampled_tokens and apart:
        yield Panel(
            f"{split}-positions-gap",
            "Where the codes occur that are sampled too often or too rarely",
            f"The {len(apart)} codes whose shares in data and samples lie furthest apart: {use.gap[apart].sum():.3f} of"
            f" the total variation of {use.gap.sum():.3f}. {meaning}",
            position_figures.pairs(where, apart, shares),
            wide=True,
        )

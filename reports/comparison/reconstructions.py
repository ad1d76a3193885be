"""The same images as several quantizers reconstruct them, from the pictures that their runs keep."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..page import images
from ..page.facts import RunFacts
from ..page.run_sections import newest_picture
from ..page.sections import Panel, Section, hang

#: Pixels around the images of a grid of torchvision.
PADDING = 2


class Halves(NamedTuple):
    """The two rows of a picture, each with the padding above it.

    Attributes:
        run: Name of the run.
        step: Step of the picture.
        originals: (h + PADDING, W, ...) row of originals.
        reconstructions: (h + PADDING, W, ...) row of what the run made of them.
    """

    run: str
    step: int
    originals: np.ndarray
    reconstructions: np.ndarray

    def same_originals(self, other: "Halves") -> bool:
        """Whether both show the same images, but for the rounding to 8 bits."""
        mine, others = self.originals, other.originals
        return mine.shape == others.shape and np.allclose(mine, others, rtol=0, atol=1.5 / 255)


def newest_halves(fact: RunFacts) -> Halves | None:
    """The newest picture of a run, cut between its rows; None where it has none, or one that is too small for two."""
    found = newest_picture(fact.run.samples, "reconstructions")
    if found is None or len(found[1]) <= 3 * PADDING:
        return None
    step, grid = found
    cut = (len(grid) - PADDING) // 2
    return Halves(fact.name, step, grid[:cut], grid[cut : 2 * cut])


def stacked(halves: Sequence[Halves]) -> np.ndarray:
    """A row of originals, then a row of what each run made of them, as one grid with padding all around."""
    originals = halves[0].originals
    return np.concatenate([originals, *(one.reconstructions for one in halves), originals[:PADDING]])


def reconstructions(groups: Mapping[str, Sequence[RunFacts]], folder: Path) -> Section:
    """One row of originals and below it one per quantizer; one line on each quantizer that cannot be shown beside them.

    Args:
        groups: The runs of each quantizer; the first of each that has a picture is shown.
        folder: Where the page will be.
    """
    section, shown = Section("Reconstructions"), dict[str, Halves]()
    for name, group in groups.items():
        newest = next((halves for fact in group if (halves := newest_halves(fact))), None)
        first = next(iter(shown.values()), newest)
        if newest is None or first is None:
            section.missing.append(f"{name} is left out: it has no reconstructions in samples/ yet.")
        elif newest.same_originals(first):
            shown[name] = newest
        else:
            section.missing.append(
                f"{name} is left out: the originals of {newest.run} are other images, or of another size, than those of"
                f" {first.run}."
            )
    if not shown:
        section.missing = ["No reconstructions yet: no run has kept any in samples/."]
        return section
    figure = images.named_rows(stacked(list(shown.values())), ["original", *shown])
    section.pictures = hang(
        [Panel("reconstructions", "The same images", _caption(shown), figure, wide=True, photos=True)], folder
    )
    return section


def _caption(shown: Mapping[str, Halves]) -> str:
    steps = {halves.step for halves in shown.values()}
    if len(steps) == 1:
        runs = f"{', '.join(halves.run for halves in shown.values())}, at step {steps.pop():,}"
    else:
        runs = ", ".join(f"{halves.run} at step {halves.step:,}" for halves in shown.values())
    return f"Images of the validation split in the top row, below them what the quantizers make of them: {runs}."

"""How latents and codes lie to each other at the very start: what three steps show of geometry."""

from collections.abc import Iterator

from ...findings import Finding, Severity
from ...recording.rows import GeometryRow
from ...stats import expected_codes_used
from ..check import CannotJudge, CodebookCheck, called
from ..evidence import Seen

#: Latents below which nothing is said of their geometry.
FEWEST = 32


def start_of(seen: Seen) -> GeometryRow:
    """The geometry at the first training call.

    Raises:
        CannotJudge: There is none or too few latents, or its codes are fixed or not chosen by distance.
    """
    called(seen)
    if seen.start is None or seen.start.scale is None:
        raise CannotJudge("there is no table of codes at the first call")
    if seen.fixed:
        raise CannotJudge("its codes are fixed by design")
    if (seen.start.sample or 0) < FEWEST:
        raise CannotJudge(f"{seen.start.sample} latents are too few to judge geometry by: {FEWEST} or more")
    if seen.start.metric not in (None, "euclidean") or (seen.start.float64_agreement or 1) < 0.9:
        raise CannotJudge("its codes are not chosen by Euclidean distance")
    return seen.start


def reached(seen: Seen, row: GeometryRow) -> tuple[int, float]:
    """Codes that are nearest to a sampled latent, and how many even use would reach."""
    return row.codes_reached or 0, expected_codes_used(seen.size, row.sample or 0)


def few(seen: Seen, row: GeometryRow) -> bool:
    """Whether the latents reach less than half of the codes that even use would."""
    codes, even = reached(seen, row)
    return codes < 0.5 * even


def _severity(seen: Seen, row: GeometryRow) -> Severity:
    """A book of which a tenth is reached is a warning; less evenly reached ones are common, and often recover."""
    codes, even = reached(seen, row)
    return "warning" if codes < 0.1 * even else "info"


def _of_start(seen: Seen, row: GeometryRow) -> str:
    codes, even = reached(seen, row)
    return (
        f"; at the start {codes:,} of {seen.size:,} codes are nearest to one of {row.sample:,} latents, where even use"
        f" would reach {even:,.0f}"
    )


class ScaleAtStart(CodebookCheck):
    name = "scale-at-start"
    question = "Do codes and latents have the same scale at the start?"
    measures = (
        "Median |e| over mean |z| below 0.35, or the spread of the codes above 2.5 times that of the latents, at the"
        " first call, where the latents then reach less than half of the codes that even use would. A warning where"
        " they reach less than a tenth, else a note."
    )
    matters = (
        "Codes in a heap at the origin are told apart by direction alone, and the outermost take all latents; codes far"
        " out are nearest to no latent, and one of them takes all."
    )
    advice = "Begin the codes with k-means or samples of the first latents, or scale one to the other."
    source = "van den Oord et al. 2017 (arXiv:1711.00937), init U(-1/K, 1/K); Lancucki et al. 2020 (arXiv:2005.08520)"

    def look_at(self, seen: Seen) -> Iterator[Finding]:
        row = start_of(seen)
        assert row.scale is not None
        if not few(seen, row):
            return
        if row.scale < 0.35:
            told = f"the codes of {seen.place} are {row.scale:.3g} times as long as the latents"
        elif (row.spread_ratio or 0) > 2.5:
            told = f"the codes of {seen.place} are spread {row.spread_ratio:.3g} times as far as the latents"
        else:
            return
        yield self.found(
            told + _of_start(seen, row),
            seen,
            _severity(seen, row),
            scale=row.scale,
            spread_ratio=row.spread_ratio,
            codes_reached=row.codes_reached,
            sample=row.sample,
        )


class OffsetAtStart(CodebookCheck):
    name = "offset-at-start"
    question = "Are codes and latents about the same centre at the start?"
    measures = (
        "|mean z - mean e| over the spread of the latents above 2.2 at the first call, where the latents then reach"
        " less than half of the codes that even use would. A warning where they reach less than a tenth, else a note."
    )
    matters = "From far off all latents lie in one direction: the few codes on that side get them all, the others none."
    advice = "Centre the latents (a normalisation before the quantizer), or begin the codes with samples of them."
    source = (
        "measured: of 1,024 N(0, 1) codes 873, 341, 27 and 6 are used at an offset of 0, 1, 3 and 10 spreads (D 32)"
    )

    def look_at(self, seen: Seen) -> Iterator[Finding]:
        row = start_of(seen)
        if (row.offset or 0) > 2.2 and few(seen, row):
            yield self.found(
                f"the latents of {seen.place} lie {row.offset:.3g} spreads from the centre of the codes"
                + _of_start(seen, row),
                seen,
                _severity(seen, row),
                offset=row.offset,
                codes_reached=row.codes_reached,
                sample=row.sample,
            )


class RankAtStart(CodebookCheck):
    name = "rank-at-start"
    question = "Do the latents fill their dimensions at the start?"
    measures = (
        "The effective rank of the latents at the first call, exp of the entropy of their covariance's spectrum; below"
        " 3.3 and below 0.42 D it is a note, and a warning where the latents reach less than a tenth of the codes that"
        " even use would."
    )
    matters = (
        "Latents on a line or in a plane need few codes, however many dimensions they have, and no reset helps: the"
        " bottleneck is before the quantizer."
    )
    advice = "Look at the last layers of the encoder, and at its initialisation; a smaller D with more codes is honest."
    source = "Roy and Vetterli 2007 (effective rank)"

    def look_at(self, seen: Seen) -> Iterator[Finding]:
        row = start_of(seen)
        dim = seen.steps[0].latents.shape[1]
        if row.effective_rank is not None and row.effective_rank < min(3.3, 0.42 * dim):
            yield self.found(
                f"the latents of {seen.place} fill {row.effective_rank:.2g} of {dim} dimensions at the start"
                f" ({row.sample:,} latents)",
                seen,
                _severity(seen, row),
                effective_rank=row.effective_rank,
                dimensions=dim,
                sample=row.sample,
            )


class DuplicatesAtStart(CodebookCheck):
    name = "duplicates-at-start"
    question = "Are the codes different from each other at the start?"
    measures = (
        "Codes closer to another one than 0.001 spreads of the latents, at the first call; above 30 % is a warning."
    )
    matters = "Of equal codes the first gets all hits: the others are dead from birth, and move together or not at all."
    advice = "Add noise where codes are copied, and draw samples without replacement."
    source = "SerezD/vqvae-vqgan-pytorch-lightning (re-initialisation by exact copies)"

    def look_at(self, seen: Seen) -> Iterator[Finding]:
        row = start_of(seen)
        if (row.duplicates or 0) > 0.3:
            yield self.found(
                f"{row.duplicates:.0%} of the codes of {seen.place} are equal to another one at the start",
                seen,
                "warning",
                duplicates=row.duplicates,
            )

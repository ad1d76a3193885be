"""Are the chosen codes the nearest ones?"""

from collections.abc import Iterator

import numpy as np

from ...findings import Finding
from ...stats import geometry
from ..check import CannotJudge, CodebookCheck, called
from ..evidence import Forward, Seen

#: Latents that assignments are judged by, times codes.
_MOST_PAIRS = 4_000_000


def judged(seen: Seen) -> tuple[Forward, geometry.Metric, float]:
    """A call that draws nothing at random, the metric that explains its indices best, and the share that it explains.

    Raises:
        CannotJudge: There is no such call, or no table that its codes stand in.
    """
    called(seen)
    if seen.levels is not None:
        raise CannotJudge("its codes are digits, which are rounded and not searched for")
    made = seen.evaluation if seen.random or not seen.training else seen.training[0]
    if made is None:
        raise CannotJudge(seen.not_done.get("replay", "its call was not made again"))
    table = made.before
    if table is None or np.isnan(made.latents).any():
        raise CannotJudge("there is no table of codes that latents are compared with")
    if not np.allclose(made.codes[made.counted], table[made.indices[made.counted]], rtol=1e-2, atol=1e-2):
        raise CannotJudge("the codes that it compares with are made anew in each call")
    if (made.latents[1:] == made.latents[:-1]).all(1).sum() > 0.3 * len(made.latents):
        raise CannotJudge("a token has several codes, or tokens are alike")
    few = _sample(made, len(table))
    shares = {
        name: geometry.nearest_share(made.latents[few], table, made.indices[few], name) for name in geometry.METRICS
    }
    metric = max(geometry.METRICS, key=shares.__getitem__)
    return made, metric, shares[metric]


def _sample(made: Forward, codes: int) -> np.ndarray:
    counted = np.flatnonzero(made.counted)
    return counted[:: max(1, len(counted) * codes // _MOST_PAIRS)]


class Assignment(CodebookCheck):
    name = "assignment"
    question = "Do the indices agree with float64, in the quantizer's own metric?"
    measures = (
        "The nearest codes in float64 by Euclidean distance, cosine and dot product; the metric that explains the"
        " indices best is taken for the quantizer's own, ties are forgiven. Less than 98 % is a problem; it is named"
        " low precision where bfloat16 distances explain 3 % more."
    )
    matters = (
        "|z - e|^2 expanded in bfloat16 loses all its digits where latents and codes lie far from the origin: with an"
        " offset of ten spreads 5 % of the tokens get their nearest code, and most of the book looks dead."
    )
    advice = "Compute distances in float32, outside autocast, about the mean of the codes or by torch.cdist."
    source = "minyoungg/vqtorch nn/vq.py (half_precision on CUDA); IEEE 754"

    def look_at(self, seen: Seen) -> Iterator[Finding]:
        made, metric, share = judged(seen)
        if share >= 0.98:
            return
        few = _sample(made, seen.size)
        assert made.before is not None
        coarse = geometry.bfloat16_agreement(made.latents[few], made.before, made.indices[few])
        if share < 0.5 and coarse <= share + 0.03:
            raise CannotJudge("no distance explains its indices: they may be chosen by a network")
        why = "; distances in bfloat16 explain " + f"{coarse:.1%}" if coarse > share + 0.03 else ""
        yield self.found(
            f"{share:.1%} of the indices of {seen.place} are those of the nearest code, by {metric} as what explains"
            f" them best (n = {len(few):,}){why}",
            seen,
            share=share,
            metric=metric,
            bfloat16=coarse,
            tokens=len(few),
        )


class CosineLengths(CodebookCheck):
    name = "cosine-lengths"
    question = "Where codes are chosen by direction alone, do their lengths play no part either?"
    measures = (
        "The metric of the assignment; where it is cosine, the spread of the chosen codes' lengths over their mean."
        " Above 5 % is a warning."
    )
    matters = (
        "Lengths that the search does not see are still part of the losses and of what the decoder gets: two codes of"
        " one direction compete by nothing, and the losses pull at lengths that no choice depends on."
    )
    advice = "Normalise latents and codes for the losses and the output too, as ViT-VQGAN does."
    source = "descriptinc/descript-audio-codec#111, #114"

    def look_at(self, seen: Seen) -> Iterator[Finding]:
        made, metric, share = judged(seen)
        assert made.before is not None
        lengths = np.linalg.norm(made.before[np.unique(made.indices[made.counted])], axis=1)
        if metric != "cosine" or share < 0.98 or len(lengths) < 2:
            return
        uneven = float(lengths.std() / lengths.mean())
        if uneven > 0.05:
            yield self.found(
                f"{seen.place} chooses codes by cosine and hands them on with lengths that differ by {uneven:.0%}"
                f" ({len(lengths):,} codes)",
                seen,
                "warning",
                uneven=uneven,
                codes=len(lengths),
            )

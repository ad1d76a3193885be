"""Does the codebook learn, and towards its latents?"""

from collections.abc import Iterator

import numpy as np

from ...findings import Finding
from ..check import CannotJudge, CodebookCheck, called
from ..evidence import Seen
from .fits import attraction, codebook_pull


class CodebookGradient(CodebookCheck):
    name = "codebook-gradient"
    question = "Does anything move the codes: a gradient, or moving averages?"
    measures = (
        "Gradients of the parameters that the codes are made of, and how far the codes move in three steps. A problem:"
        " a parameter whose gradient is always zero or missing, or codes without one that do not move by themselves."
    )
    matters = (
        "A codebook that never learns is a random one. The encoder can learn to live with it, so the loss falls and"
        " many codes are used; the codes are simply in the wrong places, for good."
    )
    advice = (
        "Take the codebook loss mean (q - z.detach())^2 on q as it is looked up, before the straight-through sum and"
        " without detach; or update moving averages in training mode."
    )
    source = "EdoardoBotta/RQ-VAE-Recommender#24; lucidrains/vector-quantize-pytorch#20, #40, #84, #147"

    def look_at(self, seen: Seen) -> Iterator[Finding]:
        called(seen)
        if seen.fixed:
            raise CannotJudge("its codes are fixed by design")
        gradients = [holder.gradient for holder in seen.holders]
        if any(gradients) or (seen.moved and not any(g == 0 for g in gradients)):
            return  # what has no gradient and moves is moved by itself, or by an optimizer within its forward
        if seen.holders:
            kind = "is always zero" if 0.0 in gradients else "never has one"
            yield self.found(
                f"{seen.holders[0].path} learns by a gradient, which {kind} in {len(seen.gradients)} steps: the"
                " codebook loss is missing, detached, or taken on the straight-through output",
                seen,
                attribute=seen.holders[0].path,
            )
        elif not seen.tables:
            raise CannotJudge("it has no table of codes")
        else:
            yield self.found(
                f"the codes of {seen.place} stand still: they need no gradient, and {len(seen.tables) - 1} training"
                " steps did not move one",
                seen,
                attribute=seen.table,
            )


class Attraction(CodebookCheck):
    name = "attraction"
    question = "Are the codes pulled to their latents?"
    measures = (
        "The codes' gradient regressed on sum (e - z) over their latents, a problem where the slope is negative with R2"
        " above 0.99: a codebook loss alone gives 1, a decoder that reaches the codes has given 0.9. Or, where they"
        " have no gradient, their movement on (centroid - e), negative with R2 above 0.5."
    )
    matters = "A codebook loss of the wrong sign drives the codes away from the data: distances grow, then usage falls."
    advice = "Minimise mean (q - z.detach())^2, with a positive weight."
    source = "van den Oord et al. 2017 (arXiv:1711.00937), eq. 3"

    def look_at(self, seen: Seen) -> Iterator[Finding]:
        called(seen)
        slope, r2 = codebook_pull(seen)
        what, enough = "gradient", 0.99
        if np.isnan(r2):
            slope, r2, what, enough = *attraction(seen), "movement", 0.5
        if np.isnan(r2):
            raise CannotJudge("neither a gradient nor a movement of its codes could be read")
        if slope < 0 and r2 > enough:
            yield self.found(
                f"the codes of {seen.place} are driven away from their latents: slope {slope:.3g} of the {what}"
                f" (R2 {r2:.2f})",
                seen,
                attribute=seen.table,
                slope=slope,
                r2=r2,
            )

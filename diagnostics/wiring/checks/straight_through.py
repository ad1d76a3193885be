"""Does the decoder's gradient reach the encoder?"""

from collections.abc import Iterator

from ...findings import Finding
from ..check import CannotJudge, CodebookCheck, called
from ..evidence import Seen


class StraightThrough(CodebookCheck):
    name = "straight-through"
    question = "Does the decoder's gradient reach the encoder, past the choice of a code?"
    measures = (
        "The gradient that comes in at the quantized output, g_q, and the one that goes out at the latents, g_z, in"
        " three steps. Where g_z is zero, or explained by the quantizer's own losses alone (coefficient of g_q below"
        " 0.05 at R2 of 0.99 and more), nothing of the decoder arrives."
    )
    matters = (
        "argmin has no gradient. Without a straight-through estimator the encoder never hears of the reconstruction: it"
        " is trained by the commitment loss alone, or by nothing. Usage looks healthy all the same."
    )
    advice = "Return z + (q - z).detach(), and detach nothing else between decoder and encoder."
    source = "Bengio et al. 2013 (arXiv:1308.3432); yangdongchao/RSTnet#2; ritheshkumar95/pytorch-vqvae#14"

    def look_at(self, seen: Seen) -> Iterator[Finding]:
        called(seen)
        if seen.layer:
            raise CannotJudge("it is a later layer of a residual quantizer: the first one tells")
        first = seen.steps[0]
        if first.enters is None or first.leaves is None:
            raise CannotJudge("the ends of the quantizer cannot be reached")
        if not first.enters:
            raise CannotJudge("the latents carry no gradient: nothing before the quantizer learns")
        incoming = max((row.decoder_grad_norm or 0.0 for row in seen.boundary), default=0.0)
        outgoing = max((row.encoder_grad_norm or 0.0 for row in seen.boundary), default=0.0)
        if incoming == 0 and first.leaves:
            raise CannotJudge("the loss sends no gradient to the quantized output")
        names = {row.estimator for row in seen.boundary}
        if outgoing == 0 or names == {"none"} or not first.leaves:
            how = "carries no graph" if not first.leaves else f"gets a gradient of norm {incoming:.3g}"
            rest = "nothing" if outgoing == 0 else f"{outgoing:.3g}, of the quantizer's own losses"
            yield self.found(
                f"the decoder's gradient stops at {seen.place}: its output {how}, and the latents get {rest}",
                seen,
                decoder_grad_norm=incoming,
                encoder_grad_norm=outgoing,
                r2=max((row.straight_through_r2 or 0.0 for row in seen.boundary), default=None),
            )

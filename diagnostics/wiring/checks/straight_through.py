"""Does the decoder's gradient reach the encoder?"""

from collections.abc import Iterator

from ...findings import Finding
from ..check import CannotJudge, CodebookCheck, Skipped, called
from ..evidence import Seen, Trial


class StraightThrough(CodebookCheck):
    name = "straight-through"
    question = "Does the decoder's gradient reach the encoder, past the choice of a code?"
    measures = (
        "Everything that learns after the quantizers is changed, and the step repeated: where the gradients of what"
        " learns before them stay the same to the bit, nothing of the decoder arrives. Of each quantizer alone: the"
        " gradient g_q that comes in at its output and g_z that goes out at its latents, where g_z is zero or is"
        " explained by its own losses (coefficient of g_q below 0.05 at R2 of 0.99 and more)."
    )
    matters = (
        "argmin has no gradient. Without a straight-through estimator the encoder never hears of the reconstruction: it"
        " is trained by the commitment loss alone, or by nothing. Usage looks healthy all the same."
    )
    advice = "Return z + (q - z).detach(), and detach nothing else between decoder and encoder."
    source = "Bengio et al. 2013 (arXiv:1308.3432); yangdongchao/RSTnet#2; ritheshkumar95/pytorch-vqvae#14"

    def look(self, trial: Trial) -> Iterator[Finding | Skipped]:
        if trial.decoder_heard is not False:
            yield from super().look(trial)
            return
        for seen in trial.seen.values():
            if seen.steps and not seen.layer:
                yield self.found(
                    f"what learns after {seen.place} was changed, and no gradient before it changed by a bit: the"
                    " decoder's gradient does not reach the encoder",
                    seen,
                    parameters_before=len(trial.before),
                )

    def look_at(self, seen: Seen) -> Iterator[Finding]:
        called(seen)
        if seen.layer:
            raise CannotJudge("it is a later layer of a residual quantizer: the first one tells")
        first = seen.steps[0]
        if first.enters is False:
            raise CannotJudge("the latents carry no gradient: nothing before the quantizer learns")
        if not (seen.boundary and first.enters and first.leaves):
            raise CannotJudge("the gradients at its ends cannot be read")
        incoming = max(row.decoder_grad_norm or 0.0 for row in seen.boundary)
        outgoing = max(row.encoder_grad_norm or 0.0 for row in seen.boundary)
        if {row.estimator for row in seen.boundary} == {"none"} or (incoming > 0 and outgoing == 0):
            rest = "nothing" if outgoing == 0 else f"{outgoing:.3g}, of the quantizer's own losses"
            yield self.found(
                f"the decoder's gradient stops at {seen.place}: {incoming:.3g} comes in at its output, and the latents"
                f" get {rest}",
                seen,
                decoder_grad_norm=incoming,
                encoder_grad_norm=outgoing,
            )

"""Are the latents pulled to their codes, by how much, and by the right loss?"""

from collections.abc import Iterator

from ...findings import Finding
from ..check import CannotJudge, CodebookCheck, called
from ..evidence import Seen
from .fits import codebook_pull


def commitment(seen: Seen) -> float:
    """The measured commitment weight of the first step.

    Raises:
        CannotJudge: No known estimator explains the gradient.
    """
    called(seen)
    if seen.fixed:
        raise CannotJudge("its codes are fixed: losses of digits pull in other ways")
    row = next((row for row in seen.boundary if row.commitment is not None), None)
    if row is None or row.commitment is None:
        raise CannotJudge("no known estimator explains the gradient at the latents, or another loss shares in it")
    return row.commitment


class Commitment(CodebookCheck):
    name = "commitment"
    question = "Are the latents pulled to their codes?"
    measures = (
        "The weight of mean (z - sg[q])^2 that the gradient at the latents shows, in units of the mean over all its"
        " elements. Negative is a problem; below 1e-6 a warning."
    )
    matters = (
        "Latents that nothing holds grow away from their codes, which then follow one by one or not at all. A negative"
        " weight drives them away: it comes from a codebook loss that is taken behind the straight-through sum."
    )
    advice = "Add beta mean (z - q.detach())^2 to the loss, with beta around 0.25."
    source = "van den Oord et al. 2017 (arXiv:1711.00937), eq. 3"

    def look_at(self, seen: Seen) -> Iterator[Finding]:
        weight = commitment(seen)
        if weight < -1e-6:
            yield self.found(
                f"the latents are driven away from the codes of {seen.place}: weight {weight:.3g}",
                seen,
                commitment=weight,
            )
        elif weight < 1e-6:
            yield self.found(
                f"nothing pulls the latents to the codes of {seen.place}: weight {weight:.3g}",
                seen,
                "warning",
                commitment=weight,
            )


class CommitmentSide(CodebookCheck):
    name = "commitment-side"
    question = "Is it the encoder's side of the loss that is weighted by beta?"
    measures = (
        "The weight of the commitment loss at the latents over that of the codebook loss at the codes, both read off"
        " gradients of one step. Above 1.5 is a warning: papers have 0.25."
    )
    matters = (
        "In taming-transformers beta stands before the codebook term, and many copies kept it: the codes learn four"
        " times more slowly than meant, and the encoder is held four times more tightly."
    )
    advice = "Weight mean (z - q.detach())^2 by beta, not mean (q - z.detach())^2; in taming's code, legacy=False."
    source = "CompVis/taming-transformers#46, #57; TencentARC/SEED-Voken#60; bytedance/1d-tokenizer#95"

    def look_at(self, seen: Seen) -> Iterator[Finding]:
        encoder = commitment(seen)
        codebook, r2 = codebook_pull(seen)
        if not r2 > 0.9:
            raise CannotJudge("the codes have no gradient of a codebook loss alone")
        if codebook > 0 and encoder > 1.5 * codebook:
            yield self.found(
                f"the latents are pulled to the codes of {seen.place} with weight {encoder:.3g}, the codes to the"
                f" latents with {codebook:.3g}: beta stands on the codebook's side",
                seen,
                "warning",
                commitment=encoder,
                codebook_weight=codebook,
            )


class LossOnOutput(CodebookCheck):
    name = "loss-on-output"
    question = "Are the codebook's losses taken before the straight-through sum?"
    measures = (
        "With all that learns after the quantizers set to zero no gradient comes from a decoder: what is left at the"
        " quantized output is regressed on q - z. And the gradient of each loss that the quantizer returns, at its"
        " output and at its latents. A problem: R2 above 0.99 with a positive weight, a returned loss that goes through"
        " the output, or one that drives the latents straight away from their codes."
    )
    matters = (
        "q and z + sg[q - z] have equal values and opposite gradients. A codebook loss on the sum gives the codes"
        " nothing and pushes the latents away from them: norms run away and the book collapses within steps."
    )
    advice = "Compute the losses on q as it is looked up; form z + (q - z).detach() afterwards."
    source = "Olaf-World#8; jax-vqvae-gpt#2"

    def look_at(self, seen: Seen) -> Iterator[Finding]:
        called(seen)
        later = seen.layer is not None and not seen.last_layer  # whose losses pull at this one's output as well
        weight, r2 = (0.0, 0.0) if later or seen.output_pull is None else seen.output_pull
        if r2 > 0.99 and weight > 1e-6:
            yield self.found(
                f"a loss of weight {weight:.3g} pulls the output of {seen.place} to the latents that it was made of: it"
                " is taken on the straight-through sum, where it drives the latents away from their codes",
                seen,
                attribute=seen.table,
                weight=weight,
                r2=r2,
            )
            return
        for name, norm in seen.losses_on_output.items():
            yield self.found(
                f"{name} of {seen.place} is taken on the straight-through output, where its gradient has norm"
                f" {norm:.3g}",
                seen,
                attribute=seen.table,
                loss=name,
                norm=norm,
            )

"""Is the quantizer called at all, and does its call leave everything else alone?"""

from collections.abc import Iterator

import numpy as np

from ...findings import Finding
from ..check import CannotJudge, Check, CodebookCheck, Skipped, called
from ..evidence import Seen, Trial


class NeverCalled(CodebookCheck):
    name = "never-called"
    question = "Does the loss call the quantizer, in training mode?"
    measures = "Calls of the quantizer during three training steps; none in training mode is a problem."
    matters = (
        "Some models quantize only in `decode`, some skip the quantizer by default, and some set it to evaluation mode"
        " within. The loss then trains an autoencoder without a codebook, and reconstructions look fine."
    )
    advice = "Make the loss go through the quantizer, and call model.train() before training."
    source = "diffusers PaellaVQModel (force_not_quantize defaults to True); encodec EncodecModel.forward"

    def look_at(self, seen: Seen) -> Iterator[Finding]:
        if not seen.asked:
            raise CannotJudge("no batch was given")
        if seen.steps:
            return
        if seen.layer:
            raise CannotJudge("no step called this later layer: layers may be dropped at random")
        how = "calls it in evaluation mode only" if seen.called_in_eval else "never calls it"
        yield self.found(f"{seen.place} has {seen.size:,} codes, and the loss {how}", seen)


class GradientsLeft(Check):
    name = "gradients-left"
    question = "Does the forward pass leave the gradients of other parameters alone?"
    measures = (
        "Gradients that parameters have after a forward, before any backward pass of the loop; one on a parameter that"
        " is not the codebook's is a problem."
    )
    matters = (
        "A quantizer that moves its codes by an optimizer of its own runs a backward pass within its forward. Where the"
        " latents are not detached for it, that loss reaches the encoder too, and adds to its gradient unseen."
    )
    advice = "Detach the latents that the quantizer's own optimizer is given."
    source = "lucidrains/vector-quantize-pytorch#236"

    def look(self, trial: Trial) -> Iterator[Finding | Skipped]:
        if not trial.losses:
            yield Skipped(self.name, None, "no batch was given")
        own = {holder.path for seen in trial.seen.values() for holder in seen.holders}
        if left := [path for path in trial.gradients_left if path not in own]:
            by = None if trial.left_by is None else trial.seen.get(trial.left_by)
            others = f" and {len(left) - 1} more" if len(left) > 1 else ""
            yield self.found(
                f"the forward pass leaves a gradient on {left[0]}{others}, which no codebook is made of",
                by,
                parameters=left,
            )


class Finite(CodebookCheck):
    name = "finite"
    question = "Are latents, codes and the loss finite?"
    measures = (
        "Infinities and NaN in the loss, and in latents and codes of the first calls, over three training steps."
        " Latents that are NaN in all steps are left out: they are of quantizers that compare none with codes."
    )
    matters = "NaN latents all get the same code, and infinite distances compare equal: the codebook collapses at once."
    advice = "Find the first layer whose output is not finite; torch.autograd.set_detect_anomaly(True) helps."
    source = "IEEE 754: every comparison with NaN is false, so argmin returns the first index"

    def look(self, trial: Trial) -> Iterator[Finding | Skipped]:
        steps = [step for step, loss in enumerate(trial.losses, 1) if not np.isfinite(loss)]
        if steps:
            yield self.found(f"the loss is {trial.losses[steps[0] - 1]} at step {steps[0]}", attribute="the loss")
        yield from super().look(trial)

    def look_at(self, seen: Seen) -> Iterator[Finding]:
        called(seen)
        none = all(np.isnan(step.latents).all() for step in seen.steps)
        for step in seen.steps:
            drawn = {"codes": step.codes} if none else {"latents": step.latents, "codes": step.codes}
            for name, values in drawn.items():
                bad = ~np.isfinite(values[step.counted]).all(1)
                if bad.any():
                    yield self.found(f"{bad.mean():.1%} of the {name} at step {step.step} are not finite", seen)
                    return

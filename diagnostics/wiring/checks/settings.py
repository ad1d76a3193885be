"""Do the weights in a quantizer's settings do anything?"""

from collections.abc import Iterator

from ...findings import Finding
from ..check import CannotJudge, CodebookCheck, called
from ..evidence import Seen


class SettingsAct(CodebookCheck):
    name = "settings"
    question = "Does each weight in the quantizer's settings act on something that learns?"
    measures = (
        "Attributes such as commitment_weight, beta and orthogonal_reg_weight above zero, of the quantizer and of what"
        " it is inside, are doubled one by one in the same step. A problem: the loss changes and no gradient does. A"
        " warning: nothing changes at all."
    )
    matters = (
        "A regulariser on a buffer is a number in the log and nothing else; a weight that is stored and never read"
        " makes every sweep over it a sweep over noise."
    )
    advice = "Make what is regularised a parameter, or multiply the loss by the weight that the settings name."
    source = "lucidrains/vector-quantize-pytorch#12; EdoardoBotta/RQ-VAE-Recommender#31"

    def look_at(self, seen: Seen) -> Iterator[Finding]:
        called(seen)
        if not seen.weights:
            raise CannotJudge(seen.not_done.get("weights", "it has no weight above zero among its settings"))
        for weight in seen.weights:
            if weight.gradients:
                continue
            what, severity = (
                ("changes the loss and no gradient", "problem")
                if weight.loss
                else ("changes neither the loss nor a gradient", "warning")
            )
            yield self.found(
                f"{weight.path} = {weight.value:g} acts on nothing that learns: doubling it {what}",
                seen,
                severity,  # type: ignore[arg-type]
                attribute=weight.path,
                value=weight.value,
            )

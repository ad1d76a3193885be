"""Do the weights in a model's settings do anything?"""

from collections.abc import Iterator

from ...findings import Finding
from ..check import Check, Skipped
from ..evidence import Seen, Trial, Weight


class SettingsAct(Check):
    name = "settings"
    question = "Does each weight in the model's settings act on something that learns?"
    measures = (
        "Numbers above zero that modules hold under names such as commitment_weight, beta and orthogonal_reg_weight are"
        " doubled one by one in the same step. A problem: the loss changes and no gradient does. A warning: nothing"
        " changes at all, and no equal number of that name elsewhere acts in its place."
    )
    matters = (
        "A regulariser on a buffer is a number in the log and nothing else; a weight that is stored and never read"
        " makes every sweep over it a sweep over noise."
    )
    advice = "Make what is regularised a parameter, or multiply the loss by the weight that the settings name."
    source = "lucidrains/vector-quantize-pytorch#12; EdoardoBotta/RQ-VAE-Recommender#31"

    def look(self, trial: Trial) -> Iterator[Finding | Skipped]:
        if not trial.weights:
            why = trial.not_done.get("repetition", "no weight above zero among the settings")
            yield Skipped(self.name, None, why if trial.losses else "no batch was given")
        acting = {_key(weight) for weight in trial.weights if weight.gradients}
        for weight in trial.weights:
            seen = _owner(weight, trial)
            if seen is not None and not seen.steps:
                continue  # of a quantizer that is never called nothing acts
            if weight.loss and not weight.gradients:
                yield self.found(
                    f"{_told(weight)}: doubling it changes the loss and no gradient",
                    seen,
                    attribute=weight.path,
                    file=weight.file,
                )
            elif not weight.gradients and _key(weight) not in acting:
                yield self.found(
                    f"{_told(weight)}: doubling it changes neither the loss nor a gradient",
                    seen,
                    "warning",
                    attribute=weight.path,
                    file=weight.file,
                )


def _told(weight: Weight) -> str:
    return f"{weight.path} = {weight.value:g} acts on nothing that learns"


def _key(weight: Weight) -> tuple[str, float]:
    """What copies of one setting have in common: an outer module hands it to an inner one."""
    return weight.path.rpartition(".")[2], weight.value


def _owner(weight: Weight, trial: Trial) -> Seen | None:
    """The codebook in whose quantizer the weight is."""
    return next((s for s in trial.seen.values() if s.path and weight.path.startswith(f"{s.path}.")), None)

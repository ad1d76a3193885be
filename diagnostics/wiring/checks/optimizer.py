"""Who moves the parameters of the codebook, and what else does it do to them?"""

import math
from collections.abc import Iterator

import numpy as np

from ...findings import Finding
from ..check import CannotJudge, CodebookCheck, Skipped
from ..evidence import Holder, Seen, Trial

#: Steps over which weight decay is reckoned.
_STEPS = 10_000


class _OfOptimizer(CodebookCheck):
    """A check that needs an optimizer which was passed."""

    def look(self, trial: Trial) -> Iterator[Finding | Skipped]:
        if trial.optimizer is None:
            yield Skipped(self.name, None, "no optimizer was passed")
        else:
            yield from super().look(trial)


class InOptimizer(_OfOptimizer):
    name = "optimizer"
    question = "Is every parameter of the codebook in an optimizer, with a learning rate above zero?"
    measures = (
        "The groups of the optimizers that were passed; a parameter with lr 0 is a problem, and so is one in no group,"
        " unless its codes move all the same."
    )
    matters = (
        "A codebook that was left out stands still while its gradient looks healthy. It happens where an embedding is"
        " made anew after the optimizer was, or where an optimizer is given the encoder and the decoder by name."
    )
    advice = "Add the parameter to a group, or pass all optimizers of the loop as a list."
    source = "lucidrains/magvit2-pytorch#4"

    def look_at(self, seen: Seen) -> Iterator[Finding]:
        if not seen.holders:
            raise CannotJudge("no parameter moves its codes")
        for holder in seen.holders:
            if not holder.optimized and not seen.moved:
                yield self.found(f"{holder.path} is in no optimizer that was passed", seen, attribute=holder.path)
            elif holder.lr == 0:
                yield self.found(f"{holder.path} has a learning rate of 0", seen, attribute=holder.path, lr=0.0)


class WeightDecay(_OfOptimizer):
    name = "weight-decay"
    question = "Does weight decay leave codes alone that have no hits?"
    measures = (
        f"lr and weight decay of the table's group: what a code without a gradient loses of its length in {_STEPS:,}"
        " steps, with decay taken off directly or through Adam's normalisation. Above 10 % is a warning."
    )
    matters = (
        "A code without hits has no gradient, but weight decay pulls it to the origin all the same, and under Adam with"
        " coupled decay by a full learning rate a step: dead codes end up in one heap, from where none comes back."
    )
    advice = "Put the codebook into a group of its own with weight_decay=0."
    source = "Loshchilov and Hutter 2019 (arXiv:1711.05101), on coupled and decoupled decay"

    def look_at(self, seen: Seen) -> Iterator[Finding]:
        tables = [holder for holder in seen.holders if holder.table]
        if not tables or not seen.tables:
            raise CannotJudge("no table of codes is in an optimizer")
        for holder in tables:
            lost = _lost(holder, float(np.median(np.linalg.norm(seen.tables[0], axis=1))), seen.tables[0].shape[1])
            if lost > 0.1:
                kind = "decoupled" if holder.decoupled else "coupled, through Adam"
                yield self.found(
                    f"{holder.path} has weight decay {holder.weight_decay:g} ({kind}) at lr {holder.lr:g}: a code"
                    f" without hits loses {lost:.0%} of its length in {_STEPS:,} steps",
                    seen,
                    "warning",
                    attribute=holder.path,
                    lr=holder.lr,
                    weight_decay=holder.weight_decay,
                    lost=lost,
                )


def _lost(holder: Holder, length: float, dim: int) -> float:
    """Share of its length that a code without a gradient loses; ``length`` is what it has."""
    if not holder.lr or not holder.weight_decay:
        return 0.0
    if holder.decoupled:
        return -math.expm1(_STEPS * math.log1p(-min(holder.lr * holder.weight_decay, 0.999)))
    return min(1.0, holder.lr * math.sqrt(dim) * _STEPS / max(length, 1e-12))

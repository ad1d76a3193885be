"""The checks of the lint, by name, in the order in which their findings matter."""

from ..check import Check
from .assignment import Assignment, CosineLengths
from .averages import MovingAverages, PlantedCode, Reset
from .calls import Finite, GradientsLeft, NeverCalled
from .commitment import Commitment, CommitmentSide, LossOnOutput
from .learning import Attraction, CodebookGradient
from .optimizer import InOptimizer, WeightDecay
from .parity import RoundTrip, TrainEval
from .replicas import Replicas
from .residual import ResidualCommitment
from .settings import SettingsAct
from .start import DuplicatesAtStart, OffsetAtStart, RankAtStart, ScaleAtStart
from .straight_through import StraightThrough

#: What is wrong with the wiring comes before what is wrong with the start.
CHECKS: dict[str, Check] = {
    check.name: check
    for check in (
        NeverCalled(),
        Finite(),
        StraightThrough(),
        CodebookGradient(),
        LossOnOutput(),
        Attraction(),
        Commitment(),
        CommitmentSide(),
        InOptimizer(),
        WeightDecay(),
        TrainEval(),
        RoundTrip(),
        Assignment(),
        CosineLengths(),
        MovingAverages(),
        Reset(),
        PlantedCode(),
        ResidualCommitment(),
        SettingsAct(),
        GradientsLeft(),
        Replicas(),
        ScaleAtStart(),
        OffsetAtStart(),
        RankAtStart(),
        DuplicatesAtStart(),
    )
}

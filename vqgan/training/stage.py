"""What the trainer asks of a stage, and what stages have in common."""

from typing import Any, NamedTuple, Protocol

from lightning_fabric import Fabric

from ...diagnostics import Sink
from ..data.batches import Batches, Drawn
from .learner import Learner, Losses
from .logbook import Logbook, SampleGrid
from .settings import RunConfig


def open_batches(fabric: Fabric, config: RunConfig, split: Drawn) -> Batches:
    """The batches of a run, and of them this rank's share."""
    train = config.train
    rank, ranks = fabric.global_rank, fabric.world_size
    return Batches(split, train.batch_size, train.seed, ranks, rank, train.accumulate, config.data.flip)


class Look(NamedTuple):
    """What a look at the validation split saw."""

    values: dict[str, float]
    """Figures by name."""
    score: float
    """The lower, the better; the best checkpoint is kept."""
    grids: list[SampleGrid]


class Draws(Protocol):
    """Where the batches come from."""

    steps_per_epoch: float


class Stage(Protocol):
    """What a run trains: its data, its learner, and what there is to see of them."""

    @property
    def learner(self) -> Learner[Any]: ...

    @property
    def batches(self) -> Draws: ...

    def start(self) -> None:
        """Before the first step of a new run."""
        ...

    def sinks(self, logbook: Logbook) -> list[Sink]:
        """Where the instrument's records go."""
        ...

    def step(self, number: int) -> Losses:
        """Optimizer step ``number`` (from 0): the unweighted losses by name, on the device."""
        ...

    def status(self) -> str:
        """What the progress line shows besides losses."""
        ...

    def look(self, step: int) -> Look:
        """Look at the validation split; first rank only."""
        ...

    def finish(self, logbook: Logbook, step: int) -> dict[str, Any]:
        """The evaluation of the test split, as ``evaluation-test.json`` keeps it; every rank. Files by the first."""
        ...

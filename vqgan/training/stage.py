"""What the trainer asks of a stage, and what stages have in common."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from ...diagnostics import RunDirectory, Sink
from ..data.batches import Batches, Drawn
from .settings import RunConfig

#: Losses by name, each ().
Losses = dict[str, Tensor]


def open_batches(fabric: Fabric, config: RunConfig, split: Drawn) -> Batches:
    """The batches of a run, and of them this rank's share."""
    train = config.train
    rank, ranks = fabric.global_rank, fabric.world_size
    return Batches(split, train.batch_size, train.seed, ranks, rank, train.accumulate, config.data.flip)


class SampleGrid(NamedTuple):
    """What a look shows: the stem of its file, its title, and its pixels (3, height, width) in [0, 1]."""

    name: str
    title: str
    pixels: Tensor


class Look(NamedTuple):
    """What a look at the validation split saw."""

    values: dict[str, float]
    """Figures by name."""
    score: float
    """The lower, the better; the best checkpoint is kept."""
    pictures: list[SampleGrid]


class Watch(Protocol):
    """An instrument: ``CodebookMonitor``, ``TokenMonitor``."""

    sinks: list[Sink]

    def flush(self) -> None: ...
    def close(self) -> None: ...
    def detach(self) -> None: ...


class Learns(Protocol):
    """Everything that a step changes."""

    optimizer: Any

    @property
    def monitor(self) -> Watch: ...
    def parameters_trained(self) -> int: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any], load_weights: Callable[[nn.Module, Any], None]) -> None: ...


class Draws(Protocol):
    """Where the batches come from."""

    steps_per_epoch: float


class Stage(Protocol):
    """What a run trains: its data, its learner, and what there is to see of them."""

    @property
    def learner(self) -> Learns: ...

    @property
    def batches(self) -> Draws: ...

    def start(self) -> None:
        """Before the first step of a new run."""
        ...

    def sinks(self, run: RunDirectory, writer: SummaryWriter | None, resume_at: int | None) -> list[Sink]:
        """Where the instrument's records go; first rank only."""
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

    def finish(self, run: RunDirectory, writer: SummaryWriter | None, step: int) -> dict[str, Any]:
        """The evaluation of the test split, as ``evaluation-test.json`` keeps it; every rank. Files by the first."""
        ...

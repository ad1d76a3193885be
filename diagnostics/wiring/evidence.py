"""What the experiments of the lint saw, as arrays: what checks judge. Nothing here needs torch."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..recording.rows import BoundaryRow, GeometryRow

Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Forward:
    """One call of a quantizer.

    Attributes:
        step: The training step that it was of, counted from 1; 0 for a call made again.
        indices: (N,) code of each token; negative for one that was dropped or padded.
        latents: (N, D) what was quantized, in the space of the codes.
        codes: (N, D) the assigned codes as the call used them.
        quantized: (N, D) what went on to the decoder, in the space of the codes; None where it cannot be read.
        before: (K, D) the codes before the call; None where there is no table.
        after: (K, D) the codes after it.
        enters: Whether the latents carry a graph, so that a gradient can leave to the encoder; None: not known.
        leaves: Whether the quantized output carries one; None: not known.
    """

    step: int
    indices: NDArray[np.int64]
    latents: Rows
    codes: Rows
    quantized: Rows | None = None
    before: Rows | None = None
    after: Rows | None = None
    enters: bool | None = None
    leaves: bool | None = None

    @property
    def counted(self) -> NDArray[np.bool_]:
        """(N,) the tokens that were not dropped."""
        return self.indices >= 0


class Holder(NamedTuple):
    """A parameter that the codes are made of, and who moves it.

    Attributes:
        path: Its path in the model.
        table: Whether it is the table of codes itself, and no network behind or before it.
        gradient: Largest absolute gradient over the steps; None where there never was one.
        optimized: Whether an optimizer holds it.
        lr: Its learning rate there, None where it is not in one.
        weight_decay: Its weight decay there.
        decoupled: Whether the decay is taken off the parameter (AdamW, SGD), or goes through Adam's normalisation.
    """

    path: str
    table: bool
    gradient: float | None
    optimized: bool
    lr: float | None = None
    weight_decay: float = 0.0
    decoupled: bool = True


class Averages(NamedTuple):
    """The moving averages of a codebook at one moment: codes e (K, D), sums m (K, D), counts N (K,)."""

    codes: Rows
    sums: Rows
    counts: Rows


class Entry(NamedTuple):
    """What a function of the quantizer that takes indices gave for those of an evaluated call.

    Attributes:
        method: Its path in the model.
        difference: Largest difference from what the call itself handed on; None where nothing could be compared.
        scale: Largest value of what the call handed on.
        why: Why it could not be compared.
    """

    method: str
    difference: float | None
    scale: float = 1.0
    why: str = ""


class Weight(NamedTuple):
    """What doubling one weight among a model's settings does.

    Attributes:
        path: Its path in the model.
        file: Where the class that holds it is written.
        value: As it is.
        loss: Whether the loss changes.
        gradients: Whether the gradient of any parameter does.
    """

    path: str
    file: str
    value: float
    loss: bool
    gradients: bool


class Revival(NamedTuple):
    """What became of a code that was taken far away, in a quantizer with a revival of its own.

    Attributes:
        setting: The setting that tells of the revival, with its path.
        value: As it is.
        calls: Training calls that followed.
        landed: The call after which the code lay on a latent; None where it never did.
        stayed: Whether it was still among the latents after the next call; None where there was none.
    """

    setting: str
    value: float
    calls: int
    landed: int | None
    stayed: bool | None


class Planted(NamedTuple):
    """What became of a code that was written onto a latent: the share of the way back to where it was.

    Attributes:
        alone: Written into the table alone.
        with_averages: Written with its sum and count; None for a codebook that keeps none.
    """

    alone: float
    with_averages: float | None


@dataclass
class Seen:
    """Everything that was seen of one codebook.

    Attributes:
        name: The codebook's name.
        path: Path of its quantizer in the model; empty for the model itself.
        kind: Class of the quantizer.
        file: Where that class is written, ``file.py:12``.
        table: Path of the parameter or buffer that holds the codes; that of the quantizer where there is none.
        size: K.
        levels: Of an implicit codebook, else None.
        fixed: Whether its codes are meant never to move.
        layer: Which layer of a residual quantizer it is, counted from 0; None for no such layer.
        last_layer: Whether it is the last one.
        steps: Training calls, the first of each step that had one.
        asked: Whether training steps were taken at all.
        called_in_eval: Whether the loss called it in evaluation mode only.
        boundary: Rows of the steps in which gradients passed.
        start: Geometry at the first call.
        tables: (K, D) codes before the first step and after each; empty where there is no table.
        gradients: (K, D) gradient of the codes in each step, None where they have none.
        holders: The parameters that the codes are made of.
        output_pull: Weight w of w mean |output - sg[z]|^2 that the gradient at the output is, and the R2, while the
            decoder hands on no gradient; None where that could not be tried.
        losses_on_output: By name the gradient norms, at the quantized output, of losses that the quantizer returned.
        to_encoder: Of a later layer: norm of what a gradient of noise at its latents gives the parameters before the
            quantizer, over the same for the first layer; None where nothing before the quantizer learns.
        averages_path: Path of the module that keeps moving averages.
        averages: Before the first step and after each; empty for a codebook that keeps none.
        averages_begun: Whether they held something before the first step.
        training: Two calls on the same latents in training mode with other random numbers; empty where not replayed.
        evaluation: The same in evaluation mode.
        entries: What functions that take indices gave.
        revival: What became of a code taken far away.
        planted: What became of a code that was written by hand; None where it could not be tried.
        ranks_apart: Largest difference between ranks in its codes after the steps, over their largest absolute value;
            None outside a group. The steps tell of the tokens of all ranks, unless their codes have parted.
        not_done: Experiments that could not be done: name -> why.
    """

    name: str
    path: str
    kind: str
    file: str
    table: str
    size: int
    levels: tuple[int, ...] | None
    fixed: bool
    layer: int | None = None
    last_layer: bool = False
    steps: list[Forward] = field(default_factory=list)
    asked: bool = True
    called_in_eval: bool = False
    boundary: list[BoundaryRow] = field(default_factory=list)
    start: GeometryRow | None = None
    tables: list[Rows] = field(default_factory=list)
    gradients: list[Rows | None] = field(default_factory=list)
    holders: list[Holder] = field(default_factory=list)
    output_pull: tuple[float, float] | None = None
    losses_on_output: dict[str, float] = field(default_factory=dict)
    to_encoder: float | None = None
    averages_path: str = ""
    averages: list[Averages] = field(default_factory=list)
    averages_begun: bool = False
    training: list[Forward] = field(default_factory=list)
    evaluation: Forward | None = None
    entries: list[Entry] = field(default_factory=list)
    revival: Revival | None = None
    planted: Planted | None = None
    ranks_apart: float | None = None
    not_done: dict[str, str] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """How a sentence names the quantizer."""
        return self.path or "the model itself"

    @property
    def tokens(self) -> int:
        """Tokens of the first step's call."""
        return int(self.steps[0].counted.sum()) if self.steps else 0

    @property
    def spread(self) -> float:
        """Root mean square distance of the first call's latents from their mean."""
        latents = self.steps[0].latents[self.steps[0].counted]
        return float(np.sqrt(np.square(latents - latents.mean(0)).sum(1).mean()))

    @property
    def moved(self) -> bool:
        """Whether the codes are others after the steps than before."""
        return bool(self.tables) and not np.array_equal(self.tables[0], self.tables[-1])

    @property
    def parted(self) -> bool:
        """Whether the ranks of a group have different codes after the steps: by more than rounding."""
        return self.ranks_apart is not None and self.ranks_apart > 1e-4

    @property
    def random(self) -> bool:
        """Whether two training calls on the same latents choose other codes, or hand on something else."""
        if len(self.training) < 2:
            return False
        one, other = self.training
        if not np.array_equal(one.indices, other.indices):
            return True
        if one.quantized is None or other.quantized is None:
            return False
        return not np.allclose(one.quantized, other.quantized, atol=1e-5)

    @property
    def where(self) -> dict[str, Any]:
        """Where to look: evidence that every finding carries."""
        return {"attribute": self.place, "class": self.kind, "file": self.file}


@dataclass
class Trial:
    """What three training steps on a copy showed.

    Attributes:
        seen: The codebooks by name.
        losses: The loss at each step.
        gradients_left: Parameters that had a gradient after the forward, before any backward pass of the loop.
        before: Names of the parameters that the quantizers' inputs depend on.
        left_by: The first codebook after whose call one had.
        decoder_heard: Whether the gradient of what learns before the quantizers depends on what learns after them;
            None where nothing learns on one of the sides.
        weights: What doubling the model's weights does.
        not_done: Experiments on the whole model that could not be done: name -> why.
        optimizer: Class of the optimizer that was passed; None where the lint took one of its own.
    """

    seen: dict[str, Seen]
    losses: list[float]
    gradients_left: list[str]
    optimizer: str | None
    before: set[str] = field(default_factory=set)
    left_by: str | None = None
    decoder_heard: bool | None = None
    weights: list[Weight] = field(default_factory=list)
    not_done: dict[str, str] = field(default_factory=dict)

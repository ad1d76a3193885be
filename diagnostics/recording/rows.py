"""What is recorded of a codebook as a whole: one row of a table each, where a record has a row for every code."""

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

#: The least R2 under which an estimator is named.
NAMED_FROM = 0.99


def column(unit: str, meaning: str) -> Any:
    """A column of a table, null where it was not measured."""
    return field(default=None, metadata={"unit": unit, "meaning": meaning})


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of ``RUN/TABLE/CODEBOOK``.

    Attributes:
        table: The table that it is of.
        cost: When it is measured, and what that costs.
        before: Whether ``step`` counts the steps before the forward that it is measured in.
        codebook: What it is measured of.
        step: The optimizer step, counted from 1, in which it was measured, or which closed its window.
    """

    table: ClassVar[str]
    cost: ClassVar[str]
    before: ClassVar[bool] = False

    codebook: str
    step: int

    @classmethod
    def columns(cls) -> dict[str, tuple[str, str]]:
        """Unit and meaning of each column, in their order on disk, without ``step``."""
        return {f.name: (f.metadata["unit"], f.metadata["meaning"]) for f in fields(cls) if f.metadata}

    @property
    def place(self) -> str:
        """Where its numbers stand among those of other rows, such as ``boundary/quantize``."""
        return f"{self.table}/{self.codebook}"

    def scalars(self) -> dict[str, float]:
        """Its numbers by their full names, such as ``boundary/quantize/ratio``, without what was not measured."""
        values = {name: getattr(self, name) for name in self.columns()}
        return {
            f"{self.place}/{name}": float(value) for name, value in values.items() if isinstance(value, int | float)
        }


@dataclass(frozen=True, kw_only=True)
class BoundaryRow(Row):
    """What enters the quantizer's graph from the decoder and what leaves it to the encoder, in one optimizer step.

    Norms are those of the gradients of the loss with respect to all N tokens of the step, in the space of the codes.
    """

    table = "boundary"
    cost = "steps 1 to 4, then every tenth; O(tokens x D)"

    tokens: int | None = column("tokens", "N, the tokens of the step, over all ranks and micro-batches")
    decoder_grad_norm: float | None = column("loss / latent", "|g_q|, norm of the gradient at the quantized output")
    encoder_grad_norm: float | None = column("loss / latent", "|g_z|, norm of the gradient at the latents")
    difference_norm: float | None = column("loss / latent", "|g_z - g_q|, what the quantizer's own losses add")
    ratio: float | None = column("1", "|g_z| / |g_q|")
    cosine: float | None = column("1", "cosine of the angle between g_z and g_q, over all tokens")
    estimator: str | None = column(
        "name",
        f"the candidate with the largest R2 where that is {NAMED_FROM} or more; none where its gain is below 0.05",
    )
    straight_through_r2: float | None = column("1", "R2 of g_z regressed on (g_q, z - q)")
    cosine_r2: float | None = column("1", "the same, both carried back through z / |z|")
    rotation_r2: float | None = column("1", "the same, g_q carried back by the rotation from z to q, scaled |q| / |z|")
    gain: float | None = column("1", "coefficient of the decoder's gradient under the best candidate; 0: none arrives")
    pull: float | None = column(
        "loss / latent^2",
        "coefficient of z - q under the best candidate; null where another loss shares in what g_q leaves of g_z",
    )
    commitment: float | None = column("1", "pull * N D / 2: the weight of a commitment loss mean |z - sg q|^2")
    commitment_grad_norm: float | None = column("loss / latent", "|pull (z - q)|: what pulls the encoder to the codes")
    loss_scale: float | None = column("1", "what a gradient scaler multiplied the loss by; the norms are without it")


@dataclass(frozen=True, kw_only=True)
class MovementRow(Row):
    """How the codes moved in one optimizer step, and what moved them."""

    table = "movement"
    cost = "steps 2 to 4, then every tenth; O(K x D)"

    moved_mean: float | None = column("latent", "mean over codes of |e after the step - e before its forward|")
    moved_median_used: float | None = column("latent", "median of the same over codes with hits in the step")
    moved_max: float | None = column("latent", "largest of the same")
    moved_share: float | None = column("share", "codes that moved at all")
    grad_share: float | None = column("share", "codes with a gradient that is not zero; null where codes have none")
    attraction: float | None = column(
        "1", "slope of the movement of used codes regressed on (centroid of the step's latents - code), by hits"
    )
    attraction_r2: float | None = column("1", "R2 of that regression through the origin")
    code_velocity: float | None = column(
        "latent / step", "median movement a step, since the last look, of the 256 codes with the most hits at it"
    )
    centroid_velocity: float | None = column("latent / step", "the same of the centroids of their latents")
    in_optimizer: bool | None = column("yes / no", "whether an optimizer holds what moves the codes")
    lr: float | None = column("latent / step", "its learning rate there")
    weight_decay: float | None = column("1 / step", "its weight decay there")
    attached_late: bool | None = column("yes / no", "whether the optimizer had taken steps before the instrument came")


@dataclass(frozen=True, kw_only=True)
class LatentsRow(Row):
    """The latents of one window, all tokens over all ranks."""

    table = "latents"
    cost = "every forward; O(tokens x D)"

    window: int | None = column("steps", "optimizer steps that the window covers")
    forwards: int | None = column("forwards", "forwards counted in it")
    tokens: int | None = column("tokens", "tokens counted in it")
    mean_norm: float | None = column("latent", "mean of |z|")
    centre_norm: float | None = column("latent", "|mean of z|")
    spread: float | None = column("latent", "sqrt of the mean of |z - mean z|^2")
    mean: tuple[float, ...] | None = column("latent", "mean of z, dimension by dimension")
    second_moment: tuple[float, ...] | None = column("latent^2", "mean of z^2, dimension by dimension")
    churn: float | None = column("share", "tokens of the reference batch whose code changed since the previous record")
    encoder_drift: float | None = column(
        "1", "mean movement of the reference batch's latents since the previous record, over their spread"
    )


@dataclass(frozen=True, kw_only=True)
class GeometryRow(Row):
    """How a sample of latents and the whole codebook lie to each other; the sample is kept as a snapshot.

    ``step`` counts the optimizer steps before it: 0 is the first training forward.
    """

    table = "geometry"
    cost = "after 0, 1, 10, 40, 160, 640 and so on steps; O(sample x K x D)"
    before = True

    sample: int | None = column("tokens", "latents in the sample")
    scale: float | None = column("1", "median |e| over mean |z|")
    spread_ratio: float | None = column("1", "spread of the codes over spread of the latents")
    offset: float | None = column("1", "|mean z - mean e| over the spread of the latents")
    effective_rank: float | None = column("dimensions", "exp of the entropy of the latents' covariance spectrum")
    effective_rank_used: float | None = column("dimensions", "the same of the codes that the sample uses")
    cover: int | None = column("balls", "balls of 0.3 spread, centred on latents, that cover the sample")
    identical: float | None = column("share", "latents that are equal to another one of the sample")
    codes_reached: int | None = column("codes", "codes that are nearest to a latent of the sample")
    dead_reach: float | None = column(
        "1", "median over codes without hits of the distance to the nearest latent, over the median |z - q|"
    )
    duplicates: float | None = column("share", "codes closer to another than 0.001 spreads of the latents")
    bias_share: float | None = column("share", "of the mean |z - q|^2 that is |centroid - code|^2")
    quantization_error: float | None = column("1", "mean |z - q|^2 over the latents' mean |z - mean z|^2")
    metric: str | None = column("name", "distance that explains the assignments best: euclidean, cosine, dot product")
    float64_agreement: float | None = column(
        "share", "assignments that are nearest in float64 under that metric, ties forgiven"
    )
    bfloat16_agreement: float | None = column("share", "assignments that are nearest in bfloat16, ties forgiven")


@dataclass(frozen=True, kw_only=True)
class TermRow(Row):
    """What one term of the loss asks of the encoder, in one optimizer step; only where the terms were named."""

    table = "terms"
    cost = "steps 1 to 4, then every hundredth; a backward pass to the latents for each term"

    term: str | None = column("name", "as its user named it")
    weight: float | None = column("1", "by which it enters the loss")
    value: float | None = column("loss", "before weighting")
    grad_norm: float | None = column("loss / latent", "norm of its gradient at the latents, before weighting")
    weighted_grad_norm: float | None = column("loss / latent", "the same times the weight")

    @property
    def place(self) -> str:
        return f"{super().place}/{self.term}"


@dataclass(frozen=True, kw_only=True)
class DigitsRow(Row):
    """The codes of an implicit codebook (FSQ, LFQ, BSQ) in one window, digit by digit.

    Of more than 2^18 codes it is all that is counted; a code is then seen by a bucket of 2^20 that it is hashed to.
    """

    table = "digits"
    cost = "every forward; O(tokens x digits)"

    window: int | None = column("steps", "optimizer steps that the window covers")
    forwards: int | None = column("forwards", "forwards counted in it")
    tokens: int | None = column("tokens", "tokens counted in it")
    levels: tuple[int, ...] | None = column("values", "values of each digit, least significant first; 2 for a bit")
    hits: tuple[int, ...] | None = column("tokens", "tokens by value, the values of the first digit first")
    codes_seen: float | None = column("codes", "distinct codes in the window, by linear counting where hashed")
    counted_exactly: bool | None = column("yes / no", "whether every code was counted rather than hashed")


#: Every table that a run has besides its trace, by its name.
TABLES: dict[str, type[Row]] = {
    kind.table: kind for kind in (BoundaryRow, MovementRow, LatentsRow, GeometryRow, DigitsRow, TermRow)
}

"""Snapshots: a sample of latents with the whole codebook, and what their geometry says.

What has to do with tensors is imported where it is used: who reads a snapshot does not wait for torch.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..errors import InputError
from ..stats import geometry
from .parquet import read_columns, write_table
from .rows import GeometryRow

if TYPE_CHECKING:
    from ..probes import CodebookReading

FloatRows = NDArray[np.float32]

#: Pairs of a latent and a code that assignments are judged by, and of codes that duplicates are sought among.
MOST_PAIRS = 2_000_000


@dataclass(frozen=True)
class Snapshot:
    """Latents and codes at one moment.

    Attributes:
        codebook: Name of the codebook.
        step: Optimizer steps taken before; 0 is the first training forward.
        latents: (n, D) a sample of one forward's latents on the first rank, evenly spaced, in the space of the codes.
        indices: (n,) their codes.
        assigned: (n, D) those codes as the forward used them.
        codes: (K, D) the codebook before the forward, of the first one at its end; None where it has no table.
    """

    codebook: str
    step: int
    latents: FloatRows
    indices: NDArray[np.int64]
    assigned: FloatRows
    codes: FloatRows | None

    @classmethod
    def take(cls, codebook: str, step: int, reading: "CodebookReading", codes: Any, most: int) -> "Snapshot":
        """A snapshot of at most ``most`` latents of a forward; the host waits for the device."""
        from .sums import on_host

        counted = reading.counted.nonzero()[:, 0]
        taken = counted[np.unique(np.linspace(0, len(counted) - 1, min(most, len(counted))).astype(int)).tolist()]
        values = (t[taken].float() for t in (reading.latents, reading.codes))
        latents, assigned = (on_host(value) for value in values)
        table = None if codes is None else on_host(codes.float())
        return cls(codebook, step, latents, on_host(reading.indices[taken]), assigned, table)


def geometry_row(snapshot: Snapshot) -> GeometryRow:
    """What the geometry of a snapshot says; columns that need a table of codes are null without one.

    All are null where a latent or a code is not finite: there is no geometry then.
    """
    drawn = (snapshot.latents, snapshot.assigned, snapshot.codes)
    if not all(values is None or np.isfinite(values).all() for values in drawn):
        return GeometryRow(codebook=snapshot.codebook, step=snapshot.step, sample=len(snapshot.latents))
    z, indices = snapshot.latents, snapshot.indices
    unit = geometry.spread(z)
    errors = np.linalg.norm(z - snapshot.assigned, axis=1)
    values: dict[str, Any] = {
        "effective_rank": geometry.effective_rank(z),
        "cover": geometry.cover_number(z),
        "identical": geometry.identical_share(z),
        "bias_share": geometry.bias_share(z, snapshot.assigned, indices),
        "quantization_error": float(np.square(errors).mean()) / unit**2 if unit > 0 else math.nan,
        "effective_rank_used": geometry.effective_rank(np.unique(snapshot.assigned, axis=0)),
    }
    if snapshot.codes is not None:
        values |= _with_table(z, indices, snapshot.codes, unit, float(np.median(errors)))
        values |= _agreements(snapshot, snapshot.codes)
    known: dict[str, Any] = {name: value for name, value in values.items() if value == value}  # NaN: not there
    return GeometryRow(codebook=snapshot.codebook, step=snapshot.step, sample=len(z), **known)


def _with_table(
    z: FloatRows, indices: NDArray[np.int64], codes: FloatRows, unit: float, error: float
) -> dict[str, Any]:
    squares = geometry.squared_distances(z, codes)
    used = np.zeros(len(codes), bool)
    used[indices] = True
    return {
        "scale": geometry.scale(z, codes),
        "spread_ratio": geometry.spread(codes) / unit if unit > 0 else math.nan,
        "offset": geometry.offset(z, codes),
        "codes_reached": len(np.unique(squares.argmin(1))),
        "dead_reach": geometry.dead_reach(squares, used, error),
        "duplicates": geometry.duplicate_share(codes, unit, most=max(64, MOST_PAIRS // len(codes))),
    }


def _agreements(snapshot: Snapshot, codes: FloatRows) -> dict[str, Any]:
    """By which metric the assignments are nearest, and how many are; nothing where they were made by other codes.

    Codes that move within their forward are not at hand as they were before the first one.
    """
    few = max(1, len(snapshot.latents) * len(codes) // MOST_PAIRS)  # of a large book few will do
    z, indices = snapshot.latents[::few], snapshot.indices[::few]
    if not np.allclose(snapshot.assigned[::few], codes[indices], rtol=1e-3, atol=1e-3 * np.abs(codes).max()):
        return {}
    tried = slice(0, 64)
    agreed = {metric: geometry.nearest_share(z[tried], codes, indices[tried], metric) for metric in geometry.METRICS}
    metric = max(geometry.METRICS, key=agreed.__getitem__)
    return {
        "metric": metric,
        "float64_agreement": geometry.nearest_share(z, codes, indices, metric),
        "bfloat16_agreement": geometry.bfloat16_agreement(z, codes, indices),
    }


class SnapshotWriter:
    """Keeps the snapshots of one codebook in ``RUN/snapshots/CODEBOOK``, two Parquet files each.

    ``codes-STEP.parquet`` has a row for every code, ``latents-STEP.parquet`` one for every latent of the sample. Beyond
    ``most_bytes`` those after the first are thinned out, the oldest first.

    Args:
        folder: Made with its parents.
        most_bytes: What all snapshots of the codebook may take together; one is always kept.
    """

    def __init__(self, folder: Path, most_bytes: int = 1 << 28):
        self.folder, self.most_bytes = Path(folder), most_bytes
        self.folder.mkdir(parents=True, exist_ok=True)

    def write(self, snapshot: Snapshot) -> None:
        """Put a snapshot down."""
        if snapshot.codes is not None:
            codes = {"code": np.arange(len(snapshot.codes), dtype=np.int32), "vector": _rows(snapshot.codes)}
            self._put("codes", snapshot.step, codes)
        latents = {"code": snapshot.indices, "latent": _rows(snapshot.latents), "assigned": _rows(snapshot.assigned)}
        self._put("latents", snapshot.step, latents)
        self._thin()

    def _put(self, kind: str, step: int, columns: dict[str, Any]) -> None:
        write_table(pa.table(columns), self.folder / f"{kind}-{step:010d}.parquet", compression="none")

    def _thin(self) -> None:
        steps = snapshot_steps(self.folder)
        for step in steps[1:-1]:
            if sum(path.stat().st_size for path in self.folder.glob("*.parquet")) <= self.most_bytes:
                return
            self._remove(step)

    def _remove(self, step: int) -> None:
        for path in self.folder.glob(f"*-{step:010d}.parquet"):
            path.unlink()

    def rewind(self, step: int) -> None:
        """Drop the snapshots that were taken after optimizer step ``step``."""
        for later in snapshot_steps(self.folder):
            if later >= step:
                self._remove(later)


def _rows(values: FloatRows) -> pa.Array:
    """(n, D) as a column of lists; numbers of this kind do not compress."""
    n, D = values.shape
    flat = pa.array(np.ascontiguousarray(values).ravel())
    return pa.ListArray.from_arrays(pa.array(np.arange(n + 1, dtype=np.int32) * D), flat)


def snapshot_steps(folder: Path) -> list[int]:
    """The steps of the snapshots in ``RUN/snapshots/CODEBOOK``, in order."""
    return sorted(int(path.stem.removeprefix("latents-")) for path in Path(folder).glob("latents-*.parquet"))


def read_snapshot(folder: Path, step: int) -> Snapshot:
    """One snapshot of a codebook.

    Args:
        folder: ``RUN/snapshots/CODEBOOK``.
        step: One of ``snapshot_steps``.

    Raises:
        InputError: There is none of that step, or it cannot be read.
    """
    folder = Path(folder)
    if step not in (steps := snapshot_steps(folder)):
        raise InputError(f"{folder} has no snapshot of step {step}: there are {', '.join(map(str, steps)) or 'none'}")
    table = read_columns(folder / f"latents-{step:010d}.parquet", ["code", "latent", "assigned"])
    latents, assigned = (np.stack(table[name].to_numpy()) for name in ("latent", "assigned"))
    codes = folder / f"codes-{step:010d}.parquet"
    vectors = np.stack(read_columns(codes, ["vector"])["vector"].to_numpy()) if codes.exists() else None
    return Snapshot(folder.name, step, latents, table["code"].to_numpy(), assigned, vectors)


def snapshot_due(step: int) -> bool:
    """Whether a snapshot is taken in the forward after ``step`` optimizer steps: 0, 1, 10, 40, 160, 640 and so on."""
    return step in (0, 1) or step in (10 * 4**power for power in range(12))

"""What the instrument leaves of a model that vqtool did not train: traces and tables, and nothing else."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from synthetic import dying_hits, write_trace

from vqtool.diagnostics.recording.rows import BoundaryRow, LatentsRow, MovementRow, Row, TermRow
from vqtool.diagnostics.recording.sinks import TraceSink
from vqtool.diagnostics.recording.snapshots import Snapshot, geometry_row
from vqtool.diagnostics.run import RunDirectory

STEPS = (1, 2, 3, 4, 10, 20, 30, 40)


def write_stranger(path: Path, *codebooks: str, K: int = 32, T: int = 5, tables: bool = True) -> RunDirectory:
    """A run of T records of 20 steps, of one codebook or several, with the tables beside their traces or without."""
    run, names = RunDirectory(path), codebooks or ("quantizer",)
    sink = TraceSink(path)
    for name in names if tables else ():
        for row in rows(name):
            sink.write_row(row)
        for step in (0, 20, 40):
            snapshot = a_snapshot(name, step, K)
            sink.write_snapshot(snapshot)
            sink.write_row(geometry_row(snapshot))
    sink.flush()
    for seed, name in enumerate(names):
        write_trace(run.trace / name, dying_hits(K, T, seed, 0.5), window=20)
    return run


def rows(codebook: str) -> Iterator[Row]:
    """A straight-through quantizer with a commitment of 0.25, codes in an optimizer, latents that grow."""
    for step in STEPS:
        yield BoundaryRow(
            codebook=codebook,
            step=step,
            tokens=2048,
            decoder_grad_norm=0.01,
            encoder_grad_norm=0.012,
            commitment_grad_norm=0.004,
            ratio=1.2,
            cosine=0.9,
            estimator="straight-through",
            straight_through_r2=1.0,
            cosine_r2=0.4,
            rotation_r2=0.3,
            gain=1.0,
            commitment=0.25,
        )
        yield MovementRow(
            codebook=codebook,
            step=step,
            moved_mean=0.01 / step,
            moved_median_used=0.02 / step,
            moved_max=0.1,
            moved_share=1.0,
            grad_share=0.5,
            attraction=0.01,
            attraction_r2=0.7,
            code_velocity=0.01,
            centroid_velocity=0.03,
            in_optimizer=True,
            lr=0.001 if step < 20 else 0.0005,
            weight_decay=0.01,
            attached_late=False,
        )
        for term, weight in (("reconstruction", 1.0), ("commitment", 0.25)):
            told = {"value": 0.1, "grad_norm": 0.01, "weighted_grad_norm": 0.01 * weight}
            yield TermRow(codebook=codebook, step=step, term=term, weight=weight, **told)
    for step in (20, 40, 60):
        yield LatentsRow(
            codebook=codebook, step=step, window=20, tokens=40960, mean_norm=step / 20, spread=1.0, centre_norm=0.1
        )


def a_snapshot(codebook: str, step: int, K: int) -> Snapshot:
    """Latents around the origin, and codes that come to them from afar."""
    random = np.random.default_rng(step)
    latents = random.normal(size=(64, 4)).astype(np.float32)
    codes = (random.normal(size=(K, 4)) + 3 * (step == 0)).astype(np.float32)
    indices = np.square(latents[:, None] - codes).sum(2).argmin(1)
    return Snapshot(codebook, step, latents, indices, codes[indices], codes)

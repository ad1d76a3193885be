"""Tables and snapshots: what is written is read back, alone and by ranks; geometry against slow twins."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from records import Records
from sequence_model import LEARNABLE, sequences, stranger

from vqtool.diagnostics import CodebookMonitor, CodebookTrace, InputError, TraceSink
from vqtool.diagnostics.recording.rows import TABLES, BoundaryRow
from vqtool.diagnostics.recording.snapshots import (
    Snapshot,
    SnapshotWriter,
    geometry_row,
    read_snapshot,
    snapshot_due,
    snapshot_steps,
)
from vqtool.diagnostics.recording.tables import TableWriter, read_table


def run(folder, steps=21, every=5):
    model = stranger(**LEARNABLE)
    optimizer, kept = torch.optim.Adam(model.parameters(), lr=1e-2), Records()
    monitor = CodebookMonitor(model, optimizer, [TraceSink(folder), kept], every=every)
    for x in sequences(*[16] * steps):
        optimizer.zero_grad()
        model(x).backward()
        optimizer.step()
    monitor.close()
    return kept


@pytest.mark.parametrize("name", ["boundary", "movement", "latents", "geometry"])
def test_every_row_is_on_disk_as_it_was_recorded(tmp_path, name):
    kept = run(tmp_path)
    frame = read_table(tmp_path / name / "vq")
    rows = kept.table(name)
    assert list(frame.columns) == ["step", *TABLES[name].columns()]
    assert frame.step.tolist() == [row.step for row in rows]
    for column in TABLES[name].columns():
        for got, row in zip(frame[column], rows, strict=True):
            want = getattr(row, column)
            if isinstance(want, tuple):
                np.testing.assert_allclose(got, want, rtol=1e-6)
            elif want is None:
                assert pd.isna(got)
            else:
                assert got == want


def test_the_schedules_are_early_and_then_sparse(tmp_path):
    kept = run(tmp_path, steps=45)
    assert [row.step for row in kept.table("boundary")] == [1, 2, 3, 4, 10, 20, 30, 40]
    assert [row.step for row in kept.table("movement")] == [2, 3, 4, 10, 20, 30, 40]
    assert [row.step for row in kept.table("geometry")] == [0, 1, 10, 40]
    assert snapshot_steps(tmp_path / "snapshots" / "vq") == [0, 1, 10, 40]
    assert [step for step in range(700) if snapshot_due(step)] == [0, 1, 10, 40, 160, 640]


def test_a_snapshot_comes_back_as_it_was_taken(tmp_path):
    kept = run(tmp_path)
    for snapshot in kept.snapshots:
        back = read_snapshot(tmp_path / "snapshots" / "vq", snapshot.step)
        for part in ("latents", "indices", "assigned", "codes"):
            np.testing.assert_array_equal(getattr(back, part), getattr(snapshot, part))
    first = kept.snapshots[0]
    np.testing.assert_allclose(first.assigned, first.codes[first.indices], atol=1e-6)
    with pytest.raises(InputError, match="no snapshot of step 7: there are 0, 1, 10"):
        read_snapshot(tmp_path / "snapshots" / "vq", 7)


def test_snapshots_stay_within_their_budget_and_keep_the_first_and_the_newest(tmp_path):
    rng = np.random.default_rng(0)
    writer = SnapshotWriter(tmp_path, most_bytes=300_000)
    for step in (0, 1, 10, 20, 40, 80):
        latents, codes = rng.normal(size=(8, 64)).astype(np.float32), rng.normal(size=(256, 64)).astype(np.float32)
        writer.write(Snapshot("vq", step, latents, np.arange(8), codes[:8], codes))
    left = snapshot_steps(tmp_path)
    assert left[0] == 0
    assert left[-1] == 80
    assert len(left) < 6
    assert sum(path.stat().st_size for path in tmp_path.glob("*.parquet")) <= 300_000


def test_a_column_that_an_older_version_did_not_write_is_told_of(tmp_path):
    writer = TableWriter(BoundaryRow, tmp_path)
    writer.write(BoundaryRow(codebook="vq", step=1, ratio=0.5))
    writer.flush()
    assert read_table(tmp_path, ["ratio"]).ratio.tolist() == [0.5]
    with pytest.raises(InputError, match="it has no column speed"):
        read_table(tmp_path, ["speed"])
    assert read_table(tmp_path / "nothing").empty


def test_two_ranks_leave_the_tables_of_one(tmp_path):
    script = Path(__file__).with_name("boundary_ranks.py")
    for size in (1, 2):
        folder = tmp_path / str(size)
        folder.mkdir()
        command = [sys.executable, script, folder, str(size)]
        ranks = [subprocess.Popen([*command, str(rank)]) for rank in range(size)]
        assert [rank.wait(120) for rank in ranks] == [0] * size
    one, two = (tmp_path / size / "run" for size in ("1", "2"))
    a, b = (CodebookTrace.load(run / "trace" / "vq") for run in (one, two))
    np.testing.assert_array_equal(a.hits, b.hits)
    for name in ("distortion", "norm", "grad_norm", "pull_norm"):
        np.testing.assert_allclose(getattr(b, name), getattr(a, name), rtol=1e-3, atol=1e-6, err_msg=name)
    for name in ("boundary", "movement", "latents"):
        whole, shared = read_table(one / name / "vq"), read_table(two / name / "vq")
        assert len(whole) == len(shared) > 0
        for column in TABLES[name].columns():
            got, want = shared[column], whole[column]
            if column == "forwards":
                assert (got == 2 * want).all()
            elif want.dtype == float:
                # The tokens of all ranks count; what is left is rounding, which cancellation and Adam make larger.
                np.testing.assert_allclose(got, want, rtol=2e-3, atol=1e-6, err_msg=f"{name}.{column}")
            elif not isinstance(want.iloc[0], np.ndarray):
                assert got.tolist() == want.tolist(), column


def test_assignments_are_judged_by_the_codes_that_made_them():
    """Moving averages move within their forward: the codes after it are not the ones that were nearest."""
    torch.manual_seed(0)
    model, sink = stranger(decay=0.5), Records()
    optimizer = torch.optim.Adam(model.parameters())
    CodebookMonitor(model, optimizer, [sink], every=5)
    for x in sequences(*[64] * 12):
        optimizer.zero_grad()
        model(x).backward()
        optimizer.step()
    rows = {row.step: row for row in sink.table("geometry")}
    assert rows[0].float64_agreement is None  # before the first forward nobody looked
    for step in (1, 10):
        assert (rows[step].metric, rows[step].float64_agreement) == ("euclidean", 1.0)


def test_the_geometry_of_a_large_book_is_judged_by_fewer_latents():
    rng = np.random.default_rng(0)
    z, e = (rng.normal(size=size).astype(np.float32) for size in ((512, 8), (16_384, 8)))
    indices = np.array([np.square(e - latent).sum(1).argmin() for latent in z])
    row = geometry_row(Snapshot("vq", 0, z, indices, e[indices], e))
    assert (row.metric, row.float64_agreement, row.duplicates) == ("euclidean", 1.0, 0.0)
    assert row.codes_reached == len(np.unique(indices))

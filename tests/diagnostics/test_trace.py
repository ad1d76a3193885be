"""The trace on disk: what is written is what is read, by us and by pandas."""

import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from vqtool.diagnostics.errors import InputError
from vqtool.diagnostics.record import COLUMNS, CodebookRecord
from vqtool.diagnostics.trace import CodebookTrace, TraceWriter


def record(step, K=12, seed=0):
    rng = np.random.default_rng((seed, step))
    values = {
        name: rng.integers(0, 9, K) if dtype is np.int64 else rng.random(K).astype(np.float32)
        for name, dtype in COLUMNS.items()
    }
    values["grad_norm"] = np.full(K, np.nan, np.float32)
    return CodebookRecord("quantize", step, 10, **values)


def write(folder, steps, **options):
    writer = TraceWriter(folder, **options)
    for step in steps:
        writer.write(record(step))
    return writer


def assert_holds(trace, steps):
    assert trace.steps.tolist() == list(steps)
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(trace, name), [getattr(record(step), name) for step in steps])


def test_what_is_written_is_read_back_exactly(tmp_path):
    write(tmp_path / "quantize", range(10, 60, 10)).flush()
    trace = CodebookTrace.load(tmp_path / "quantize")
    assert_holds(trace, range(10, 60, 10))
    assert trace.codebook == "quantize"
    assert trace.window.tolist() == [10] * 5


def test_parts_come_when_they_are_full_and_read_as_one_trace(tmp_path):
    write(tmp_path / "q", range(1, 8), rows_per_part=36).flush()
    assert [path.name for path in sorted((tmp_path / "q").iterdir())] == [
        "part-0000000003.parquet",
        "part-0000000006.parquet",
        "part-0000000007.parquet",
    ]
    assert_holds(CodebookTrace.load(tmp_path / "q"), range(1, 8))


def test_a_part_comes_after_some_time_too_so_that_a_run_can_be_looked_at(tmp_path):
    write(tmp_path / "q", [1, 2], seconds_per_part=0)
    assert_holds(CodebookTrace.load(tmp_path / "q"), [1, 2])


def test_pandas_reads_the_folder_as_it_is(tmp_path):
    write(tmp_path / "q", range(1, 8), rows_per_part=36).flush()
    frame = pd.read_parquet(tmp_path / "q")
    assert list(frame.columns) == ["step", "window", "code", *COLUMNS]
    pd.testing.assert_frame_equal(frame, CodebookTrace.load(tmp_path / "q").frame(), check_dtype=False)
    assert frame.loc[(frame.step == 5) & (frame.code == 3), "hits"].item() == record(5).hits[3]


def test_what_is_not_there_is_null_on_disk(tmp_path):
    write(tmp_path / "q", [1]).flush()
    (part,) = (tmp_path / "q").iterdir()
    assert pq.read_table(part)["grad_norm"].null_count == 12


def test_only_the_columns_asked_for_are_loaded(tmp_path):
    write(tmp_path / "q", [1, 2]).flush()
    trace = CodebookTrace.load(tmp_path / "q", columns=["norm"])
    assert trace.norm is not None
    assert trace.drift is None
    assert list(trace.frame().columns) == ["step", "window", "code", "hits", "norm"]


@pytest.mark.parametrize("rows_per_part", [12, 36, 10_000])
@pytest.mark.parametrize("step", [0, 4, 7])
def test_rewinding_leaves_the_records_up_to_that_step(tmp_path, step, rows_per_part):
    writer = write(tmp_path / "q", range(1, 8), rows_per_part=rows_per_part)
    writer.rewind(step)
    for again in range(step + 1, 10):
        writer.write(record(again))
    writer.flush()
    assert_holds(CodebookTrace.load(tmp_path / "q"), range(1, 10))


def test_an_unfinished_part_is_not_seen(tmp_path):
    write(tmp_path / "q", [1]).flush()
    (tmp_path / "q" / ".part-0000000002.parquet.tmp").write_bytes(b"half")
    assert_holds(CodebookTrace.load(tmp_path / "q"), [1])


WRITE_FOR_EVER = """
import sys
from itertools import count
from pathlib import Path
import numpy as np
from vqtool.diagnostics.record import COLUMNS, CodebookRecord
from vqtool.diagnostics.trace import TraceWriter
writer = TraceWriter(Path(sys.argv[1]), rows_per_part=1)
for step in count(1):
    writer.write(CodebookRecord("q", step, 1, **{name: np.full(500, step, kind) for name, kind in COLUMNS.items()}))
"""


def test_a_kill_at_any_moment_leaves_whole_parts_only(tmp_path):
    folder = tmp_path / "q"
    process = subprocess.Popen([sys.executable, "-c", WRITE_FOR_EVER, str(folder)])
    while len(list(folder.glob("part-*"))) < 20 and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()
    trace = CodebookTrace.load(folder)
    assert trace.steps.tolist() == list(range(1, len(trace.steps) + 1))
    assert len(trace.steps) >= 20
    assert (trace.hits == trace.steps[:, None]).all()


@pytest.mark.parametrize("content", [None, b"", b"no parquet"])
def test_no_trace_or_a_broken_one_is_told_in_one_line(tmp_path, content):
    if content is not None:
        (tmp_path / "q").mkdir()
        (tmp_path / "q" / "part-0000000001.parquet").write_bytes(content)
    with pytest.raises(InputError, match=r"trace|part-0000000001") as error:
        CodebookTrace.load(tmp_path / "q")
    assert "\n" not in str(error.value)

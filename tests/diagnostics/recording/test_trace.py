"""The trace on disk: what is written is what is read, by us and by pandas."""

import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from vqtool.diagnostics.errors import InputError
from vqtool.diagnostics.recording.parts import rewind_parts
from vqtool.diagnostics.recording.records import CodebookRecord, TokenRecord
from vqtool.diagnostics.recording.trace import CodebookTrace, TokenTrace, TraceWriter, hits_in_time

KINDS = [(CodebookRecord, CodebookTrace, "grad_norm"), (TokenRecord, TokenTrace, "head_grad_norm")]
both_kinds = pytest.mark.parametrize(("kind", "trace_kind", "absent"), KINDS, ids=["codebook", "tokens"])


def record(step, kind=CodebookRecord, absent="grad_norm", K=12, seed=0):
    rng = np.random.default_rng((seed, step))
    values = {
        name: rng.integers(0, 9, K) if dtype is np.int64 else rng.random(K).astype(np.float32)
        for name, dtype in kind.columns().items()
    }
    values[absent] = np.full(K, np.nan, np.float32)
    return kind("quantize", step, 10, **values)


def write(folder, steps, kind=CodebookRecord, absent="grad_norm", **options):
    writer = TraceWriter(folder, **options)
    for step in steps:
        writer.write(record(step, kind, absent))
    return writer


def assert_holds(trace, steps, kind=CodebookRecord, absent="grad_norm"):
    assert trace.steps.tolist() == list(steps)
    for name in kind.columns():
        expected = [getattr(record(step, kind, absent), name) for step in steps]
        np.testing.assert_array_equal(getattr(trace, name), expected)


@both_kinds
def test_either_kind_is_read_back_exactly_over_several_parts(tmp_path, kind, trace_kind, absent):
    write(tmp_path / "quantize", range(1, 8), kind, absent, rows_per_part=36).flush()
    trace = trace_kind.load(tmp_path / "quantize")
    assert_holds(trace, range(1, 8), kind, absent)
    assert (trace.codebook, trace.window.tolist()) == ("quantize", [10] * 7)
    assert list(trace.frame().columns) == ["step", "window", "code", *kind.columns()]


def test_hits_are_read_record_by_record(tmp_path):
    write(tmp_path / "quantize", range(1, 8), rows_per_part=36).flush()
    hits = list(hits_in_time(tmp_path / "quantize"))
    np.testing.assert_array_equal(hits, CodebookTrace.load(tmp_path / "quantize").hits)


@both_kinds
def test_pandas_reads_either_kind_as_it_is(tmp_path, kind, trace_kind, absent):
    write(tmp_path / "q", range(1, 8), kind, absent, rows_per_part=36).flush()
    frame = pd.read_parquet(tmp_path / "q")
    pd.testing.assert_frame_equal(frame, trace_kind.load(tmp_path / "q").frame(), check_dtype=False)
    assert {name: frame[name].dtype.type for name in kind.columns()} == kind.columns()
    assert frame[absent].isna().all()
    first = next(iter(kind.columns()))
    assert frame.loc[(frame.step == 5) & (frame.code == 3), first].item() == getattr(record(5, kind, absent), first)[3]


@both_kinds
def test_the_first_column_is_always_loaded(tmp_path, kind, trace_kind, absent):
    write(tmp_path / "q", [1, 2], kind, absent).flush()
    first, *others = kind.columns()
    trace = trace_kind.load(tmp_path / "q", columns=[])
    np.testing.assert_array_equal(getattr(trace, first)[1], getattr(record(2, kind, absent), first))
    assert not any(hasattr(trace, name) for name in others)


def test_a_trace_of_the_other_kind_is_told_in_one_line(tmp_path):
    write(tmp_path / "a", [1]).flush()
    write(tmp_path / "b", [1], *KINDS[1][::2]).flush()
    with pytest.raises(InputError, match=r"a is no TokenTrace, .* hits, .*: CodebookTrace reads it$") as error:
        TokenTrace.load(tmp_path / "a")
    with pytest.raises(InputError, match=r"b is no CodebookTrace, .* targets, .*: TokenTrace reads it$"):
        CodebookTrace.load(tmp_path / "b", columns=[])
    assert "\n" not in str(error.value)


def test_parts_come_when_they_are_full_and_read_as_one_trace(tmp_path):
    write(tmp_path / "q", range(1, 8), rows_per_part=36).flush()
    assert [path.name for path in sorted((tmp_path / "q").iterdir())] == [
        "part-0000000003.parquet",
        "part-0000000006.parquet",
        "part-0000000007.parquet",
    ]
    assert_holds(CodebookTrace.load(tmp_path / "q"), range(1, 8))


def test_what_is_not_there_is_null_on_disk(tmp_path):
    write(tmp_path / "q", [1]).flush()
    (part,) = (tmp_path / "q").iterdir()
    assert pq.read_table(part)["grad_norm"].null_count == 12


def test_only_the_columns_asked_for_are_loaded(tmp_path):
    write(tmp_path / "q", [1, 2]).flush()
    trace = CodebookTrace.load(tmp_path / "q", columns=["norm"])
    assert list(trace.frame().columns) == ["step", "window", "code", "hits", "norm"]
    with pytest.raises(AttributeError, match="column drift of the trace q was not loaded"):
        _ = trace.drift
    with pytest.raises(AttributeError, match="CodebookTrace has no attribute hist"):
        _ = trace.hist


def test_a_column_that_no_record_has_is_refused_with_the_nearest_that_one_has(tmp_path):
    write(tmp_path / "q", [1, 2]).flush()
    with pytest.raises(InputError, match="column of a CodebookTrace 'grad_nrom' is unknown; did you mean 'grad_norm'"):
        CodebookTrace.load(tmp_path / "q", columns=["grad_nrom"])


def test_a_trace_of_an_older_version_is_read_as_far_as_it_goes_and_the_missing_column_is_named(tmp_path):
    write(tmp_path / "q", range(1, 8), rows_per_part=36).flush()
    for part in (tmp_path / "q").iterdir():
        table = pq.read_table(part)
        pq.write_table(table.drop_columns(["pull_norm", "resets"]).append_column("own", table["code"]), part)
    whole = CodebookTrace.load(tmp_path / "q")
    assert whole.hits.shape == (7, 12)
    assert not {"pull_norm", "resets", "own"} & whole.arrays.keys()
    np.testing.assert_array_equal(CodebookTrace.load(tmp_path / "q", columns=["norm"]).norm, whole.norm)
    with pytest.raises(InputError, match="q has no column resets: it was written by another version"):
        CodebookTrace.load(tmp_path / "q", columns=["norm", "resets"])


@pytest.mark.parametrize("rows_per_part", [12, 36, 10_000])
@pytest.mark.parametrize("step", [0, 4, 7])
def test_rewinding_leaves_the_records_up_to_that_step(tmp_path, step, rows_per_part):
    write(tmp_path / "q", range(1, 8), rows_per_part=rows_per_part).flush()
    rewind_parts(tmp_path / "q", step)
    write(tmp_path / "q", range(step + 1, 10)).flush()
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
from vqtool.diagnostics.recording.parts import rewind_parts
from vqtool.diagnostics.recording.records import CodebookRecord
from vqtool.diagnostics.recording.trace import TraceWriter
writer = TraceWriter(Path(sys.argv[1]), rows_per_part=1)
for step in count(1):
    columns = CodebookRecord.columns()
    writer.write(CodebookRecord("q", step, 1, **{name: np.full(500, step, kind) for name, kind in columns.items()}))
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

"""Where records go, and that none is lost, doubled or mixed with those of another run."""

import copy
import os
import pickle
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from sequence_model import sequences, stranger

from vqtool.diagnostics import CodebookMonitor, CodebookTrace, InputError, LogSink, TokenTrace, TraceSink
from vqtool.diagnostics.recording.records import CodebookRecord, TokenRecord
from vqtool.diagnostics.recording.rows import DigitsRow, GeometryRow, MovementRow
from vqtool.diagnostics.recording.snapshots import Snapshot, snapshot_steps
from vqtool.diagnostics.recording.tables import read_table
from vqtool.diagnostics.recording.trace import TraceWriter

K = 12


def record(step, codebook="quantize", codes=K, kind=CodebookRecord):
    return kind(codebook, step, 1, **{name: np.full(codes, step, dtype) for name, dtype in kind.columns().items()})


def write(sink, steps, **options):
    for step in steps:
        sink.write(record(step, **options))
    sink.flush()


def steps(run, codebook="quantize", table="trace"):
    return CodebookTrace.load(run / table / codebook).steps.tolist()


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def within_seconds(condition, seconds=5):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


# A folder that holds a trace already.


def test_a_new_run_in_the_folder_of_another_is_refused_in_one_line_and_touches_nothing(tmp_path):
    write(TraceSink(tmp_path), range(1, 4))
    before = files(tmp_path)
    with pytest.raises(InputError) as error:
        TraceSink(tmp_path)
    for words in (str(tmp_path), "up to step 3", "resume_at=STEP", "overwrite=True"):
        assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert files(tmp_path) == before


def test_a_folder_with_everything_but_records_is_a_new_one(tmp_path):
    (tmp_path / "trace" / "quantize").mkdir(parents=True)
    (tmp_path / "config.yaml").write_text("a: 1")
    write(TraceSink(tmp_path), [1])
    assert steps(tmp_path) == [1]


def test_overwriting_removes_the_records_of_that_folder_and_nothing_else(tmp_path):
    write(TraceSink(tmp_path / "mine"), range(1, 4), codebook="old")
    write(TraceSink(tmp_path / "other"), [1])
    for kept in ("mine/notes.txt", "mine/trace/old/notes.txt", "mine/tensorboard/part-0000000001.parquet"):
        (tmp_path / kept).parent.mkdir(exist_ok=True)
        (tmp_path / kept).write_text("mine")
    write(TraceSink(tmp_path / "mine", overwrite=True), [7])
    assert sorted(str(path) for path in files(tmp_path)) == [
        "mine/notes.txt",
        "mine/tensorboard/part-0000000001.parquet",
        "mine/trace/old/notes.txt",
        "mine/trace/quantize/part-0000000007.parquet",
        "other/trace/quantize/part-0000000001.parquet",
    ]


def test_a_resumed_run_goes_on_after_the_step_that_is_named(tmp_path):
    write(TraceSink(tmp_path), range(1, 6))
    write(TraceSink(tmp_path, 3), range(4, 8))
    assert steps(tmp_path) == list(range(1, 8))


def test_one_that_is_resumed_before_its_first_record_begins_anew(tmp_path):
    write(TraceSink(tmp_path), range(1, 4))
    write(TraceSink(tmp_path, resume_at=0), [1])
    assert steps(tmp_path) == [1]


def test_a_sink_goes_back_to_a_step_with_what_it_holds_and_what_it_has_written(tmp_path):
    sink = TraceSink(tmp_path)
    write(sink, range(1, 4))
    sink.write(record(4))
    sink.write(record(4, codebook="other"))
    sink.rewind(2)
    write(sink, [3])
    assert steps(tmp_path) == [1, 2, 3]
    assert not list((tmp_path / "trace" / "other").iterdir())


def test_one_sink_takes_both_kinds_of_records_and_goes_back_with_both(tmp_path):
    sink = TraceSink(tmp_path)
    for kind in (CodebookRecord, TokenRecord):
        write(sink, range(1, 5), codebook=kind.__name__, kind=kind)
    TraceSink(tmp_path, resume_at=2)
    assert steps(tmp_path, "CodebookRecord") == [1, 2]
    assert TokenTrace.load(tmp_path / "trace" / "TokenRecord").steps.tolist() == [1, 2]


@pytest.mark.parametrize(("options", "expected"), [({"resume_at": 1}, [1, 5]), ({"overwrite": True}, [5])])
def test_what_a_run_that_broke_off_in_this_process_still_holds_is_not_written_into_the_next(
    tmp_path, monkeypatch, options, expected
):
    monkeypatch.chdir(tmp_path)
    broken = TraceSink("mine")
    for step in range(1, 4):
        broken.write(record(step))
    with pytest.raises(InputError, match="up to step 3"):
        TraceSink(tmp_path / "mine")
    broken.write(record(4))
    write(TraceSink(tmp_path / "mine", **options), [5])
    broken.flush()
    assert steps(tmp_path / "mine") == expected


def write_all(sink, until):
    """Records every ten steps, with all that goes with them."""
    for step in range(until):
        if step in (0, 1, 10):  # measured in the forward after so many steps
            sink.write_snapshot(
                Snapshot("quantize", step, *(np.zeros((2, 3)), np.zeros(2, int)), *[np.zeros((2, 3))] * 2)
            )
            sink.write_row(GeometryRow(codebook="quantize", step=step, sample=2))
        sink.write_row(MovementRow(codebook="quantize", step=step + 1))
        if (step + 1) % 10 == 0:
            sink.write(record(step + 1))
    sink.flush()


def rows(run, table):
    return read_table(run / table / "quantize").step.tolist()


def test_a_sink_goes_back_to_the_last_record_with_what_was_recorded_beside_it(tmp_path):
    """What is later is in the state of the monitor, and comes with the next record."""
    sink = TraceSink(tmp_path)
    write_all(sink, 30)
    sink.rewind(15)
    assert steps(tmp_path) == [10]
    assert rows(tmp_path, "movement") == list(range(1, 11))
    assert rows(tmp_path, "geometry") == snapshot_steps(tmp_path / "snapshots" / "quantize") == [0, 1, 10]


def test_a_codebook_with_rows_alone_goes_back_to_the_last_of_its_windows(tmp_path):
    sink = TraceSink(tmp_path)
    for step in range(1, 31):
        sink.write_row(MovementRow(codebook="quantize", step=step))
        if step % 10 == 0:
            sink.write_row(DigitsRow(codebook="quantize", step=step, window=10))
    sink.rewind(25)
    assert rows(tmp_path, "digits") == [10, 20]
    assert rows(tmp_path, "movement") == list(range(1, 21))


def test_overwriting_removes_what_was_recorded_beside_the_trace(tmp_path):
    write_all(TraceSink(tmp_path), 20)
    assert {path.parts[0] for path in files(tmp_path)} == {"trace", "movement", "geometry", "snapshots"}
    TraceSink(tmp_path, overwrite=True)
    assert not files(tmp_path)


def test_a_table_without_a_trace_is_of_another_run_as_well(tmp_path):
    TraceSink(tmp_path).write_row(MovementRow(codebook="quantize", step=7))
    with pytest.raises(InputError, match="up to step 7"):
        TraceSink(tmp_path)


def test_to_keep_and_to_remove_the_records_at_once_is_refused(tmp_path):
    with pytest.raises(InputError, match="give one of the two"):
        TraceSink(tmp_path, resume_at=3, overwrite=True)


def test_a_run_that_goes_on_with_another_number_of_codes_is_refused_at_its_first_record(tmp_path):
    write(TraceSink(tmp_path), range(1, 4))
    sink = TraceSink(tmp_path, resume_at=3)
    with pytest.raises(InputError, match="is of 12 codes, the record of step 4 of 8") as error:
        sink.write(record(4, codes=8))
    assert "\n" not in str(error.value)
    sink.flush()
    assert steps(tmp_path) == [1, 2, 3]


# Records that wait.


def test_what_waits_is_written_after_some_time_without_being_asked(tmp_path):
    writer = TraceWriter(tmp_path / "trace" / "quantize", seconds_per_part=0.05)
    writer.write(record(1))
    assert within_seconds(lambda: list((tmp_path / "trace" / "quantize").glob("part-*")))
    writer.write(record(2))
    assert within_seconds(lambda: steps(tmp_path) == [1, 2])


def test_no_thread_lives_while_nothing_waits(tmp_path):
    before = threading.active_count()
    sink = TraceSink(tmp_path)
    assert threading.active_count() == before
    for step in (1, 2):
        sink.write(record(step))
    assert threading.active_count() == before + 1
    sink.flush()
    assert within_seconds(lambda: threading.active_count() == before)


def test_what_waits_is_written_though_its_sink_is_forgotten(tmp_path):
    writer = TraceWriter(tmp_path / "trace" / "quantize", seconds_per_part=0.05)
    writer.write(record(1))
    del writer
    assert within_seconds(lambda: list((tmp_path / "trace" / "quantize").glob("part-*")))
    assert steps(tmp_path) == [1]


def test_where_no_thread_is_to_be_had_any_more_records_do_not_wait(tmp_path, monkeypatch):
    def refuse(self):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Timer, "start", refuse)
    TraceSink(tmp_path).write(record(1))
    assert steps(tmp_path) == [1]


def test_records_that_could_not_be_written_are_not_lost(tmp_path):
    sink = TraceSink(tmp_path)
    sink.write(record(1))
    folder = tmp_path / "trace" / "quantize"
    folder.rmdir()
    with pytest.raises(OSError, match="quantize"):
        sink.flush()
    folder.mkdir()
    sink.write(record(2))
    sink.flush()
    assert steps(tmp_path) == [1, 2]


# Writers of two folders, as a sink has them; they need no torch, for which a process would wait seconds.
RUN = """
import sys
from pathlib import Path
import numpy as np
from vqtool.diagnostics.recording.records import CodebookRecord
from vqtool.diagnostics.recording.trace import TraceWriter
def record(step):
    columns = CodebookRecord.columns()
    return CodebookRecord("q", step, 1, **{name: np.full(500, step, kind) for name, kind in columns.items()})
writers = [TraceWriter(Path(sys.argv[1]) / "trace" / name) for name in ("a", "b")]
for step in range(1, 4):
    for writer in writers:
        writer.write(record(step))
"""


@pytest.mark.parametrize("end", ["", "raise RuntimeError('broke')", "sys.exit(3)", "del writer, writers"])
def test_a_process_leaves_its_records_however_it_ends_and_ends_at_once(tmp_path, end):
    done = subprocess.run([sys.executable, "-c", RUN + end, str(tmp_path)], capture_output=True, text=True, timeout=30)
    assert ("broke" in done.stderr) == ("broke" in end)
    assert "vqtool" not in done.stderr
    for codebook in ("a", "b"):
        assert steps(tmp_path, codebook) == [1, 2, 3]


def test_at_the_end_of_a_process_one_folder_that_cannot_be_written_does_not_cost_the_others(tmp_path):
    script = f"{RUN}import os; os.rmdir(Path(sys.argv[1]) / 'trace' / 'a')"
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=30)
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"vqtool: the last records of {tmp_path / 'trace' / 'a'} were not written")
    assert steps(tmp_path, "b") == [1, 2, 3]


FORK = """
import os
for writer in writers:
    writer.flush()
    writer.write(record(4))
if os.fork() == 0:
    for writer in writers:
        writer.flush()
    (Path(sys.argv[1]) / "child.txt").write_text(str(list((Path(sys.argv[1]) / "trace" / "a").iterdir())))
    sys.exit()  # with all that Python does at exit
assert os.wait()[1] == 0
"""


def test_a_forked_worker_writes_nothing_of_its_parents_records(tmp_path):
    subprocess.run([sys.executable, "-c", RUN + FORK, str(tmp_path)], check=True, timeout=30)
    assert "part-0000000003" in (child := (tmp_path / "child.txt").read_text())
    assert "part-0000000004" not in child
    assert steps(tmp_path, "a") == [1, 2, 3, 4]


def test_a_forked_process_that_records_leaves_its_own_records(tmp_path):
    sink = TraceSink(tmp_path)
    write(sink, [1])
    if (child := os.fork()) == 0:
        sink.write(record(2))
        sink.flush()
        os._exit(0)
    os.waitpid(child, 0)
    assert steps(tmp_path) == [1, 2]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda sink: pickle.loads(pickle.dumps(sink))])
def test_a_copy_of_a_sink_begins_empty(tmp_path, copied):
    sink = TraceSink(tmp_path)
    sink.write(record(1))
    copied(sink).flush()
    assert not list((tmp_path / "trace" / "quantize").iterdir())
    write(sink, [2])
    assert steps(tmp_path) == [1, 2]


def test_records_from_several_threads_arrive_once_each(tmp_path):
    writer = TraceWriter(tmp_path / "trace" / "quantize", rows_per_part=5 * K, seconds_per_part=0.001)
    threads = [
        threading.Thread(target=lambda n=n: [writer.write(replace(record(1), step=n * 100 + i)) for i in range(50)])
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.flush()
    found = pd_steps(tmp_path)
    assert sorted(found) == sorted(n * 100 + i for n in range(4) for i in range(50))


def pd_steps(run):
    import pandas as pd

    frame = pd.read_parquet(run / "trace" / "quantize")
    assert len(frame) == K * frame.step.nunique()
    return frame.step.unique().tolist()


def test_a_logger_is_told_of_steps_that_never_go_back_and_of_every_table(tmp_path):
    logged, model = [], stranger()
    optimizer = torch.optim.Adam(model.parameters())
    CodebookMonitor(model, optimizer, [LogSink(lambda values, step: logged.append((step, values)))], every=5)
    for x in sequences(*[16] * 15):
        optimizer.zero_grad()
        model(x).backward()
        optimizer.step()
    assert [step for step, _ in logged] == [5, 10, 15]
    assert all(isinstance(value, float) for _, values in logged for value in values.values())
    for name in ("codebook/vq/perplexity_window", "latents/vq/spread"):
        assert all(name in values for _, values in logged)
    assert "boundary/vq/commitment" in logged[0][1]
    assert "boundary/vq/commitment" not in logged[2][1]  # looked at in step 10 for the last time
    assert "geometry/vq/scale" in logged[0][1]

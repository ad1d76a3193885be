"""Life histories streamed from a trace on disk."""

import numpy as np
import pytest
from synthetic import write_trace

from vqtool.diagnostics import CodebookTrace, InputError, TraceSink, read_life_histories, stats
from vqtool.diagnostics.recording.records import TokenRecord
from vqtool.diagnostics.recording.trace import TraceWriter


def test_a_trace_of_many_parts_tells_what_the_arrays_tell(tmp_path):
    hits = np.random.default_rng(0).poisson(np.linspace(0, 3, 12), (40, 12))
    write_trace(tmp_path / "q", hits, reset=True)
    rewritten = TraceWriter(tmp_path / "parts" / "q", rows_per_part=36)
    trace = CodebookTrace.load(tmp_path / "q")
    for record in records_of(trace):
        rewritten.write(record)
    rewritten.flush()
    assert len(list((tmp_path / "parts" / "q").iterdir())) == 14
    for per_code in (8, 2):
        streamed = read_life_histories(str(tmp_path / "parts" / "q"), per_code)
        whole = stats.life_histories(trace.steps, trace.window, trace.hits, trace.resets, per_code)
        np.testing.assert_equal(vars(streamed), vars(whole))
        assert len(whole.lives.code) > 12


def records_of(trace):
    return [
        trace.record(trace.codebook, int(step), int(window), **{name: of[t] for name, of in trace.arrays.items()})
        for t, (step, window) in enumerate(zip(trace.steps, trace.window, strict=True))
    ]


def test_what_is_no_trace_of_a_codebook_is_told_in_one_line(tmp_path):
    with pytest.raises(InputError, match=r"no codebook trace in .*nowhere"):
        read_life_histories(tmp_path / "nowhere")
    sink = TraceSink(tmp_path)
    sink.write(TokenRecord("codes", 1, 1, *[np.ones(3)] * 6))
    sink.flush()
    with pytest.raises(InputError, match="it has no column hits, resets"):
        read_life_histories(tmp_path / "trace" / "codes")

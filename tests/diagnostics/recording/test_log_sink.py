"""A logger of experiments is told the numbers that TensorBoard shows."""

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from vqtool.diagnostics import CodebookRecord, LogSink, TensorBoardSink, TokenBoardSink, TokenRecord
from vqtool.diagnostics.recording.records import Record
from vqtool.diagnostics.recording.rows import TermRow

K = 8


def record(kind, step, codebook):
    random = np.random.default_rng(step)
    columns = {name: random.integers(0, 5, K).astype(dtype) for name, dtype in kind.columns().items()}
    if kind is CodebookRecord:
        columns["grad_norm"] = np.full(K, np.nan, np.float32)  # a codebook without gradient
    return kind(codebook, step, 10, **columns)


@pytest.mark.parametrize(("kind", "board"), [(CodebookRecord, TensorBoardSink), (TokenRecord, TokenBoardSink)])
def test_the_numbers_are_those_of_tensorboard(tmp_path, kind, board):
    logged = []
    log = LogSink(lambda values, step: logged.append((step, values)))
    with SummaryWriter(str(tmp_path)) as writer:
        for step in (10, 20):
            for codebook in ("coarse", "fine"):
                for sink in (log, board(writer)):
                    sink.write(record(kind, step, codebook))
                    sink.flush()
    shown = EventAccumulator(str(tmp_path)).Reload()
    found = {(name, event.step): event.value for name in shown.Tags()["scalars"] for event in shown.Scalars(name)}
    told = {(name, step): value for step, values in logged for name, value in values.items()}
    assert found.keys() == told.keys()
    for key, value in told.items():
        assert type(value) is float
        assert value == pytest.approx(found[key], rel=1e-6)


def test_one_call_has_the_numbers_of_one_codebook_at_one_step_by_name():
    calls = []
    sink = LogSink(lambda values, step: calls.append((step, values)))
    sink.write(record(CodebookRecord, 10, "quantize"))
    ((step, values),) = calls
    assert step == 10
    assert values["codebook/quantize/tokens_window"] == record(CodebookRecord, 10, "quantize").hits.sum()
    assert "codebook/quantize/grad_norm_mean" not in values  # there is none, which is no number


def test_a_record_of_which_no_numbers_are_known_is_named():
    with pytest.raises(TypeError, match="no scalars are known of a Record"):
        LogSink(print).write(Record("q", 1, 1))


def test_every_term_of_the_loss_is_logged_with_the_next_record():
    calls = []
    sink = LogSink(lambda values, step: calls.append((step, values)))
    for term, weight in (("rec", 1.0), ("commit", 0.25)):
        sink.write_row(TermRow(codebook="quantize", step=5, term=term, weight=weight))
    sink.write(record(CodebookRecord, 10, "quantize"))
    ((step, values),) = calls
    assert step == 10
    assert (values["terms/quantize/rec/weight"], values["terms/quantize/commit/weight"]) == (1.0, 0.25)

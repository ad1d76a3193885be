"""What TensorBoard shows of a second stage: read back from the event files."""

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from vqtool.diagnostics.recording.records import TokenRecord
from vqtool.diagnostics.recording.token_board import TokenBoardSink


def record(step, targets=(3, 1, 0, 0), gradient=(4.0, 2.0, 1.0, 0.5), codebook="tokens"):
    targets = np.array(targets)
    nll = np.where(targets > 0, np.array([1.0, 2.0, 3.0, 4.0], np.float32) + step, np.nan).astype(np.float32)
    norm, gradient = np.arange(1, 5, dtype=np.float32), np.array(gradient, np.float32)
    return TokenRecord(codebook, step, 10, targets, nll, norm, gradient, 2 * norm, 2 * gradient)


def events(folder, records, **settings):
    with SummaryWriter(str(folder)) as writer:
        sink = TokenBoardSink(writer, **settings)
        for each in records:
            sink.write(each)
        sink.flush()
    return EventAccumulator(str(folder), size_guidance={"histograms": 0}).Reload()


def last(found, name):
    return found.Scalars(f"tokens/{name}")[-1].value


def test_means_are_over_tokens_and_over_codes_with_and_without_targets(tmp_path):
    found = events(tmp_path, [record(10), record(20)])
    assert [e.step for e in found.Scalars("tokens/nll_window")] == [10, 20]
    assert last(found, "tokens_window") == 4
    assert last(found, "codes_targeted_window") == 2
    assert last(found, "nll_window") == pytest.approx((3 * 21 + 1 * 22) / 4)
    assert last(found, "embedding_norm_targets_mean") == 1.5
    assert last(found, "embedding_norm_others_mean") == 3.5
    assert last(found, "head_grad_norm_targets_mean") == 6
    assert last(found, "head_grad_norm_others_mean") == 1.5


def test_what_is_not_there_is_not_shown(tmp_path):
    found = events(tmp_path, [record(10, targets=(1, 1, 1, 1), gradient=[np.nan] * 4)])
    tags = found.Tags()
    assert "tokens/head_norm_targets_mean" in tags["scalars"]
    assert not [tag for tag in tags["scalars"] if "grad_norm" in tag or "others" in tag]
    assert set(tags["histograms"]) == {"tokens/nll", "tokens/embedding_norm", "tokens/head_norm"}


def test_a_window_without_tokens_has_no_likelihood(tmp_path):
    found = events(tmp_path, [record(10, targets=(0, 0, 0, 0))])
    assert last(found, "tokens_window") == 0
    assert "tokens/nll_window" not in found.Tags()["scalars"]


def test_histograms_come_now_and_then_and_count_the_codes(tmp_path):
    found = events(tmp_path, [record(step) for step in range(1, 6)], detail_every=2)
    assert [e.step for e in found.Histograms("tokens/nll")] == [1, 3, 5]
    assert found.Histograms("tokens/nll")[0].histogram_value.num == 2
    assert found.Histograms("tokens/head_grad_norm")[0].histogram_value.num == 4


def test_the_last_histograms_are_of_the_last_record(tmp_path):
    found = events(tmp_path, [record(step) for step in range(1, 5)], detail_every=2)
    assert [e.step for e in found.Histograms("tokens/nll")] == [1, 3, 4]


def test_two_tables_of_codes_have_their_histograms_each(tmp_path):
    names = ("coarse", "fine")
    found = events(tmp_path, [record(step, codebook=name) for step in range(1, 6) for name in names], detail_every=2)
    for name in names:
        assert [e.step for e in found.Histograms(f"{name}/head_norm")] == [1, 3, 5]

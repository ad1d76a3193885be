"""What TensorBoard shows of codebooks: read back from the event files."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer
from torch.utils.tensorboard import SummaryWriter

from vqtool.diagnostics import CodebookMonitor
from vqtool.diagnostics.recording.codebook_board import CHARTS, HEATMAP, TensorBoardSink, add_layout
from vqtool.diagnostics.recording.records import CodebookRecord
from vqtool.diagnostics.recording.rows import TABLES, BoundaryRow, LatentsRow, TermRow
from vqtool.diagnostics.recording.scalars import scalars
from vqtool.diagnostics.recording.sinks import TraceSink
from vqtool.diagnostics.run import RunDirectory
from vqtool.diagnostics.stats.lives import life_order
from vqtool.vqgan.quantizers import StandardQuantizer

CODES, PIXELS = 16, 32  # 16 codes in 512 pixels


def hits(step, codebook="quantize"):
    """Of 16 codes one dies with every ten steps, in no order of their indices; the last never lives."""
    random = np.random.default_rng(len(codebook))
    counts = random.permutation(CODES) * 10 > step
    return np.where(np.arange(CODES) == CODES - 1, 0, counts * random.integers(1, 100, CODES))


def record(step, codebook="quantize"):
    zeros = np.zeros(CODES, np.float32)
    return CodebookRecord(
        codebook, step, 10, hits(step, codebook), zeros, zeros, zeros, zeros, zeros, zeros.astype(int)
    )


def read(folder):
    return EventAccumulator(str(folder), size_guidance={"images": 0, "histograms": 0}).Reload()


def pictures(found, codebook="quantize"):
    return found.Images(f"codebook/{codebook}/{HEATMAP}")


def living(picture):
    """(codes, pixels in time) whether a row of a picture has hits there."""
    pixels = np.array(Image.open(io.BytesIO(picture.encoded_image_string)).convert("RGB"))
    return (pixels != 255).any(axis=2)[::PIXELS]


def assert_shows(picture, steps, codebook="quantize"):
    """The picture is of these records, its codes sorted by their last hit."""
    counts = np.array([hits(step, codebook) for step in steps])
    expected = (counts > 0)[:, life_order(counts)].T
    np.testing.assert_array_equal(living(picture), expected.repeat(512 // len(steps), axis=1))


@pytest.mark.parametrize("records", [1, 9, 11, 15, 20])
def test_the_last_picture_is_of_the_last_record(tmp_path, records):
    steps = [10 * number for number in range(1, records + 1)]
    with SummaryWriter(str(tmp_path)) as writer:
        sink = TensorBoardSink(writer)
        for step in steps:
            sink.write(record(step))
        sink.flush()
    found = read(tmp_path)
    assert [picture.step for picture in pictures(found)] == sorted({10, *steps[10::10], steps[-1]})
    assert_shows(pictures(found)[-1], steps)
    assert found.Histograms("codebook/quantize/norm")[-1].step == steps[-1]
    assert found.Histograms("codebook/quantize/log10(hits + 1)")[-1].step == steps[-1]


def test_no_picture_is_written_twice_however_often_the_sink_is_flushed(tmp_path):
    with SummaryWriter(str(tmp_path)) as writer:
        sink = TensorBoardSink(writer)
        sink.flush()  # nothing came yet
        for step in range(10, 160, 10):
            sink.write(record(step))
            if step in (10, 40):  # a checkpoint: with the first picture, and after one
                sink.flush()
                sink.flush()
        sink.flush()
        sink.flush()
    # ten records after the one of the checkpoint at 40 comes the next; the last is the last
    assert [picture.step for picture in pictures(read(tmp_path))] == [10, 40, 140, 150]


def test_five_codebooks_have_their_pictures_each(tmp_path):
    names = [f"quantizers.{'x' * number}" for number in range(5)]
    steps = [10 * number for number in range(1, 14)]
    with SummaryWriter(str(tmp_path)) as writer:
        sink = TensorBoardSink(writer)
        for step in steps:
            for name in names:
                sink.write(record(step, name))
        sink.flush()
    found = read(tmp_path)
    for name in names:
        assert [picture.step for picture in pictures(found, name)] == [10, 110, 130]
        assert [each.step for each in found.Histograms(f"codebook/{name}/norm")] == [10, 110, 130]
        assert_shows(pictures(found, name)[-1], steps, name)


def test_a_model_with_five_codebooks_has_a_handful_of_pictures_of_each(tmp_path):
    torch.manual_seed(0)
    model = torch.nn.ModuleDict({f"q{number}": StandardQuantizer(CODES, 4) for number in range(5)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with SummaryWriter(str(tmp_path)) as writer:
        monitor = CodebookMonitor(model, optimizer, [TensorBoardSink(writer)], every=2)
        for _ in range(50):
            sum(quantizer(torch.randn(1, 4, 2, 2)).loss for quantizer in model.values()).backward()
            optimizer.step()
        monitor.close()
    found = read(tmp_path)
    assert len(found.Tags()["images"]) == 5
    for name in model:  # 25 records: the first, every tenth after it, the last
        assert [picture.step for picture in pictures(found, name)] == [2, 22, 42, 50]
        assert len(found.Scalars(f"codebook/{name}/perplexity_window")) == 25
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 1 << 20


def test_the_rows_stand_in_the_order_of_the_last_hit_and_the_title_says_so(tmp_path):
    with SummaryWriter(str(tmp_path)) as writer:
        sink = TensorBoardSink(writer)
        for step in range(10, 130, 10):
            sink.write(record(step))
        sink.flush()
    found = read(tmp_path)
    rows = living(pictures(found)[-1])
    last = [row.nonzero()[0].max(initial=-1) for row in rows]
    assert last == sorted(last, reverse=True)
    assert len(set(last)) > 5
    (title,) = [tag for tag in found.Tags()["images"] if "hits" in tag]
    for words in ("code x time", "sorted by last hit", "white = none", "up to the step shown"):
        assert words in title


def test_a_resumed_run_has_a_picture_of_all_of_it(tmp_path, monkeypatch):
    # Files of one second are read in the order of a counter in their names, in which 10 comes before 9.
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))
    run, steps = RunDirectory(tmp_path), [10 * number for number in range(1, 9)]
    for resume_at, part in ((None, steps[:6]), (40, steps[4:])):  # what came after step 40 is recorded again
        with SummaryWriter(str(run.tensorboard), purge_step=resume_at and resume_at + 1) as writer:
            trace, board = TraceSink(run.path, resume_at), TensorBoardSink(writer)
            if resume_at is not None:
                board.recall(run)
                board.flush()  # nothing is new
            for step in part:
                trace.write(record(step))
                board.write(record(step))
            trace.flush()
            board.flush()
    shown = pictures(read(run.tensorboard))
    assert [picture.step for picture in shown] == [10, 80]
    assert_shows(shown[-1], steps)


def test_every_number_of_a_row_is_a_curve_and_what_was_not_measured_is_none(tmp_path):
    with SummaryWriter(str(tmp_path)) as writer:
        sink = TensorBoardSink(writer)
        sink.write_row(BoundaryRow(codebook="vq.0", step=10, ratio=0.5, tokens=128))
        sink.write_row(BoundaryRow(codebook="vq.0", step=20, ratio=0.25, tokens=128))
        sink.write_row(LatentsRow(codebook="vq.0", step=20, spread=2.0, mean=(1.0, 2.0)))
        sink.flush()
    found = read(tmp_path)
    assert set(found.Tags()["scalars"]) == {"boundary/vq.0/ratio", "boundary/vq.0/tokens", "latents/vq.0/spread"}
    assert [(point.step, point.value) for point in found.Scalars("boundary/vq.0/ratio")] == [(10, 0.5), (20, 0.25)]


def test_two_terms_of_a_step_have_a_curve_each(tmp_path):
    with SummaryWriter(str(tmp_path)) as writer:
        sink = TensorBoardSink(writer)
        for term, weight in (("rec", 1.0), ("commit", 0.25)):
            sink.write_row(TermRow(codebook="vq", step=1, term=term, weight=weight))
    found = read(tmp_path)
    assert [found.Scalars(f"terms/vq/{term}/weight")[0].value for term in ("rec", "commit")] == [1.0, 0.25]


def test_the_name_of_the_estimator_is_told_when_it_changes(tmp_path):
    with SummaryWriter(str(tmp_path)) as writer:
        sink = TensorBoardSink(writer)
        for step, name in ((1, None), (2, "rotation"), (3, "rotation"), (4, None), (5, "straight-through")):
            sink.write_row(BoundaryRow(codebook="vq", step=step, estimator=name))
        sink.flush()
    tag = "boundary/vq/estimator/text_summary"
    told = [(point.step, point.tensor_proto.string_val[0].decode()) for point in read(tmp_path).Tensors(tag)]
    assert told == [(2, "rotation"), (5, "straight-through")]


def test_the_layout_names_only_curves_that_are_written(tmp_path):
    zeros = np.zeros(CODES, np.float32)
    full = CodebookRecord("vq", 10, 10, hits(10), *[zeros] * 6)
    known = set(scalars(full)) | {f"{name}/vq/{column}" for name, kind in TABLES.items() for column in kind.columns()}
    charts = [chart for category in CHARTS.values() for chart in category.values()]
    assert {f"{table}/vq/{name}" for table, names in charts for name in names} <= known
    with SummaryWriter(str(tmp_path)) as writer:
        add_layout(writer, "vq")

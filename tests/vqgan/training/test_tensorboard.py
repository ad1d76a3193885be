"""What a run shows in TensorBoard: read back from the event files, and served by the real server."""

import contextlib
import io
import json
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request

import numpy as np
import pytest
from PIL import Image
from runs import power_cut
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vqtool.diagnostics import stats
from vqtool.diagnostics.recording.heatmap import Heatmap
from vqtool.diagnostics.recording.trace import CodebookTrace
from vqtool.diagnostics.run import RunDirectory
from vqtool.vqgan.autoencoder.learner import AutoencoderLearner
from vqtool.vqgan.launch import train


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    config = tiny(quantizer={"spec": "standard+reset:every=4"}, train={"tensorboard": True, "every": 1})
    run = RunDirectory(tmp_path_factory.mktemp("tensorboard") / "run")
    assert train(config, run.path) == "done"
    return run


@pytest.fixture(scope="module")
def events(run):
    accumulator = EventAccumulator(str(run.tensorboard), size_guidance={"tensors": 0, "images": 0, "histograms": 0})
    return accumulator.Reload()


def test_scalars_stand_in_groups_and_equal_the_metrics(run, events):
    groups = {tag.partition("/")[0] for tag in events.Tags()["scalars"]}
    assert groups >= {"loss", "quantizer", "optimizer", "speed", "validation", "codebook", "test"}
    logged = [(row["step"], row["loss/l1"]) for row in run.read_metrics() if "loss/l1" in row]
    assert [(e.step, pytest.approx(e.value)) for e in events.Scalars("loss/l1")] == logged


def test_codebook_scalars_are_recomputed_from_the_trace(run, events):
    trace = CodebookTrace.load(run.trace / "quantize")
    for tag, statistic in {"codes_used_window": stats.codes_used, "perplexity_window": stats.perplexity}.items():
        series = events.Scalars(f"codebook/quantize/{tag}")
        assert [e.step for e in series] == trace.steps.tolist()
        np.testing.assert_allclose([e.value for e in series], statistic(trace.hits), rtol=1e-5)


def test_histograms_count_every_code(events):
    for name in ("norm", "grad_norm", "pull_norm", "log10(hits + 1)"):
        histograms = events.Histograms(f"codebook/quantize/{name}")
        steps = [h.step for h in histograms]
        assert (steps[0], steps[-1]) == (1, 12)
        assert len(steps) == len(set(steps))
        assert all(h.histogram_value.num == 16 for h in histograms)


def test_reconstructions_and_the_heatmap_are_images(events):
    tags = events.Tags()["images"]
    assert any("reconstructions" in tag for tag in tags)
    assert any("code x time" in tag for tag in tags)


def test_the_last_picture_is_of_the_last_record_and_none_is_there_twice(run, events):
    (tag,) = [tag for tag in events.Tags()["images"] if "code x time" in tag]
    steps = [picture.step for picture in events.Images(tag)]
    assert steps[-1] == CodebookTrace.load(run.trace / "quantize").steps[-1] == 12
    assert len(steps) == len(set(steps))


def test_the_heatmap_of_a_resumed_run_goes_back_to_its_first_record(tiny, tmp_path):
    config, run = tiny(train={"tensorboard": True, "every": 1}), RunDirectory(tmp_path / "run")
    with power_cut(AutoencoderLearner, at=8):
        train(config, run.path)
    assert train(config, run.path, resume=True) == "done"
    found = EventAccumulator(str(run.tensorboard), size_guidance={"images": 0}).Reload()
    (tag,) = [tag for tag in found.Tags()["images"] if "code x time" in tag]
    picture, heatmap = found.Images(tag)[-1], Heatmap(16)
    for hits in CodebookTrace.load(run.trace / "quantize").hits:
        heatmap.add(hits)
    assert picture.step == 12
    np.testing.assert_array_equal(Image.open(io.BytesIO(picture.encoded_image_string)), heatmap.image())


def test_the_projector_has_the_codes_with_hits_and_norm(run):
    (metadata,) = run.tensorboard.glob("*/quantize/metadata.tsv")
    header, *rows = metadata.read_text().splitlines()
    assert header.split("\t") == ["code", "hits", "norm"]
    assert len(rows) == 16
    assert sum(int(row.split("\t")[1]) for row in rows) == run.read_json(run.evaluation("test"))["tokens"]


def test_settings_and_final_metrics_are_there_for_the_hparams_page(run, events):
    assert {"_hparams_/experiment", "_hparams_/session_start_info"} <= set(events.summary_metadata)
    (final,) = events.Scalars("test/psnr")
    assert final.value == pytest.approx(run.read_json(run.evaluation("test"))["psnr"], rel=1e-6)


def test_the_custom_scalars_page_has_its_layout(events):
    assert "custom_scalars__config__" in events.Tags()["tensors"]


@pytest.mark.slow
def test_the_real_server_serves_the_run(run):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(run.path), "--port", str(port)]
    server = subprocess.Popen([*command, "--load_fast=false"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        tags = _ask(server, f"http://127.0.0.1:{port}/data/plugin/scalars/tags")
        assert "codebook/quantize/perplexity_window" in tags["tensorboard"]
        query = "run=tensorboard&tag=codebook/quantize/codes_used_window"
        series = _ask(server, f"http://127.0.0.1:{port}/data/plugin/scalars/scalars?{query}")
        assert [step for _, step, _ in series] == list(range(1, 13))
        query = urllib.parse.quote(json.dumps({"experimentName": "", "hparamsLimit": 1000}))
        page = _ask(server, f"http://127.0.0.1:{port}/data/plugin/hparams/experiment?request={query}")
        columns = ["quantizer.spec", "quantizer.codebook_size", "train.seed", "optimizer.lr", "train.steps"]
        assert [each["displayName"] for each in page["hparamInfos"]][:5] == columns
        figures = ["test/codes_used_split", "test/perplexity_split", "test/psnr"]
        assert [each["name"]["tag"] for each in page["metricInfos"]][:3] == figures
    finally:
        server.terminate()
        server.wait()


def _ask(server, url, patience=60):
    deadline = time.monotonic() + patience
    while True:
        assert server.poll() is None, "the server ended"
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
            if content := json.load(answer):
                return content
        assert time.monotonic() < deadline, f"no answer from {url}"
        time.sleep(0.2)

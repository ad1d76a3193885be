"""Runs: resumed with uninterrupted, failed, stopped, and what they leave behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest
import torch
from lightning_fabric.plugins.precision import Precision
from runs import assert_same_run, metrics, power_cut, state

from vqtool.diagnostics import CodebookTrace, InputError
from vqtool.diagnostics.errors import RunFailedError
from vqtool.diagnostics.run import RunDirectory
from vqtool.vqgan.autoencoder.learner import AutoencoderLearner
from vqtool.vqgan.launch import train

GAN = {"disc_start": 4, "disc_channels": 8, "disc_layers": 1}


@pytest.mark.parametrize("spec", ["standard+reset:every=4", "ema+reset:every=4", "entropy", "gumbel"])
def test_a_run_that_broke_off_goes_on_as_if_it_had_not(tiny, tmp_path, spec):
    config = tiny(quantizer={"spec": spec}, loss=GAN, optimizer={"schedule": "cosine", "warmup_steps": 3})
    whole, broken = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "broken")
    train(config, whole.path)

    with power_cut(AutoencoderLearner, at=8):
        train(config, broken.path)
    assert not broken.done.exists()
    assert train(config, broken.path, resume=True) == "done"
    assert_same_run(whole, broken)


def test_a_new_run_in_the_folder_of_another_is_refused_before_anything_is_written(tiny, tmp_path):
    train(tiny(), tmp_path / "run")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="run holds the records of a run already, up to step"):
        train(tiny(train={"seed": 1}), tmp_path / "run")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_a_run_killed_in_the_middle_goes_on_bit_for_bit(tiny, tmp_path):
    config = tiny(
        quantizer={"spec": "gumbel+reset:every=20"},
        loss=GAN,
        train={"steps": 240, "checkpoint_every": 10, "log_every": 1, "every": 7, "validate_every": 60},
    )
    whole, killed = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "killed")
    train(config, whole.path)
    file = tmp_path / "config.yaml"
    file.write_text(config.to_yaml())
    process = subprocess.Popen(
        [sys.executable, "-m", "vqtool", "train", "--config", str(file), "--out", str(killed.path)],
        stdout=subprocess.DEVNULL,
    )
    while len(killed.read_metrics()) < 25 and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run was over before it could be killed"
    assert not killed.done.exists()
    train(config, killed.path, resume=True)
    assert_same_run(whole, killed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_a_step_with_a_checkpoint(tiny, tmp_path, number):
    config = tiny(train={"steps": 400, "checkpoint_every": 400, "validate_every": None})
    run = RunDirectory(tmp_path / "run")

    def stop():
        while len(run.read_metrics()) < 2:
            time.sleep(0.005)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=stop)
    thread.start()
    assert train(config, run.path) == "interrupted"
    thread.join()
    stopped_at = state(run)["step"]
    assert 0 < stopped_at < 400
    assert not run.done.exists()
    shorter = tiny(train={"steps": stopped_at + 5, "checkpoint_every": 400, "validate_every": None})
    assert train(shorter, run.path, resume=True) == "done"
    assert state(run)["step"] == stopped_at + 5


def test_a_loss_that_is_not_finite_ends_the_run_with_a_finding(tiny, tmp_path):
    config = tiny(optimizer={"lr": 1e25}, train={"log_every": 2, "checkpoint_every": 1})
    run = RunDirectory(tmp_path / "run")
    with pytest.raises(RunFailedError, match="not finite within the 2 steps up to") as error:
        train(config, run.path)
    assert "\n" not in str(error.value)
    assert '"check": "finite losses"' in run.findings.read_text()
    failed = torch.load(run.checkpoints / "failed.ckpt", weights_only=True)
    last = torch.load(run.checkpoints / "last.ckpt", weights_only=True)
    assert last["step"] < failed["step"]
    assert not run.done.exists()


def test_a_run_leaves_what_a_report_needs(tiny, tmp_path):
    run = RunDirectory(tmp_path / "run")
    assert train(tiny(), run.path) == "done"
    summary = run.read_json(run.done)
    assert summary["steps"] == 12
    assert summary["epochs"] == 2
    assert summary["trainable_parameters"] > 16 * 8
    evaluation = run.read_json(run.evaluation("test"))
    assert evaluation["tokens"] == 8 * 8 * 8
    assert 1 <= evaluation["codes_used_split"] <= 16
    assert sorted(path.name for path in run.samples.iterdir()) == [
        "reconstructions-0000006.png",
        "reconstructions-0000012.png",
    ]
    trace = pd.read_parquet(run.trace / "quantize")
    assert trace.step.unique().tolist() == [3, 6, 9, 12]
    assert (trace.groupby("step").hits.sum() == 3 * 4 * 8 * 8).all()
    environment = run.read_json(run.environment)
    assert torch.__version__.startswith(environment["versions"]["torch"].partition("+")[0])
    assert environment["world_size"] == 1


@pytest.mark.slow
def test_two_devices_do_what_one_does(tiny, tmp_path):
    runs = {}
    for devices in (1, 2):
        runs[devices] = RunDirectory(tmp_path / f"{devices}")
        config = tiny(
            quantizer={"spec": "ema+reset:every=4"}, loss=GAN, train={"devices": devices, "steps": 6, "every": 1}
        )
        # In a process of its own: the launcher of several devices forks from a fresh interpreter.
        file = tmp_path / f"{devices}.yaml"
        file.write_text(config.to_yaml())
        command = ["train", "--config", str(file), "--out", str(runs[devices].path)]
        subprocess.run([sys.executable, "-m", "vqtool", *command], check=True, stdout=subprocess.DEVNULL)
    one, two = (pd.read_parquet(run.trace / "quantize") for run in runs.values())
    np.testing.assert_array_equal(one.hits[one.step == 1], two.hits[two.step == 1])
    np.testing.assert_allclose(one.pull_norm[one.step == 1], two.pull_norm[two.step == 1], rtol=1e-3, atol=1e-7)
    assert (one.groupby("step").hits.sum() == two.groupby("step").hits.sum()).all()
    assert two.resets.sum() == pytest.approx(one.resets.sum(), abs=3)
    first, second = (state(run)["learner"]["model"] for run in runs.values())
    for name in first:
        if name.startswith("encoder"):
            torch.testing.assert_close(first[name], second[name], rtol=0, atol=5e-3)


def test_bfloat16_leaves_the_codebook_in_float32(tiny, tmp_path):
    run = RunDirectory(tmp_path / "run")
    assert train(tiny(train={"precision": "bf16"}), run.path) == "done"
    assert state(run)["learner"]["model"]["quantize.embedding.weight"].dtype == torch.float32
    assert np.isfinite([row["loss/total"] for row in metrics(run) if "loss/total" in row]).all()


@pytest.mark.parametrize("stopped", [False, True])
def test_a_step_that_is_skipped_leaves_trace_and_run_in_step(tiny, tmp_path, stopped):
    step, calls = Precision.optimizer_step, iter(range(1, 100))

    def skipping(self, optimizer, **options):  # as a gradient scaler does after an overflow
        return None if next(calls) in (4, 6) else step(self, optimizer, **options)

    config, run = tiny(train={"steps": 12, "every": 3, "checkpoint_every": 5}), RunDirectory(tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Precision, "optimizer_step", skipping)
        with power_cut(AutoencoderLearner, at=8) if stopped else nullcontext():
            train(config, run.path)
    if stopped:
        train(config, run.path, resume=True)
    trace = CodebookTrace.load(run.trace / "quantize")
    assert trace.steps.tolist() == [3, 6, 9, 12]
    assert trace.window.tolist() == [3, 3, 3, 3]
    assert len(set(trace.hits.sum(1))) == 1

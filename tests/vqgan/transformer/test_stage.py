"""Runs of the second stage: resumed with uninterrupted, two ranks with one, and what they leave alone."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from runs import assert_same_run, metrics, power_cut, same, state

from vqtool.diagnostics.errors import InputError
from vqtool.diagnostics.run import RunDirectory
from vqtool.vqgan.config.layers import merge
from vqtool.vqgan.launch import evaluate, train
from vqtool.vqgan.transformer.learner import TransformerLearner
from vqtool.vqgan.transformer.settings import build_transformer_config
from vqtool.vqgan.transformer.tokenizer import Tokenizer
from vqtool.vqgan.transformer.trained import Trained

SMALL = {
    "transformer": {"layers": 2, "heads": 2, "width": 16, "pkeep": 0.8, "dropout": 0.1},
    "optimizer": {"lr": 1e-2, "warmup_steps": 3, "schedule": "cosine", "clip_norm": 1.0},
    "train": {
        "steps": 12,
        "batch_size": 4,
        "every": 5,
        "log_every": 2,
        "validate_every": 6,
        "checkpoint_every": 5,
        "tensorboard": False,
        "device": "cpu",
    },
    "sampling": {"count": 6},
}


@pytest.fixture(scope="module")
def first(tiny, tmp_path_factory):
    """A finished first stage of two classes: 16 codes, 8 x 8 of them an image."""
    run = RunDirectory(tmp_path_factory.mktemp("first") / "run")
    train(tiny(quantizer={"spec": "ema+reset:every=4"}), run.path)
    return run


@pytest.fixture(scope="module")
def second(first):
    """A function from settings to those of a tiny second stage."""
    return lambda **branches: build_transformer_config(merge(SMALL | {"first_stage": str(first.path)}, branches))


@pytest.mark.parametrize("condition", [{"kind": "none"}, {"kind": "class", "drop": 0.3}, {"kind": "coordinates"}])
def test_a_run_that_broke_off_goes_on_as_if_it_had_not(second, tmp_path, condition):
    config = second(condition=condition)
    whole, broken = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "broken")
    train(config, whole.path)

    with power_cut(TransformerLearner, at=8):
        train(config, broken.path)
    assert not broken.done.exists()
    assert train(config, broken.path, resume=True) == "done"
    assert_same_run(whole, broken)


def test_the_first_stage_is_never_updated(first, second, tmp_path):
    before = Tokenizer.of_run(first.path)
    files = {path: path.read_bytes() for path in first.path.rglob("*") if path.is_file()}
    run = RunDirectory(tmp_path / "run")
    train(second(), run.path)
    assert {path: path.read_bytes() for path in first.path.rglob("*") if path.is_file()} == files
    kept = Tokenizer.load(run.checkpoints / "first-stage.ckpt")
    assert kept.fingerprint == before.fingerprint
    same(kept.model.state_dict(), before.model.state_dict())


def test_a_run_needs_its_first_stage_only_to_begin(first, second, tmp_path):
    run, moved = RunDirectory(tmp_path / "run"), first.path.with_name("moved")
    train(second(train={"steps": 6}), run.path)
    first.path.rename(moved)
    try:
        figures = evaluate(run, "test", device="cpu")
        assert train(second_from(run, steps=8), run.path, resume=True) == "done"
    finally:
        moved.rename(first.path)
    assert figures == {"checkpoint": "last", "step": 6, **figures}
    assert run.read_json(run.done)["steps"] == 8


def second_from(run, **settings):
    """The settings in a run folder, with others of its ``train`` branch."""
    from vqtool.diagnostics.run import load_config

    return build_transformer_config(merge(load_config(run.config), {"train": settings}))


def test_a_run_does_not_go_on_with_other_data(second, tmp_path, first):
    run = RunDirectory(tmp_path / "run")
    train(second(train={"steps": 6}), run.path)
    last = torch.load(run.checkpoints / "last.ckpt", weights_only=True)
    last["learner"]["data"]["train_hits"][0] += 1
    torch.save(last, run.checkpoints / "last.ckpt")
    with pytest.raises(InputError, match="the train_hits of the training data are not what they were"):
        train(second(train={"steps": 8}), run.path, resume=True)


def test_evaluating_again_gives_the_figures_of_the_end_of_training(second, tmp_path):
    run = RunDirectory(tmp_path / "run")
    train(second(condition={"kind": "class", "drop": 0.1}), run.path)
    end, codes = run.read_json(run.evaluation("test")), pd.read_parquet(run.codes("test"))
    again = evaluate(run, "test", device="cpu")
    assert again["nll"] == pytest.approx(end["nll"], rel=1e-6)
    assert {**again, "nll": 0, "bits_per_dim": 0, "token_perplexity": 0, "dead_mass": 0} == {
        **end, "nll": 0, "bits_per_dim": 0, "token_perplexity": 0, "dead_mass": 0
    }  # fmt: skip
    pd.testing.assert_frame_equal(pd.read_parquet(run.codes("test")), codes)


def test_a_transformer_learns_the_codes_of_its_images(second, tmp_path):
    run = RunDirectory(tmp_path / "run")
    config = second(
        transformer={"pkeep": 1.0, "dropout": 0.0, "width": 32},
        train={"steps": 120, "validate_every": None, "checkpoint_every": 120},
        data={"flip": False},
    )
    train(config, run.path)
    rows = [row["loss/nll"] for row in metrics(run) if "loss/nll" in row]
    trained = Trained.load(run, "last", "cpu")
    share = trained.train_hits[trained.train_hits > 0] / trained.train_hits.sum()
    entropy = -(share * np.log(share)).sum()
    assert rows[-1] < entropy - 0.1, "no better than the frequencies of the codes"


def test_a_run_leaves_what_a_report_needs(second, tmp_path):
    run = RunDirectory(tmp_path / "run")
    assert train(second(), run.path) == "done"
    assert run.read_json(run.done)["steps"] == 12
    trace = pd.read_parquet(run.trace / "tokens")
    assert trace.step.unique().tolist() == [5, 10, 12]
    assert trace.groupby("step").targets.sum().tolist() == [5 * 4 * 64, 5 * 4 * 64, 2 * 4 * 64]
    names = sorted(path.name for path in run.samples.iterdir())
    assert names == ["completions-0000006.png", "completions-0000012.png", "samples-0000012.png"]
    figures = run.read_json(run.evaluation("test"))
    assert figures["tokens"] == 8 * 64
    assert figures["bits_per_dim"] == pytest.approx(figures["nll"] * 64 / np.log(2) / (3 * 16 * 16))


def test_micro_batches_add_up_to_the_batch(second, tmp_path):
    runs = {}
    for parts in (1, 2):
        runs[parts] = RunDirectory(tmp_path / f"{parts}")
        settings = {"transformer": {"pkeep": 1.0, "dropout": 0.0}, "train": {"accumulate": parts, "steps": 6}}
        train(second(**settings), runs[parts].path)
    one, two = (state(run)["learner"]["model"] for run in runs.values())
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=0, atol=2e-3)
    one, two = (pd.read_parquet(run.trace / "tokens") for run in runs.values())
    assert (one.targets == two.targets).all()
    np.testing.assert_allclose(one.nll, two.nll, rtol=1e-3)


@pytest.mark.slow
def test_two_devices_do_what_one_does(second, tmp_path):
    runs = {}
    for devices in (1, 2):
        runs[devices] = RunDirectory(tmp_path / f"{devices}")
        settings = {
            "transformer": {"pkeep": 1.0, "dropout": 0.0},
            "condition": {"kind": "class"},
            "train": {"devices": devices, "steps": 6, "every": 1},
        }
        file = tmp_path / f"{devices}.yaml"
        file.write_text(second(**settings).to_yaml())
        command = ["train", "--config", str(file), "--out", str(runs[devices].path)]
        subprocess.run([sys.executable, "-m", "vqtool", *command], check=True, stdout=subprocess.DEVNULL)
    one, two = (pd.read_parquet(run.trace / "tokens") for run in runs.values())
    assert (one.targets == two.targets).all()
    np.testing.assert_allclose(one.nll, two.nll, rtol=1e-3)
    np.testing.assert_allclose(one.head_grad_norm, two.head_grad_norm, rtol=2e-2, atol=1e-6)
    one, two = (run.read_json(run.evaluation("test")) for run in runs.values())
    assert one["nll"] == pytest.approx(two["nll"], rel=1e-3)
    assert (one["tokens"], one["samples"]) == (two["tokens"], two["samples"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"codebook_size": 32}, "has 16 codes, codebook_size is 32"),
        ({"data": {"image_size": 32}}, "is for images of 16 pixels, data.image_size is 32"),
        ({"transformer": {"sos": 40}}, "transformer.sos 40 is no token: there are 17, 0 to 16"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(second, tmp_path, change, words):
    with pytest.raises(InputError, match=words) as error:
        train(second(**change), tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()

"""Looks at the validation split."""

import numpy as np
import pytest
import torch

from vqtool.diagnostics import stats
from vqtool.vqgan.autoencoder.evaluation import evaluate_split
from vqtool.vqgan.autoencoder.model import build_model
from vqtool.vqgan.autoencoder.objective import Reconstruction
from vqtool.vqgan.autoencoder.validation import validate
from vqtool.vqgan.data import normalize
from vqtool.vqgan.data.batches import spread
from vqtool.vqgan.data.opening import open_images
from vqtool.vqgan.data.views import view_named

PHOTOGRAPH = view_named("image")


@pytest.fixture
def setting(tiny):
    config = tiny()
    return build_model(config), Reconstruction(config.loss), open_images(config.data)["validation"], config


def test_a_look_at_part_of_a_split_is_spread_over_all_of_it():
    assert spread(4, 8).tolist() == [0, 2, 4, 6]
    assert spread(3, 10).tolist() == [0, 3, 6]
    assert spread(8, 8).tolist() == list(range(8))


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_the_figures_do_not_depend_on_the_batches(setting, batch_size):
    model, reconstruction, images, _ = setting
    with torch.no_grad():
        everything = normalize(images.batch(np.arange(8))[0])
        made, output = model.eval()(everything)
    values, grid = validate(model, PHOTOGRAPH, reconstruction, images, 100, batch_size)
    hits = np.bincount(output.indices.flatten(), minlength=16)
    assert values["validation/l1"] == pytest.approx((everything - made).abs().mean().item(), rel=1e-5)
    assert values["validation/codes_used_split"] == stats.codes_used(hits)
    assert values["validation/codes_used_split_ceiling"] == stats.expected_codes_used(16, hits.sum())
    assert values["validation/perplexity_split"] == pytest.approx(stats.perplexity(hits))
    assert grid.shape == (3, 2 * 18 + 2, 8 * 18 + 2)


def test_codes_counted_over_part_of_the_split_have_another_name(setting):
    model, reconstruction, images, _ = setting
    values, _ = validate(model, PHOTOGRAPH, reconstruction, images, 5, 4)
    assert values["validation/images"] == 5
    assert "validation/codes_used_in_5_images" in values
    assert "validation/codes_used_split" not in values


def test_a_look_leaves_the_mode_of_the_model(setting):
    model, reconstruction, images, _ = setting
    model.train()
    validate(model, PHOTOGRAPH, reconstruction, images, 8, 4)
    assert model.training


def test_an_evaluation_counts_every_token_of_the_split_once(setting):
    model, _, images, config = setting
    figures, hits = evaluate_split(model, images, config, "validation")
    assert figures["images"] == 8
    assert figures["tokens"] == hits.sum() == 8 * 8 * 8
    assert figures["tokens_per_code"] == 8 * 8 * 8 / 16
    assert figures["missing"].keys() >= {"rfid"} or figures["rfid"] is not None

"""A run small enough for tests: real images in folders, a real model of two levels."""

import numpy as np
import pytest
import torch
from PIL import Image

from vqtool.vqgan.autoencoder.settings import build_autoencoder_config
from vqtool.vqgan.config.layers import merge
from vqtool.vqgan.data.opening import open_images
from vqtool.vqgan.launch import train
from vqtool.vqgan.transformer.conditions import open_condition
from vqtool.vqgan.transformer.model import build_transformer
from vqtool.vqgan.transformer.settings import build_transformer_config
from vqtool.vqgan.transformer.split import CodeSplit
from vqtool.vqgan.transformer.tokenizer import Tokenizer
from vqtool.vqgan.transformer.trained import cache_of

TINY = {
    "data": {"image_size": 16},
    "model": {"ch": 32, "ch_mult": [1, 1], "num_res_blocks": 1, "attn_resolutions": [], "z_channels": 8},
    "quantizer": {"codebook_size": 16, "dim": 8},
    "optimizer": {"lr": 1e-3},
    "train": {
        "steps": 12,
        "batch_size": 4,
        "every": 3,
        "log_every": 2,
        "validate_every": 6,
        "checkpoint_every": 5,
        "tensorboard": False,
        "device": "cpu",
    },
}

#: A first stage of 4 x 4 codes, most of which occur, and a second stage upon it.
FIRST_STAGE = {
    "model": {"ch_mult": [1, 1, 1]},
    "quantizer": {"init": "kmeans", "kmeans_batches": 6},
    "train": {"steps": 2, "validate_every": None},
}
SECOND_STAGE = {
    "transformer": {"layers": 1, "heads": 2, "width": 16},
    "optimizer": {"lr": 1e-3},
    "sampling": {"count": 12},
    "train": TINY["train"],
}
GRID = (4, 4)


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory):
    """Smooth random images, 24 in two classes for training and 8 for each other split."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("validation", 8), ("test", 8)):
        for number in range(count):
            folder = root / split / ("even" if number % 2 == 0 else "odd")
            folder.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8))
            coarse.resize((16, 16), Image.Resampling.BICUBIC).save(folder / f"{number:02d}.png")
    return root


@pytest.fixture(scope="session")
def tiny(image_folder, tmp_path_factory):
    """A function from settings to a tiny config over the image folder."""
    cache = tmp_path_factory.getbasetemp() / "cache"

    def configure(**branches):
        data = {"data": {"spec": f"folder:{image_folder}", "cache": str(cache)}}
        return build_autoencoder_config(merge(merge(TINY, data), branches))

    return configure


@pytest.fixture(scope="session")
def first_stage(tiny, tmp_path_factory):
    """The folder of a finished run of the first stage: 16 codes, 4 x 4 of them an image."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    assert train(tiny(**FIRST_STAGE), folder) == "done"
    return folder


@pytest.fixture(scope="session")
def second_stage(first_stage):
    """A function from settings to a tiny config of a second stage over ``first_stage``."""

    def configure(**branches):
        return build_transformer_config(merge({"first_stage": str(first_stage), **SECOND_STAGE}, branches))

    return configure


@pytest.fixture(scope="session")
def tokenizer(first_stage):
    """The frozen first stage."""
    return Tokenizer.of_run(first_stage)


@pytest.fixture(scope="session")
def splits(tokenizer):
    """The images of the splits, by name."""
    return open_images(tokenizer.config.data)


@pytest.fixture(scope="session")
def code_model(second_stage, tokenizer, splits):
    """A function from settings to a transformer in evaluation mode, and a split of the codes that it is to predict.

    Its weights are random and far from their initial values, so that its predictions differ from each other.
    """

    def make(split="test", **branches):
        config = second_stage(**branches)
        condition = open_condition(config, splits["train"].classes, GRID, None, cache_of(config))
        model = build_transformer(config, condition, GRID).eval()
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
        return model, CodeSplit(tokenizer, splits[split], condition, cache_of(config))

    return make

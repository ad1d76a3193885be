"""A run small enough for tests: real images in folders, a real model of two levels."""

import numpy as np
import pytest
from PIL import Image

from vqtool.vqgan.settings import build_config, merge

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
        return build_config(merge(merge(TINY, data), branches))

    return configure

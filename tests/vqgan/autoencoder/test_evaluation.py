"""Usage over a whole split: with intervals over its images, the same in one process and in several."""

import json

import numpy as np
import pytest
import ranks
import torch

from vqtool.diagnostics import stats
from vqtool.vqgan.autoencoder.evaluation import evaluate_split
from vqtool.vqgan.autoencoder.model import build_model
from vqtool.vqgan.data import normalize
from vqtool.vqgan.data.opening import open_images

USAGE = {"codes_used_split": "used", "perplexity_split": "perplexity", "perplexity_corrected_split": "corrected"}
USAGE |= {"coverage_split": "coverage", "codes_in_use_chao1_split": "chao1", "codes_used_ceiling": "ceiling"}


class Cycled:
    """As many images as one likes: those of a split again and again."""

    def __init__(self, images, count):
        self.images, self.count = images, count

    def __len__(self):
        return self.count

    def batch(self, chosen):
        return self.images.batch(chosen % len(self.images))


def evaluated(config, images):
    torch.manual_seed(0)
    model = build_model(config)
    return model, evaluate_split(model, images, config, "test")


def test_usage_is_that_of_the_images_and_their_codes(tiny):
    config = tiny()
    images = Cycled(open_images(config.data)["train"], 40)  # two batches
    model, (figures, hits) = evaluated(config, images)
    with torch.no_grad():
        everything = normalize(images.batch(np.arange(40))[0])
        indices = model.eval()(everything)[1].indices.flatten(1).numpy()
    np.testing.assert_array_equal(hits, np.bincount(indices.ravel(), minlength=16))
    seen = stats.usage_of_images(indices, 16, "the whole test split")
    assert {name: figures[name] for name in USAGE} == {name: getattr(seen, key) for name, key in USAGE.items()}
    assert figures["usage"] == str(seen)
    assert (figures["perplexity_low_split"], figures["perplexity_high_split"]) == seen.units.perplexity[:2]
    assert figures["codes_in_use_low_split"] == seen.units.in_use.low
    assert figures["perplexity_low_split"] < figures["perplexity_high_split"]
    json.dumps(figures, allow_nan=False)


def test_too_few_images_have_no_interval_and_say_null(tiny):
    config = tiny()
    _, (figures, _) = evaluated(config, Cycled(open_images(config.data)["test"], 4))
    assert figures["images"] == 4
    for end in ("perplexity_low_split", "perplexity_high_split", "codes_in_use_low_split"):
        assert figures[end] is None


@pytest.mark.slow
def test_several_ranks_see_what_one_process_sees(tiny, tmp_path):
    config = tiny()
    _, (alone, _) = evaluated(config, open_images(config.data)["test"])
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    torch.multiprocessing.spawn(ranks.evaluate_test_split, args=(tmp_path,), nprocs=ranks.RANKS)
    for rank in range(ranks.RANKS):
        figures = json.loads((tmp_path / f"rank{rank}.json").read_text())
        assert figures["usage"] == alone["usage"]
        for name, value in alone.items():
            if isinstance(value, int | float):
                assert figures[name] == pytest.approx(value, rel=1e-5), name

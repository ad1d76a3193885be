import urllib.request
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from drawn import drawn

from vqtool.diagnostics.errors import InputError
from vqtool.vqgan.data import SPLITS, Images, open_data
from vqtool.vqgan.data.photos import EVALUATION_CROPS, PHOTOGRAPHS, region, tiles


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def data(cache) -> dict[str, Images]:
    return open_data("photos", 32, cache=cache)


@pytest.mark.parametrize(("height", "width"), [(512, 512), (300, 451), (451, 300), (101, 7), (33, 34)])
def test_every_pixel_of_a_photograph_is_in_exactly_one_split(height, width):
    owners = np.zeros((height, width), int)
    for split in SPLITS:
        owners[region(split, height, width)] += 1
    assert (owners == 1).all()


@pytest.mark.parametrize(("height", "width"), [(512, 512), (300, 451), (1411, 1411)])
def test_training_gets_70_percent_and_the_others_15_each(height, width):
    shares = [owners.size for owners in (np.zeros((height, width))[region(split, height, width)] for split in SPLITS)]
    assert np.allclose(np.array(shares) / (height * width), [0.70, 0.15, 0.15], atol=0.004)


def test_the_class_is_the_photograph(data):
    assert data["train"].classes == tuple(PHOTOGRAPHS)
    for images in data.values():
        assert set(images.labels.tolist()) == set(range(14))


@pytest.mark.parametrize("split", SPLITS)
def test_crops_are_cut_out_of_the_region_of_their_split(data, split):
    chelsea = skimage.data.chelsea()
    own = np.lib.stride_tricks.sliding_window_view(chelsea[region(split, *chelsea.shape[:2])], (32, 32), (0, 1))
    images = data[split]
    of_chelsea = np.flatnonzero(images.labels == images.classes.index("chelsea"))
    crops = torch.cat([images.batch(of_chelsea[-1:])[0], drawn(images, of_chelsea[-1:], seed=0)[0]])
    for crop in crops.numpy():
        assert any((own == either).all((2, 3, 4)).any() for either in (crop, crop[:, :, ::-1]))


def test_an_epoch_of_training_has_as_many_crops_as_tiles(data):
    height, width = 300, 451 * 7 // 10
    assert data["train"].labels.tolist().count(data["train"].classes.index("chelsea")) == (height // 32) * (width // 32)


def test_tiles_do_not_overlap_and_stay_inside():
    covered = np.zeros((100, 70), int)
    for top, left in tiles(16, "train", 100, 70):
        assert top + 16 <= 100
        assert left + 16 <= 70
        covered[top : top + 16, left : left + 16] += 1
    assert covered.max() == 1
    assert covered.sum() == 6 * 4 * 16 * 16


def test_evaluation_takes_tiles_from_the_whole_region_but_not_too_many(data):
    corners = tiles(8, "validation", 200, 200)
    assert len(set(corners)) == EVALUATION_CROPS
    assert corners[0] == (0, 0)
    assert corners[-1] == (192, 192)
    assert set(corners) <= set(tiles(8, "train", 200, 200))
    assert max(np.bincount(data["test"].labels)) <= EVALUATION_CROPS


def test_grey_photographs_have_three_equal_channels(data):
    images = data["train"]
    grey = np.flatnonzero(images.labels == images.classes.index("camera"))
    crops = images.batch(grey)[0]
    assert torch.equal(crops[:, 0], crops[:, 1])
    assert torch.equal(crops[:, 0], crops[:, 2])
    assert crops.float().std() > 20


@pytest.mark.parametrize(("image_size", "classes"), [(16, 14), (64, 14), (128, 13), (256, 2)])
def test_every_usual_image_size_is_served(cache, image_size, classes):
    data = open_data("photos", image_size, cache=cache)
    assert len(data["train"].classes) == classes
    for images in data.values():
        assert images.batch([len(images) - 1])[0].shape == (1, 3, image_size, image_size)


def test_a_size_that_no_photograph_has_room_for_is_refused(cache):
    with pytest.raises(InputError, match=r"image size 512 .* at most 424"):
        open_data("photos", 512, cache=cache)


def test_no_photograph_is_downloaded(tmp_path, monkeypatch):
    def no_network(*arguments, **options):
        raise AssertionError("the network was asked")

    monkeypatch.setattr("socket.socket.connect", no_network)
    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    monkeypatch.setattr(skimage.data, "download_all", no_network)
    assert len(open_data("photos", 64, cache=tmp_path)["test"]) > 100

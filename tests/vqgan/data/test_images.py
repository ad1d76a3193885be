import numpy as np
import pytest
import torch
from drawn import drawn

from vqtool.diagnostics.errors import InputError
from vqtool.vqgan.data import DecodeReport, Images, normalize


def coordinates(height: int, width: int) -> np.ndarray:
    """A picture whose red is the row and whose green is the column of each pixel."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.zeros_like(rows)]).astype(np.uint8)


@pytest.fixture
def images() -> Images:
    pictures = [coordinates(8, 8), coordinates(12, 20), coordinates(30, 9)]
    crops = [(8, 8, 0, 0, 5), (12, 20, 2, 6, 7), (30, 9, 11, 0, 7)]
    offsets = np.cumsum([0] + [picture.size for picture in pictures])[:-1]
    table = np.array([(offset, *crop) for offset, crop in zip(offsets, crops, strict=True)], np.int64)
    pixels = np.concatenate([picture.ravel() for picture in pictures])
    return Images(pixels, table, 8, ("a",) * 8, [], DecodeReport(3, 1.0, False))


def place(crop: torch.Tensor) -> tuple[int, int, bool]:
    """Where a crop of `coordinates` was taken, after checking every pixel of it."""
    flipped = bool(crop[1, 0, 0] > crop[1, 0, -1])
    upright = crop.flip(-1) if flipped else crop
    top, left = int(upright[0, 0, 0]), int(upright[1, 0, 0])
    expected = coordinates(64, 64)[:, top : top + 8, left : left + 8]
    assert np.array_equal(upright.numpy(), expected)
    return top, left, flipped


def test_a_fixed_batch_is_the_crop_of_the_table(images):
    crops, labels = images.batch(np.array([2, 0, 1, 1]))
    assert [place(crop) for crop in crops] == [(11, 0, False), (0, 0, False), (2, 6, False), (2, 6, False)]
    assert labels.tolist() == [7, 5, 7, 7]
    assert crops.shape == (4, 3, 8, 8)
    assert crops.dtype == torch.uint8
    assert crops.is_contiguous()


def test_random_crops_reach_every_place_and_both_directions_equally(images):
    crops, _ = drawn(images, np.full(4000, 1), seed=0)
    places = [place(crop) for crop in crops]
    tops, lefts, flips = (np.array(column) for column in zip(*places, strict=True))
    assert set(zip(tops, lefts, strict=True)) == {(top, left) for top in range(5) for left in range(13)}
    assert np.bincount(tops).min() > 700  # 800 expected of each of the 5
    assert np.bincount(lefts).min() > 230  # 308 expected of each of the 13
    assert 0.46 < flips.mean() < 0.54


def test_a_picture_of_the_image_size_is_only_flipped(images):
    crops, _ = drawn(images, np.zeros(64, np.int64), seed=1)
    places = {place(crop) for crop in crops}
    assert places == {(0, 0, False), (0, 0, True)}


def test_the_same_generator_gives_the_same_batch(images):
    indices = np.array([1, 2, 1])
    first, again, other = (drawn(images, indices, seed=seed)[0] for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_indices_may_be_a_tensor(images):
    assert torch.equal(images.batch(torch.tensor([2, 1]))[0], images.batch(np.array([2, 1]))[0])


def test_a_batch_does_not_share_memory_with_the_data_set(images):
    images.batch([0])[0].zero_()
    assert place(images.batch([0])[0][0]) == (0, 0, False)
    assert images.batch([0])[0].sum() > 0


def test_mirrored_crops_are_the_fixed_ones_left_to_right(images):
    crops, labels = images.batch([2, 0, 1])
    mirrored, same_labels = images.mirrored_batch([2, 0, 1])
    assert torch.equal(mirrored, crops.flip(-1))
    assert not torch.equal(mirrored, crops)
    assert torch.equal(same_labels, labels)


def test_coordinates_are_the_raster_positions_in_the_whole_picture(images):
    expected = []
    for height, width, top, left in [(30, 9, 11, 0), (12, 20, 2, 6)]:
        raster = np.arange(height * width).reshape(height, width) / (height * width)
        expected.append(raster[None, top : top + 8, left : left + 8])
    positions = images.coordinates([2, 1])
    assert positions.shape == (2, 1, 8, 8)
    assert positions.dtype == torch.float32
    np.testing.assert_allclose(positions.numpy(), np.stack(expected), rtol=1e-6)


def test_coordinates_of_a_whole_picture_start_at_zero_and_stay_below_one(images):
    positions = images.coordinates([0])
    assert positions.min() == 0
    assert positions.max() == 63 / 64


def test_pictures_without_maps_have_no_view_of_maps(images):
    with pytest.raises(InputError, match="no maps"):
        images.view_source("map")
    assert torch.equal(images.view_source("image").batch([1])[0], images.batch([1])[0])


def test_normalize_maps_bytes_to_minus_one_to_one():
    values = normalize(torch.tensor([[0, 51, 255]], dtype=torch.uint8))
    assert values.dtype == torch.float32
    assert torch.allclose(values, torch.tensor([[-1.0, -0.6, 1.0]]), atol=1e-7)


def test_the_report_tells_the_rate_and_where_the_images_came_from():
    assert str(DecodeReport(5000, 2.0, cached=False)) == "5,000 images in 2.0 s (2,500 images/s)"
    assert "from the cache" in str(DecodeReport(5000, 2.0, cached=True))

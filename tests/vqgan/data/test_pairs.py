from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vqtool.diagnostics.errors import InputError
from vqtool.vqgan.data import SPLITS, Batches, open_data

SIZE = (20, 12)  # width, height of the pictures, whose crops are of side 8: there is room to crop


def save(array: np.ndarray, path: Path, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def noise(seed: int, size: tuple[int, int] = SIZE, most: int = 7) -> np.ndarray:
    """(height, width) of ids below ``most``."""
    return np.random.default_rng(seed).integers(0, most, (size[1], size[0]), dtype=np.uint8)


def colours(ids: np.ndarray) -> np.ndarray:
    """An image whose red tells the id at each pixel, so that an image and its map can be compared."""
    return np.stack([ids, 255 - ids, np.zeros_like(ids)], -1).astype(np.uint8)


def pair(root: Path, name: str, ids: np.ndarray, kind: str = "segmentations") -> Path:
    save(colours(ids), root / "images" / f"{name}.png")
    return save(ids, root / kind / f"{name}.png")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two classes in three splits, 3 + 2 + 1 pictures a class; no picture is resized at size 12."""
    for split, count in zip(SPLITS, (3, 2, 1), strict=True):
        for number, class_name in enumerate(("cat", "dog")):
            for i in range(count):
                pair(tmp_path / "pairs", f"{split}/{class_name}/{i}", noise(100 * count + 10 * number + i))
    return tmp_path / "pairs"


def opened(root: Path, image_size: int = 12, **options):
    return open_data(f"pairs:{root}", image_size, cache=root.parent / "cache", **options)


def first_map(root: Path, image_size: int = 12) -> torch.Tensor:
    return opened(root, image_size)["test"].view_source("map").batch([0])[0][0, 0]


def refusal(root: Path) -> str:
    with pytest.raises(InputError) as error:
        opened(root)
    assert "\n" not in str(error.value)
    return str(error.value)


# ---- what belongs together stays together


def test_fixed_mirrored_and_random_crops_of_image_and_map_match(data):
    images = opened(data)["train"]
    maps = images.view_source("map")
    everything = range(len(images))
    for cut in ("batch", "mirrored_batch"):
        crops, labels = getattr(images, cut)(everything)
        ids, same_labels = getattr(maps, cut)(everything)
        assert ids.shape == (6, 1, 12, 12)
        assert torch.equal(crops[:, :1], ids)
        assert torch.equal(labels, same_labels)
    for step in range(5):
        assert torch.equal(Batches(images, 6, seed=1)(step)[0][:, :1], Batches(maps, 6, seed=1)(step)[0])


def test_the_colours_are_those_of_the_same_images_without_maps(data):
    alone = open_data(f"folder:{data / 'images'}", 12, cache=data.parent / "cache")
    for split, images in opened(data).items():
        everything = range(len(images))
        assert images.batch(everything)[0].shape[1] == 3
        assert torch.equal(images.batch(everything)[0], alone[split].batch(everything)[0])
        assert torch.equal(images.labels, alone[split].labels)
        assert images.classes == alone[split].classes == ("cat", "dog")


def test_looking_at_the_maps_leaves_the_images_as_they_were(data):
    images = opened(data)["train"]
    before = images.batch([0])[0]
    images.view_source("map").batch([0])
    assert torch.equal(images.batch([0])[0], before)
    assert torch.equal(images.view_source("map").view_source("image").batch([0])[0], before)


def test_the_coordinates_of_a_map_are_those_of_its_image(data):
    images = opened(data)["train"]
    assert torch.equal(images.coordinates([1, 2]), images.view_source("map").coordinates([1, 2]))


@pytest.mark.parametrize("kind", ["segmentations", "depths"])
@pytest.mark.parametrize("factor", [1, 2])
def test_a_resized_map_lies_over_its_resized_image(tmp_path, kind, factor):
    blocks = np.random.default_rng(0).integers(0, 200, (4, 6), dtype=np.uint8)
    for split in SPLITS:
        pair(tmp_path / "pairs", f"{split}/a", np.kron(blocks, np.ones((32, 32), np.uint8)), kind)
        save(np.kron(blocks, np.ones((32 // factor, 32 // factor), np.uint8)), tmp_path / f"pairs/{kind}/{split}/a.png")
    images = opened(tmp_path / "pairs", 32)["test"]
    red, plane = images.batch([0])[0][0, 0].int(), images.view_source("map").batch([0])[0][0, 0].int()
    middle = (slice(3, None, 8), slice(3, None, 8))  # of the blocks, where no neighbour shines in
    assert (red[middle] - plane[middle]).abs().max() <= 6
    assert len(plane[middle].unique()) > 8


# ---- segmentations


def test_ids_are_never_mixed(data):
    assert first_map(data, image_size=8).unique().tolist() == list(range(7))
    ids = np.where(np.arange(20) < 10, 0, 200).astype(np.uint8)[None].repeat(12, 0)
    pair(data, "test/cat/0", ids)
    assert set(first_map(data, image_size=9).unique().tolist()) == {0, 200}


def test_the_highest_id_of_all_splits_is_known_also_from_the_cache(data):
    path = data / "segmentations/validation/cat/0.png"
    save(np.full((12, 20), 41, np.uint8), path)
    for cached in (False, True):
        images = opened(data)["train"]
        assert images.decode.cached == cached
        assert images.maps == ("segmentation", 41)


def test_ids_may_be_indices_into_a_palette(data):
    ids = noise(5)
    image = Image.fromarray(ids, "P")
    image.putpalette(list(range(255, -1, -1)) * 3)
    image.save(data / "segmentations/test/cat/0.png")
    assert first_map(data).tolist() == ids[:, 4:16].tolist()


def test_ids_may_have_16_bits_and_no_more_than_255(data):
    ids = noise(6, most=255).astype(np.uint16)
    path = save(ids, data / "segmentations/test/cat/0.png")
    assert first_map(data).tolist() == ids[:, 4:16].tolist()
    ids[3, 3] = 256
    save(ids, path)
    assert f"map {str(path)!r} has label id 256, and 255 is the largest" in refusal(data)


def test_a_mask_of_one_bit_has_the_labels_0_and_1(data):
    save(noise(7, most=2).astype(bool), data / "segmentations/test/cat/0.png")
    assert first_map(data).tolist() == noise(7, most=2)[:, 4:16].tolist()


@pytest.mark.parametrize(("kind", "mode"), [("segmentations", "RGB"), ("segmentations", "LA"), ("depths", "RGBA")])
def test_a_map_in_colour_is_refused_with_what_is_allowed(data, kind, mode):
    (data / "segmentations").rename(data / kind)
    path = data / kind / "test/cat/0.png"
    Image.new(mode, SIZE).save(path)
    message = refusal(data)
    assert f"map {str(path)!r} has mode {mode}" in message
    assert "L, " in message
    assert "skip_unreadable" in message


# ---- depths


class TestDepths:
    @pytest.fixture
    def deep(self, data: Path) -> Path:
        (data / "segmentations").rename(data / "depths")
        return data

    def test_8_bits_arrive_unchanged(self, deep):
        depths = noise(8, most=255)
        save(depths, deep / "depths/test/cat/0.png")
        assert first_map(deep).tolist() == depths[:, 4:16].tolist()
        assert opened(deep)["train"].maps == ("depth", depths.max())

    def test_16_bits_are_scaled_to_8(self, deep):
        depths = (noise(9, most=255).astype(np.uint16) * 257 + 100).astype(np.uint16)
        save(depths, deep / "depths/test/cat/0.png")
        assert first_map(deep).tolist() == (depths // 257)[:, 4:16].tolist()

    def test_they_are_interpolated(self, deep):
        ramp = np.linspace(0, 240, 20).astype(np.uint8)[None].repeat(12, 0)
        save(ramp, deep / "depths/test/cat/0.png")
        larger = first_map(deep, image_size=24).int()
        assert len(larger.unique()) > 15
        assert (larger.diff(dim=1) >= 0).all()

    def test_a_palette_says_nothing_about_depth(self, deep):
        Image.new("P", SIZE).save(deep / "depths/test/cat/0.png")
        assert "has mode P, not one of a depth map" in refusal(deep)


# ---- splits and keys


def test_without_splits_the_images_alone_decide_which_split_they_are_in(tmp_path):
    root = tmp_path / "pairs"
    for i in range(20):
        pair(root, str(i), noise(i))
    before = {split: images.batch(range(len(images)))[0] for split, images in opened(root).items()}
    assert [len(crops) for crops in before.values()] == [16, 2, 2]
    alone = open_data(f"folder:{root / 'images'}", 12, cache=tmp_path / "cache")
    for i in range(20):
        save(noise(100 + i), root / "segmentations" / f"{i}.png")
    for split, images in opened(root).items():
        assert torch.equal(images.batch(range(len(images)))[0], before[split])
        assert torch.equal(alone[split].batch(range(len(images)))[0], before[split])


def keys(root: Path, image_size: int = 12) -> dict[str, str]:
    return {split: images.key for split, images in opened(root, image_size).items()}


def test_every_split_has_a_key_of_its_own_that_lasts(data):
    first = keys(data)
    assert len(set(first.values())) == 3
    assert keys(data) == first
    moved = data.rename(data.with_name("moved"))
    assert keys(moved) == first
    assert opened(moved)["train"].decode.cached


def test_a_key_changes_with_a_map_the_kind_of_maps_and_the_size(data):
    first = keys(data)
    seen = [*first.values(), *keys(data, 10).values()]
    pair(data, "train/cat/0", noise(55))
    seen += keys(data).values()
    save(noise(56), data / "segmentations/train/cat/0.png")
    seen += keys(data).values()
    (data / "segmentations").rename(data / "depths")
    seen += keys(data).values()
    assert len(set(seen)) == len(seen) == 15


# ---- broken pairs


def test_an_image_without_a_map_is_named_with_the_map_that_it_should_have(data):
    path = data / "segmentations/train/dog/1.png"
    path.unlink()
    message = refusal(data)
    assert message.startswith(f"{str(data / 'images/train/dog/1.png')!r} has no map {str(path)!r}")
    assert "skip_unreadable" in message


def test_one_is_left_out_on_request_and_the_cache_remembers_why(data):
    (data / "segmentations/train/dog/1.png").unlink()
    (data / "segmentations/train/cat/1.png").write_bytes(b"not an image")
    images = opened(data, skip_unreadable=True)["train"]
    assert len(images) == 4
    assert images.skipped == [str(data / "images/train" / name) for name in ("cat/1.png", "dog/1.png")]
    assert torch.equal(images.batch(range(4))[0][:, :1], images.view_source("map").batch(range(4))[0])
    assert opened(data, skip_unreadable=True)["train"].decode.cached
    assert f"{str(data / 'segmentations/train/cat/1.png')!r} cannot be read" in refusal(data)


def test_a_broken_image_is_named_and_not_its_map(data):
    path = data / "images/train/cat/0.png"
    path.write_bytes(b"not an image")
    assert refusal(data).startswith(f"{str(path)!r} cannot be read as an image")


def test_maps_of_no_image_are_not_looked_at(data):
    save(noise(3, (5, 5)), data / "segmentations/train/cat/9.png")
    assert len(opened(data)["train"]) == 6


def test_a_map_of_another_shape_is_refused(data):
    path = save(noise(3, (12, 20)), data / "segmentations/test/cat/0.png")
    assert refusal(data).startswith(f"map {str(path)!r} is 12x20 and its image 20x12, which is another shape")


@pytest.mark.parametrize("orientation", [3, 6])
def test_both_are_turned_upright_or_none_is(data, orientation):
    ids = noise(4, (12, 12))
    pair(data, "test/cat/0", ids)
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(colours(ids), data / "images/test/cat/0.png", exif=exif)
    message = refusal(data)
    assert f"has EXIF orientation 1 and its image {orientation}" in message
    assert "\n" not in message
    save(ids, data / "segmentations/test/cat/0.png", exif=exif)
    images = opened(data)["test"]
    assert images.view_source("map").batch([0])[0][0, 0].tolist() == np.rot90(ids, {3: 2, 6: -1}[orientation]).tolist()
    assert torch.equal(images.batch([0])[0][:, :1], images.view_source("map").batch([0])[0])


@pytest.mark.parametrize(
    ("remove", "make", "message"),
    [
        ("segmentations", None, "has neither segmentations/ nor depths/"),
        (None, "depths", "has both segmentations/ and depths/"),
        ("images", None, "has no images/"),
    ],
)
def test_a_folder_that_is_not_laid_out_so_is_refused(data, remove, make, message):
    if remove:
        (data / remove).rename(data / "else")
    if make:
        (data / make).mkdir()
    assert f"data folder {str(data)!r} {message}" in refusal(data)


def test_some_of_the_splits_are_refused_as_in_a_folder(data):
    (data / "images/test").rename(data / "images/tests")
    assert "has train/ but not test/" in refusal(data)

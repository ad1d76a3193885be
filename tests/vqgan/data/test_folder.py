import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vqtool.diagnostics.errors import InputError
from vqtool.vqgan.data import SPLITS, open_data


def noise(path: Path, seed: int, size: tuple[int, int] = (8, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).save(path)
    return path


def opened(root: Path, image_size: int = 8, **options):
    return open_data(f"folder:{root}", image_size, cache=root.parent / "cache", **options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three splits of two classes, 3 + 2 + 1 images a class."""
    root = tmp_path / "images"
    for split, count in zip(SPLITS, (3, 2, 1), strict=True):
        for number, class_name in enumerate(("cat", "dog")):
            for i in range(count):
                noise(root / split / class_name / f"{i}.png", 100 * count + 10 * number + i)
    return root


def test_class_folders_give_the_labels_and_split_folders_the_splits(folder):
    data = opened(folder)
    assert tuple(data) == SPLITS
    assert [len(data[split]) for split in SPLITS] == [6, 4, 2]
    assert data["train"].classes == data["test"].classes == ("cat", "dog")
    assert data["validation"].labels.tolist() == [0, 0, 1, 1]


def test_pixels_of_a_file_of_the_right_size_arrive_unchanged(folder):
    images, labels = opened(folder)["train"].batch([4])
    with Image.open(folder / "train" / "dog" / "1.png") as image:
        assert np.array_equal(images[0].permute(1, 2, 0).numpy(), np.asarray(image))
    assert labels.tolist() == [1]


def test_images_directly_inside_are_one_class(tmp_path):
    for number, split in enumerate(SPLITS):
        noise(tmp_path / "flat" / split / "image.png", number)
    data = opened(tmp_path / "flat")
    assert data["train"].classes == ("unlabelled",)
    assert data["train"].labels.tolist() == [0]


def test_a_class_that_only_one_split_has_keeps_labels_comparable(folder):
    noise(folder / "test" / "ant" / "0.png", 99)
    data = opened(folder)
    assert data["train"].classes == ("ant", "cat", "dog")
    assert set(data["train"].labels.tolist()) == {1, 2}


def test_deeper_folders_belong_to_the_class_above_them(folder):
    noise(folder / "train" / "cat" / "indoors" / "sofa" / "0.png", 98)
    assert opened(folder)["train"].labels.tolist().count(0) == 4


def test_hidden_files_and_other_files_are_not_looked_at(folder):
    (folder / "train" / "cat" / "._0.png").write_bytes(b"resource fork")
    noise(folder / "train" / ".thumbnails" / "0.png", 97)
    (folder / "train" / "readme.txt").write_text("not an image")
    data = opened(folder)
    assert len(data["train"]) == 6
    assert data["train"].classes == ("cat", "dog")


@pytest.mark.parametrize("suffix", [".png", ".JPG", ".jpeg", ".Jpeg", ".BMP", ".webp", ".WebP", ".PNG"])
def test_every_image_suffix_counts_in_any_case_of_letters(folder, suffix):
    noise(folder / "train" / "cat" / f"more{suffix}", 5)
    assert len(opened(folder)["train"]) == 7


class TestWithoutSplits:
    @pytest.fixture
    def loose(self, tmp_path: Path) -> Path:
        for i in range(40):
            noise(tmp_path / "loose" / f"class{i % 2}" / f"{i}.png", i)
        return tmp_path / "loose"

    @staticmethod
    def contents(images) -> set[bytes]:
        return {crop.numpy().tobytes() for crop in images.batch(range(len(images)))[0]}

    def test_images_are_split_80_10_10_and_classes_are_kept(self, loose):
        data = opened(loose)
        assert [len(data[split]) for split in SPLITS] == [32, 4, 4]
        assert data["test"].classes == ("class0", "class1")
        assert len(set.union(*(self.contents(data[split]) for split in SPLITS))) == 40

    def test_the_split_follows_the_content_and_not_the_names(self, loose):
        before = {split: self.contents(images) for split, images in opened(loose).items()}
        for i in range(40):
            (loose / f"class{i % 2}" / f"{i}.png").rename(loose / f"class{i % 2}" / f"renamed{(7 * i) % 40}.png")
        after = {split: self.contents(images) for split, images in opened(loose).items()}
        assert before == after

    def test_copies_of_one_image_land_in_one_split(self, loose):
        for i in range(40):
            (loose / f"copy{i}.png").write_bytes((loose / f"class{i % 2}" / f"{i}.png").read_bytes())
        data = opened(loose)
        assert sum(len(images) for images in data.values()) == 80
        assert sum(len(self.contents(images)) for images in data.values()) == 40

    def test_a_handful_of_images_still_fills_every_split(self, tmp_path):
        for i in range(3):
            noise(tmp_path / "few" / f"{i}.png", i)
        assert [len(images) for images in opened(tmp_path / "few").values()] == [1, 1, 1]

    def test_two_images_are_too_few(self, tmp_path):
        for i in range(2):
            noise(tmp_path / "few" / f"{i}.png", i)
        with pytest.raises(InputError, match=r"2 different image.*at least 3"):
            opened(tmp_path / "few")


def png_16_bit(path: Path, red: int, green: int, blue: int) -> None:
    """A 8 x 8 PNG of one 16-bit RGB colour (PNG specification, colour type 2), which Pillow can read but not write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = b"".join(b"\0" + struct.pack(">3H", red, green, blue) * 8 for _ in range(8))
    header = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def palette(path: Path, **options) -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    image.save(path, **options)


ODD_FILES = {
    "grey.png": (lambda path: Image.new("L", (8, 8), 90).save(path), (90, 90, 90)),
    "bilevel.png": (lambda path: Image.new("1", (8, 8), 1).save(path), (255, 255, 255)),
    "grey and clear.png": (lambda path: Image.new("LA", (8, 8), (40, 0)).save(path), (255, 255, 255)),
    "half clear.png": (lambda path: Image.new("RGBA", (8, 8), (0, 100, 255, 128)).save(path), (127, 177, 255)),
    "clear.webp": (lambda path: Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(path, lossless=True), (255, 255, 255)),
    "palette.png": (palette, (10, 200, 30)),
    "palette.bmp": (palette, (10, 200, 30)),
    "clear palette.png": (lambda path: palette(path, transparency=1), (255, 255, 255)),
    "cmyk.jpg": (lambda path: Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(path, quality=100), (255, 0, 0)),
    "grey.jpg": (lambda path: Image.new("L", (8, 8), 77).save(path, quality=100), (77, 77, 77)),
    "16 bit dark.png": (lambda path: Image.fromarray(np.full((8, 8), 2570, np.uint16)).save(path), (10, 10, 10)),
    "16 bit middle.png": (lambda path: Image.fromarray(np.full((8, 8), 32896, np.uint16)).save(path), (128, 128, 128)),
    "16 bit white.png": (lambda path: Image.fromarray(np.full((8, 8), 65535, np.uint16)).save(path), (255, 255, 255)),
    "16 bit colour.png": (lambda path: png_16_bit(path, 65535, 32896, 2570), (255, 128, 10)),
}


@pytest.mark.parametrize("name", ODD_FILES)
def test_files_of_any_mode_become_rgb(folder, name):
    save, colour = ODD_FILES[name]
    save(folder / "test" / "cat" / f"~{name}")
    crop = opened(folder)["test"].batch([1])[0][0].permute(1, 2, 0).numpy()
    assert np.abs(crop.astype(int) - colour).max() <= 1


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_a_rotated_photograph_stands_upright(folder, suffix):
    image = Image.new("RGB", (8, 8), "black")
    image.paste("white", (0, 0, 4, 8))  # white on the left; turned by 90 degrees clockwise: white on top
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(folder / "test" / "cat" / f"~.{suffix}", exif=exif, quality=100)
    crop = opened(folder)["test"].batch([1])[0][0].float()
    assert crop[:, :3].mean() > 200
    assert crop[:, 5:].mean() < 55


class TestSizes:
    def test_the_shorter_side_is_resized_and_the_long_one_cropped_in_the_middle(self, folder):
        image = Image.new("RGB", (64, 16), "black")
        image.paste("white", (24, 0, 40, 16))  # the middle quarter
        image.save(folder / "test" / "cat" / "~.png")
        images, _ = opened(folder, 4)["test"].batch([1])
        assert images.shape == (1, 3, 4, 4)
        assert images[0, :, :, 1:3].float().mean() > 240

    def test_downsizing_is_antialiased(self, folder):
        stripes = np.zeros((64, 64, 3), np.uint8)
        stripes[:, ::2] = 255
        Image.fromarray(stripes).save(folder / "test" / "cat" / "~.png")
        crop = opened(folder, 8)["test"].batch([1])[0].int()
        assert (crop - 128).abs().max() <= 8

    def test_a_smaller_image_is_enlarged(self, folder):
        Image.new("RGB", (3, 5), (20, 40, 60)).save(folder / "test" / "cat" / "~.png")
        crop = opened(folder, 16)["test"].batch([1])[0][0]
        assert crop.shape == (3, 16, 16)
        assert crop[:, 0, 0].tolist() == [20, 40, 60]

    def test_a_large_jpeg_decoded_at_a_reduced_scale_looks_the_same(self, folder):
        blocks = np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8)
        picture = np.kron(blocks, np.ones((16, 16), np.uint8))
        for suffix in ("jpg", "png"):
            Image.fromarray(picture).save(folder / "test" / "cat" / f"~.{suffix}", quality=95)
        from_jpeg, from_png = opened(folder, 32)["test"].batch([1, 2])[0].int()
        assert (from_jpeg - from_png).abs().max() <= 12

    def test_a_size_below_one_is_refused(self, folder):
        with pytest.raises(InputError, match="image size 0"):
            opened(folder, 0)


class TestUnreadableFiles:
    @pytest.fixture
    def broken(self, folder: Path) -> Path:
        whole = noise(folder / "train" / "dog" / "whole.jpg", 50, (64, 64))
        (folder / "train" / "dog" / "1.png").write_bytes(b"not an image at all")
        (folder / "train" / "dog" / "cut.jpg").write_bytes(whole.read_bytes()[:700])
        (folder / "test" / "cat" / "empty.png").touch()
        return folder

    def test_one_is_named_in_an_error_that_tells_the_way_out(self, broken):
        with pytest.raises(InputError, match=r"train.dog.1\.png.*skip_unreadable") as caught:
            opened(broken)
        assert "\n" not in str(caught.value)

    def test_they_are_left_out_and_listed_on_request(self, broken):
        data = opened(broken, skip_unreadable=True)
        assert [len(data[split]) for split in SPLITS] == [6, 4, 2]
        assert [Path(name).name for name in data["train"].skipped] == ["1.png", "cut.jpg"]
        assert data["validation"].skipped == []
        assert [Path(name).name for name in data["test"].skipped] == ["empty.png"]
        assert data["train"].decode.images == 12

    def test_the_cache_remembers_them(self, broken):
        first = opened(broken, skip_unreadable=True)
        again = opened(broken, skip_unreadable=True)
        assert again["train"].decode.cached
        assert again["train"].skipped == first["train"].skipped
        with pytest.raises(InputError, match="skip_unreadable"):
            opened(broken)

    def test_an_error_leaves_nothing_in_the_cache(self, broken):
        with pytest.raises(InputError):
            opened(broken)
        assert list((broken.parent / "cache" / "images").iterdir()) == []

    def test_a_dangling_link_is_unreadable(self, folder):
        (folder / "train" / "cat" / "~.png").symlink_to(folder / "nowhere.png")
        with pytest.raises(InputError, match=r"~\.png"):
            opened(folder)

    def test_a_split_of_broken_files_only_is_empty(self, folder):
        for path in (folder / "test").rglob("*.png"):
            path.write_bytes(b"broken")
        with pytest.raises(InputError, match="'test' has no readable image"):
            opened(folder, skip_unreadable=True)


class TestWrongFolders:
    def test_a_missing_one(self, tmp_path):
        with pytest.raises(InputError, match="nowhere' does not exist"):
            opened(tmp_path / "nowhere")

    def test_a_file(self, tmp_path):
        with pytest.raises(InputError, match="is not a folder"):
            opened(noise(tmp_path / "image.png", 0))

    def test_some_of_the_splits(self, folder):
        (folder / "test").rename(folder / "tests")
        with pytest.raises(InputError, match="has train/ but not test/"):
            opened(folder)

    def test_an_empty_split(self, folder):
        for path in (folder / "validation").rglob("*.png"):
            path.unlink()
        with pytest.raises(InputError, match="validation' has no image"):
            opened(folder)

    def test_an_empty_folder(self, tmp_path):
        (tmp_path / "empty").mkdir()
        with pytest.raises(InputError, match="empty' has no image"):
            opened(tmp_path / "empty")

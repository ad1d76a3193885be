import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import torch
from PIL import Image

from vqtool.diagnostics.errors import InputError
from vqtool.vqgan.data import SPLITS, Batches, open_data
from vqtool.vqgan.data.store import cache_folder
from vqtool.vqgan.data.threads import in_threads


def write_noise(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 12, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, split in enumerate(SPLITS):
        for i in range(30):
            write_noise(tmp_path / "images" / split / f"{i:02}.png", 100 * number + i)
    return tmp_path / "images"


def opened(folder: Path, image_size: int = 8, **options):
    return open_data(f"folder:{folder}", image_size, cache=folder.parent / "cache", **options)


def entries(folder: Path) -> list[str]:
    return [entry.name for entry in (folder.parent / "cache" / "images").iterdir()]


class TestDecodingOnce:
    def test_the_second_opening_decodes_nothing(self, folder, monkeypatch):
        first = opened(folder)

        def fail(*arguments, **options):
            raise AssertionError("an image was decoded")

        monkeypatch.setattr(Image, "open", fail)
        again = opened(folder)
        assert not first["train"].decode.cached
        assert again["train"].decode.cached
        everything = range(30)
        for split in SPLITS:
            assert torch.equal(first[split].batch(everything)[0], again[split].batch(everything)[0])

    def test_batches_decode_nothing(self, folder, monkeypatch):
        images = opened(folder)["train"]
        shutil.rmtree(folder)
        assert Batches(images, 4, seed=0)(0)[0].shape == (4, 3, 8, 8)

    def test_pixels_are_mapped_and_not_read_into_memory(self, folder):
        pixels = opened(folder)["train"]._pixels
        while not isinstance(pixels, np.memmap):
            assert pixels.base is not None
            pixels = pixels.base
        assert pixels.mode == "r"

    def test_a_changed_file_is_decoded_even_with_the_same_name_size_and_time(self, folder):
        path = folder / "train" / "00.png"
        for seed in (1, 2):
            Image.fromarray(np.full((8, 8, 3), seed, np.uint8)).save(path.with_suffix(".bmp"))
            os.utime(path.with_suffix(".bmp"), (1, 1))
            data = opened(folder)
            assert not data["train"].decode.cached
            assert data["train"].batch([0])[0].unique().tolist() == [seed]

    def test_another_image_size_has_another_entry(self, folder):
        opened(folder, 8)
        assert not opened(folder, 4)["train"].decode.cached
        assert opened(folder, 8)["train"].decode.cached

    def test_a_moved_folder_is_not_decoded_again(self, folder):
        opened(folder)
        moved = folder.rename(folder.with_name("moved"))
        assert opened(moved)["train"].decode.cached

    def test_the_report_counts_and_times_the_decoding_pass(self, folder):
        first, again = opened(folder)["test"].decode, opened(folder)["test"].decode
        assert first.images == again.images == 90
        assert first.seconds == again.seconds > 0
        assert first.images_per_second == pytest.approx(90 / first.seconds)

    def test_progress_sees_every_picture_once_and_only_on_the_first_pass(self, folder):
        seen = []

        def progress(pictures):
            assert len(pictures) == 90
            for picture in pictures:
                seen.append(picture.name)
                yield picture

        opened(folder, progress=progress)
        opened(folder, progress=progress)
        assert len(set(seen)) == len(seen) == 90


class TestInterruptions:
    def test_an_interrupted_pass_leaves_no_entry(self, folder):
        def interrupted(pictures):
            yield from pictures[:50]
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            opened(folder, progress=interrupted)
        assert entries(folder) == []
        assert len(opened(folder)["train"]) == 30

    def test_a_killed_process_leaves_no_half_entry(self, folder):
        program = f"""
import os, signal
from pathlib import Path
from vqtool.vqgan.data import open_data

def killed(pictures):
    yield from pictures[:80]
    os.kill(os.getpid(), signal.SIGKILL)

open_data({f"folder:{folder}"!r}, 8, cache=Path({str(folder.parent / "cache")!r}), progress=killed)
"""
        process = subprocess.run([sys.executable, "-c", program], timeout=60)
        assert process.returncode == -signal.SIGKILL
        assert [name.split("-")[0] for name in entries(folder)] == ["unfinished"]
        data = opened(folder)
        assert not data["train"].decode.cached
        assert data["train"].decode.images == 90

    def test_leftovers_are_swept_after_a_day_and_not_before(self, folder):
        place = folder.parent / "cache" / "images"
        for name, age_h in (("unfinished-old", 25), ("unfinished-young", 23)):
            (place / name).mkdir(parents=True)
            os.utime(place / name, (time.time() - 3600 * age_h,) * 2)
        opened(folder)
        assert "unfinished-old" not in entries(folder)
        assert "unfinished-young" in entries(folder)

    def test_two_at_once_write_one_whole_entry(self, folder):
        both_decode = Barrier(2, timeout=30)

        def together(pictures):
            both_decode.wait()
            yield from pictures
            both_decode.wait()

        with ThreadPoolExecutor(2) as pool:
            one, other = pool.map(lambda _: opened(folder, progress=together), range(2))
        assert len(entries(folder)) == 1
        everything = range(30)
        alone = opened(folder)
        assert alone["train"].decode.cached
        for data in (one, other):
            assert torch.equal(data["train"].batch(everything)[0], alone["train"].batch(everything)[0])


class TestCacheFolder:
    def test_the_environment_decides_where_it_is(self, monkeypatch, tmp_path):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        monkeypatch.delenv("VQTOOL_CACHE", raising=False)
        assert cache_folder() == tmp_path / "xdg" / "vqtool"
        monkeypatch.setenv("VQTOOL_CACHE", str(tmp_path / "own"))
        assert cache_folder() == tmp_path / "own"
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.delenv("VQTOOL_CACHE")
        assert cache_folder() == Path.home() / ".cache" / "vqtool"

    def test_it_is_used_by_default(self, folder, monkeypatch, tmp_path):
        monkeypatch.setenv("VQTOOL_CACHE", str(tmp_path / "own"))
        open_data(f"folder:{folder}", 8)
        assert len(list((tmp_path / "own" / "images").iterdir())) == 1

    def test_one_that_cannot_be_written_is_named(self, folder):
        (folder.parent / "cache").write_text("a file, not a folder")
        with pytest.raises(InputError, match=r"cache folder .*cache' cannot be written .*VQTOOL_CACHE"):
            opened(folder)


class TestSpecs:
    def test_an_unknown_data_set_is_named_with_the_nearest(self, tmp_path):
        with pytest.raises(InputError, match=r"data set 'foldr' is unknown; did you mean 'folder'.*photos"):
            open_data("foldr:somewhere", 8, cache=tmp_path)

    def test_a_bare_path_is_told_how_to_be_one(self, folder):
        with pytest.raises(InputError, match="write folder:"):
            open_data(str(folder), 8)

    @pytest.mark.parametrize("kind", ["folder", "mnist", "cifar10"])
    def test_a_path_is_asked_for(self, kind, tmp_path):
        with pytest.raises(InputError, match=f"{kind}:PATH"):
            open_data(kind, 8, cache=tmp_path)

    def test_the_embedded_photos_take_no_path(self, tmp_path):
        with pytest.raises(InputError, match="photos takes no path"):
            open_data("photos:here", 8, cache=tmp_path)


def test_threads_keep_the_order_and_run_only_a_little_ahead():
    taken = []

    def items():
        for item in range(5000):
            taken.append(item)
            yield item

    results = in_threads(lambda item: item * item, items())
    assert next(results) == 0
    assert len(taken) < 5000
    assert list(results) == [item * item for item in range(1, 5000)]

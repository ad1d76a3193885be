import csv
import os
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from vqtool.diagnostics.errors import InputError, RunFailedError
from vqtool.vqgan.sampling import gallery
from vqtool.vqgan.sampling.gallery import Gallery
from vqtool.vqgan.sampling.panels import to_pixels


def batch(count, size=8, seed=0):
    """A little beyond [-1, 1] on both sides."""
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2.2 - 1.1


def table(folder):
    with (folder / "samples.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def images(folder):
    return sorted(path.name for path in folder.glob("*.png"))


def test_each_image_is_a_file_with_its_pixels_and_a_row_with_its_condition(tmp_path):
    batches = [batch(5), batch(40, seed=1), batch(1, seed=2)]
    with Gallery(tmp_path / "some" / "where") as shown:
        for number, samples in enumerate(batches):
            shown.add(samples, [f"class {number}.{i}" for i in range(len(samples))])
    names = [f"{i:06d}.png" for i in range(46)]
    assert images(shown.folder) == names
    expected = to_pixels(torch.cat(batches))
    for name, pixels in zip(names, expected, strict=True):
        assert (np.asarray(Image.open(shown.folder / name)) == pixels).all()
    conditions = [f"class {number}.{i}" for number, samples in enumerate(batches) for i in range(len(samples))]
    assert table(shown.folder) == [["file", "condition"], *map(list, zip(names, conditions, strict=True))]


def test_without_captions_conditions_are_empty(tmp_path):
    with Gallery(tmp_path) as shown:
        shown.add(batch(2))
    assert table(tmp_path)[1:] == [["000000.png", ""], ["000001.png", ""]]


def test_any_string_can_be_a_condition(tmp_path):
    conditions = ['a "b", c', "two\nlines", "日本", "\ud800"]
    with Gallery(tmp_path) as shown:
        shown.add(batch(4), conditions)
    assert [row[1] for row in table(tmp_path)[1:]] == [*conditions[:3], "\\ud800"]


def test_half_precision_and_gradients_do_not_matter(tmp_path):
    samples = batch(2).bfloat16().requires_grad_()
    with Gallery(tmp_path) as shown:
        shown.add(samples)
    assert (np.asarray(Image.open(tmp_path / "000001.png")) == to_pixels(samples)[1]).all()


# ---- nothing is overwritten


@pytest.mark.parametrize("name", ["000000.png", "cat.JPG", "samples.csv"])
def test_a_folder_with_samples_is_refused_before_any_is_made(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError) as caught:
        Gallery(tmp_path)
    assert str(caught.value) == f"folder {tmp_path} already has samples, such as {name}: give a new or an empty one"
    assert (tmp_path / name).read_text() == "mine"


def test_other_files_may_be_there(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with Gallery(tmp_path) as shown:
        shown.add(batch(1))
    assert images(tmp_path) == ["000000.png"]


def test_a_gallery_that_took_no_sample_can_be_opened_again(tmp_path):
    Gallery(tmp_path).close()
    with Gallery(tmp_path) as shown:
        shown.add(batch(1))
    assert len(table(tmp_path)) == 2


def test_a_file_that_came_meanwhile_is_not_overwritten(tmp_path):
    with pytest.raises(RunFailedError, match="exists"), Gallery(tmp_path) as shown:  # noqa: PT012
        (tmp_path / "000001.png").write_text("mine")
        shown.add(batch(3))
    assert (tmp_path / "000001.png").read_text() == "mine"
    assert not (tmp_path / "samples.csv").exists()


# ---- trouble is told in one line


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError) as caught:
            Gallery(path)
        assert str(caught.value).startswith(f"folder {path} cannot take samples: ")
        assert "\n" not in str(caught.value)


def test_captions_are_as_many_as_images(tmp_path):
    with Gallery(tmp_path) as shown, pytest.raises(InputError, match=r"^3 captions are given for 2 images$"):
        shown.add(batch(2), ["a"] * 3)


def test_a_folder_that_vanishes_fails_the_run_in_one_line(tmp_path):
    folder = tmp_path / "gone"
    shown = Gallery(folder)
    folder.rmdir()
    shown.add(batch(2))
    with pytest.raises(RunFailedError) as caught:
        shown.close()
    assert str(caught.value) == f"samples cannot be written to {folder}: {os.strerror(2)}"
    shown.close()  # once is enough


def test_an_error_stops_a_long_run_early(tmp_path):
    folder = tmp_path / "gone"
    shown = Gallery(folder)
    folder.rmdir()
    calls = []
    with pytest.raises(RunFailedError):  # noqa: PT012
        for call in range(10_000):
            calls.append(call)
            shown.add(batch(1))
    assert len(calls) < 100
    with pytest.raises(RunFailedError):
        shown.close()


def test_an_interrupted_gallery_names_whole_files_only(tmp_path):
    with pytest.raises(KeyboardInterrupt), Gallery(tmp_path) as shown:  # noqa: PT012
        shown.add(batch(50))
        raise KeyboardInterrupt
    assert [row[0] for row in table(tmp_path)[1:]] == images(tmp_path)
    assert len(images(tmp_path)) == 50


# ---- memory


def test_no_more_than_a_bounded_number_of_images_waits(tmp_path, monkeypatch):
    """Nothing is written until the gate opens: adding must come to a stop."""
    gate, write = threading.Event(), gallery._write

    def held(*args):
        gate.wait()
        return write(*args)

    monkeypatch.setattr(gallery, "_write", held)
    added = []
    with Gallery(tmp_path) as shown:

        def feed():
            for _ in range(200):
                shown.add(batch(16))
                added.append(16)

        feeder = threading.Thread(target=feed)
        feeder.start()
        feeder.join(timeout=1.0)
        waiting = len(added)
        gate.set()
        feeder.join()
    assert waiting <= 2 * min(16, os.cpu_count() or 1) + 1
    assert len(images(tmp_path)) == 200 * 16

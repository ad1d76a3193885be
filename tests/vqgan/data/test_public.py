import gzip
import hashlib
import pickle
import struct
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10, MNIST

from vqtool.diagnostics.errors import InputError
from vqtool.vqgan.data import open_data


def write_idx(path: Path, array: np.ndarray) -> None:
    """An idx file of bytes: magic number with the count of dimensions, the shape, the bytes (Y. LeCun's MNIST page)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack(f">I{array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.tobytes())


def write_mnist(raw: Path, train: int = 40, test: int = 6, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    for part, count in (("t10k", test), ("train", train)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        write_idx(raw / f"{part}-images-idx3-ubyte", images)
        write_idx(raw / f"{part}-labels-idx1-ubyte", (np.arange(count) % 10).astype(np.uint8))
    return images


def write_cifar10(root: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Small batches in the official layout; torchvision then checks their checksums instead of the official ones."""
    folder = root / CIFAR10.base_folder
    folder.mkdir(parents=True)

    def write(name: str, content: dict) -> str:
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (6, 10, 3 * 32 * 32), dtype=np.uint8)
    sums = [
        [name, write(name, {"data": batch, "labels": list(range(10))})]
        for (name, _), batch in zip(CIFAR10.train_list + CIFAR10.test_list, pixels, strict=True)
    ]
    names = {"label_names": ["plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]}
    monkeypatch.setattr(CIFAR10, "train_list", sums[:5])
    monkeypatch.setattr(CIFAR10, "test_list", sums[5:])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": write(CIFAR10.meta["filename"], names)})
    return pixels.reshape(60, 3, 32, 32)


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
def test_grey_digits_become_rgb_of_the_image_size(tmp_path, name, folder):
    pixels = write_mnist(tmp_path / folder / "raw")
    data = open_data(f"{name}:{tmp_path}", 28, cache=tmp_path / "cache")
    images, labels = data["train"].batch([0])
    assert np.array_equal(images[0].numpy(), np.broadcast_to(pixels[0], (3, 28, 28)))
    assert labels.tolist() == [0]
    assert len(data["train"].classes) == 10
    assert open_data(f"{name}:{tmp_path}", 32, cache=tmp_path / "cache")["test"].batch([5])[0].shape == (1, 3, 32, 32)


def test_every_tenth_training_image_is_for_validation(tmp_path):
    pixels = write_mnist(tmp_path / "MNIST" / "raw")
    data = open_data(f"mnist:{tmp_path}", 28, cache=tmp_path / "cache")
    assert [len(images) for images in data.values()] == [36, 4, 6]
    assert np.array_equal(data["validation"].batch(range(4))[0][:, 0].numpy(), pixels[9::10])
    assert data["validation"].labels.tolist() == [9, 9, 9, 9]


def test_cifar10_keeps_its_pixels_labels_and_class_names(tmp_path, monkeypatch):
    pixels = write_cifar10(tmp_path, monkeypatch)
    data = open_data(f"cifar10:{tmp_path}", 32, cache=tmp_path / "cache")
    assert [len(images) for images in data.values()] == [45, 5, 10]
    assert data["train"].classes[:2] == ("plane", "car")
    images, labels = data["test"].batch(range(10))
    assert np.array_equal(images.numpy(), pixels[50:])
    assert torch.equal(labels, torch.arange(10))


def test_a_changed_file_of_cifar10_is_not_loaded(tmp_path, monkeypatch):
    write_cifar10(tmp_path, monkeypatch)
    batch = tmp_path / CIFAR10.base_folder / "data_batch_3"
    batch.write_bytes(batch.read_bytes() + b"\0")
    with pytest.raises(InputError, match="cifar10 is missing or broken"):
        open_data(f"cifar10:{tmp_path}", 32, cache=tmp_path / "cache")


def test_the_second_opening_comes_from_the_cache_until_the_content_changes(tmp_path):
    write_mnist(tmp_path / "MNIST" / "raw")
    cached = [open_data(f"mnist:{tmp_path}", 28, cache=tmp_path / "cache")["train"].decode.cached for _ in range(2)]
    assert cached == [False, True]
    write_mnist(tmp_path / "MNIST" / "raw", seed=1)
    assert not open_data(f"mnist:{tmp_path}", 28, cache=tmp_path / "cache")["train"].decode.cached


@pytest.mark.parametrize("name", ["cifar10", "mnist", "fashion-mnist"])
def test_missing_files_are_not_downloaded_unasked(tmp_path, name):
    with pytest.raises(InputError, match=f"{name} is missing .*download") as caught:
        open_data(f"{name}:{tmp_path}", 32, cache=tmp_path / "cache")
    assert "\n" not in str(caught.value)


def test_a_cut_file_is_an_input_error(tmp_path):
    write_mnist(tmp_path / "MNIST" / "raw")
    images = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:1000])
    with pytest.raises(InputError, match="mnist is missing or broken"):
        open_data(f"mnist:{tmp_path}", 28, cache=tmp_path / "cache")


@pytest.fixture
def server(tmp_path) -> Iterator[tuple[Path, str]]:
    """A folder and the address on this machine that serves it."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    folder = tmp_path / "server"
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_download_fetches_what_is_missing(tmp_path, server, monkeypatch):
    served, address = server
    write_mnist(served)
    resources = []
    for name, _ in MNIST.resources:
        (served / name).write_bytes(gzip.compress((served / name.removesuffix(".gz")).read_bytes()))
        resources.append((name, hashlib.md5((served / name).read_bytes()).hexdigest()))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(MNIST, "mirrors", [address])
    monkeypatch.setattr(MNIST, "resources", resources)
    data = open_data(f"mnist:{tmp_path / 'home'}", 28, cache=tmp_path / "cache", download=True)
    assert len(data["test"]) == 6


def test_a_download_that_fails_is_told_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(MNIST, "mirrors", [(tmp_path / "nowhere").as_uri() + "/"])
    with pytest.raises(InputError, match="mnist could not be downloaded") as caught:
        open_data(f"mnist:{tmp_path}", 28, cache=tmp_path / "cache", download=True)
    assert "\n" not in str(caught.value)

"""One thread a process: the tensors are small, and the tests run side by side. And a place for commands to work in."""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch
from tiny import image_folder, options, surroundings

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working folder with images beside it."""
    with surroundings(tmp_path_factory.mktemp("place")) as work:
        image_folder(work.parent / "images")
        yield work


@pytest.fixture(scope="module")
def tiny(place) -> list[str]:
    """The options of a tiny run on those images."""
    return options(place.parent / "images")

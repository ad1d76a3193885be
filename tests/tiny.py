"""The smallest run that is one, and the command line called within this process."""

import contextlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from vqtool import cli

IMAGES = {"train": 8, "validation": 4, "test": 4}
MODEL = ("model.ch=32", "model.ch_mult=[1,1]", "model.num_res_blocks=1", "model.z_channels=32", "quantizer.dim=8")
RUN = ("train.validate_images=4", "train.log_every=1")


class Answer(NamedTuple):
    """What a command left behind on the screen."""

    code: int
    out: str
    err: str


def call(*words: str | Path) -> Answer:
    """`vqtool WORDS`, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", ["vqtool", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            cli.main()
    return Answer(int(left.value.code or 0), out.getvalue(), err.getvalue())


def assert_refused(code: int, err: str, *told: str) -> None:
    """Bad input: exit code 2 and one line that says `told`."""
    assert code == 2, err
    assert err.startswith("vqtool: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert "Traceback" not in err
    for words in told:
        assert words in err


def image_folder(root: Path) -> Path:
    """16 x 16 noise in three splits."""
    random = np.random.default_rng(0)
    for split, count in IMAGES.items():
        (root / split).mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / split / f"{number}.png")
    return root


def options(images: Path, steps: int = 3) -> list[str]:
    """The options of a run of a second or so."""
    sets = [word for setting in (*MODEL, *RUN) for word in ("--set", setting)]
    numbers = {
        "--image-size": 16,
        "--batch-size": 4,
        "--codebook-size": 8,
        "--every": 1,
        "--device": "cpu",
        "--steps": steps,
    }
    return [*sets, "--data", f"folder:{images}"] + [str(word) for pair in numbers.items() for word in pair]


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file and folder below `folder`, with the time of its last change and its content."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, b"" if path.is_dir() else path.read_bytes())
        for path in sorted(folder.rglob("*"))
    }


@contextlib.contextmanager
def surroundings(folder: Path) -> Iterator[Path]:
    """Work in `folder`/work, with an image cache of its own and no weights of perceptual nets."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VQTOOL_CACHE", str(folder / "cache"))
        patch.setenv("TORCH_HOME", str(folder / "no-weights"))
        (folder / "work").mkdir()
        patch.chdir(folder / "work")
        yield folder / "work"

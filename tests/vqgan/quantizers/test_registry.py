"""A quantizer with fixed codes enters by one line in the registry: the tree, the instrument and the refusals follow."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fixed_codes import GridQuantizer
from records import Records
from tiny import image_folder, options, surroundings

from vqtool.diagnostics import CodebookMonitor, CodebookTrace, InputError
from vqtool.vqgan.quantizers import QUANTIZERS

GRID = ("--set", "quantizer.grid.levels=2", "--codebook-size", "256", "--quantizer")  # 2 ** (D = 8) codes


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with surroundings(tmp_path_factory.mktemp("grid")) as work:
        image_folder(work.parent / "images")
        yield work


def vqtool(*words):
    script = Path(__file__).parents[2] / "fixed_codes.py"
    return subprocess.run([sys.executable, script, *map(str, words)], capture_output=True, text=True, check=False)


def test_it_trains_and_its_codes_are_recorded(place):
    done = vqtool("train", *options(place.parent / "images"), *GRID, "grid", "--out", "run")
    assert done.returncode == 0, done.stderr
    trace = CodebookTrace.load(place / "run" / "trace" / "quantize")
    assert trace.hits.shape == (3, 256)
    assert (trace.hits.sum(1) == trace.hits[0].sum()).all()
    assert (trace.drift[1:] == 0).all()
    assert torch.tensor(trace.grad_norm).isnan().all()
    assert "spec: grid:levels=2" in (place / "run" / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((*GRID, "grid+reset"), "quantizer 'grid' has fixed codes, which +reset cannot rewrite: leave it out"),
        ((*GRID, "grid", "--set", "quantizer.init=kmeans"), "quantizer.init 'kmeans' is for codes that are learned"),
        ((*GRID, "grid", "--codebook-size", "100"), "quantizer.codebook_size 100: 2 levels give 256 codes"),
    ],
)
def test_what_fixed_codes_cannot_is_one_line(place, words, told):
    done = vqtool("train", *options(place.parent / "images"), *words, "--out", "refused")
    assert done.returncode == 2
    assert done.stderr.startswith("vqtool: ")
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (place / "refused").exists()


def test_the_instrument_reads_codes_that_nobody_can_overwrite():
    model = torch.nn.Sequential(torch.nn.Conv2d(2, 2, 1), GridQuantizer(16, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    kept = Records()
    CodebookMonitor(model, optimizer, [kept], every=1)
    output = model(torch.randn(3, 2, 4, 4))
    output.quantized.sum().backward()
    optimizer.step()
    assert kept.records[0].hits.tolist() == torch.bincount(output.indices.flatten(), minlength=16).tolist()


@pytest.mark.parametrize("name", QUANTIZERS)
def test_a_setting_that_is_none_is_refused_by_the_class_too(name):
    with pytest.raises(InputError, match="'nothing' is unknown"):
        QUANTIZERS[name](4, 2, nothing=1)

"""``vqtool measure``: tokens in a file, their numbers for people and as JSON, bad input in one line."""

import json
import subprocess
import sys

import numpy as np
import pytest
from tiny import assert_refused, call

from vqtool.commands import measure as command
from vqtool.diagnostics import stats


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("tokens"), np.random.default_rng(0)
    np.save(folder / "images.npy", rng.integers(0, 60, (50, 4, 4)).astype(np.uint8))
    np.save(folder / "ids.npy", np.minimum(rng.geometric(0.2, (300, 3)) - 1, 15))
    np.save(folder / "audio.npy", rng.integers(0, 16, (2, 9, 30)))
    np.save(folder / "padded.npy", np.array([[0, 1, -1], [1, -1, -1]]))
    np.save(folder / "floats.npy", np.ones((3, 3)))
    return folder


def test_a_codebook_is_told_with_its_ceiling_its_tokens_and_its_intervals_over_images(files):
    answer = call("measure", "--indices", files / "images.npy", "--codes", "64")
    usage = stats.usage_of_images(np.load(files / "images.npy").reshape(50, 16), 64, "images.npy")
    assert answer.code == 0, answer.err
    assert "images.npy: 50 images x 4 tokens x 4 tokens, uint8" in answer.out
    assert f"60 of 64 codes by 800 tokens: {usage.of_ceiling}" in answer.out
    assert f"perplexity     {usage.perplexity:,.1f}, corrected for few tokens {usage.corrected:,.1f}" in answer.out
    assert f"over 50 images: {usage.intervals}" in answer.out


def test_too_few_tokens_are_no_verdict_and_an_unknown_k_is_at_least_what_was_seen(files):
    answer = call("measure", "--indices", files / "padded.npy")
    assert "K is not told: at least 2, so shares of K and ceilings are upper bounds" in answer.out
    assert "-1, which is no code, and not counted: 3" in answer.out
    assert "no verdict     3 tokens, fewer than the 16 (8 per code)" in answer.out
    assert "--layout items,layers" in answer.out  # three tokens an image look like layers


def test_layers_are_told_alone_and_together(files):
    answer = call("measure", "--indices", files / "ids.npy", "--codes", "16", "--layout", "items,layers")
    tuples = stats.count_tuples(np.load(files / "ids.npy"), (16,) * 3, stats.deal(300))
    found, given = stats.collisions(tuples), stats.conditional_entropies(tuples)
    assert f"{found.distinct:,} of 300 tokens, at most {found.largest:,} alike" in answer.out
    assert f"(1 - distinct / tokens): {stats.percent(found.rate)}; " in answer.out
    assert f"share their tuple: {stats.percent(found.shared)}" in answer.out
    assert "95 % over 300 items" in answer.out
    assert f"{given[1].low:.2f} to {given[1].high:.2f}" in answer.out
    assert max(map(len, answer.out.splitlines())) <= 120


def test_json_holds_the_same_numbers_and_null_for_what_is_not_known(files):
    answer = call("measure", "--indices", files / "ids.npy", "--codes", "16", "--layout", "items,layers", "--json")
    told = json.loads(answer.out)
    tuples = stats.count_tuples(np.load(files / "ids.npy"), (16,) * 3, stats.deal(300))
    assert told["together"]["distinct"] == stats.collisions(tuples).distinct
    assert [one["entropy_given_layers_before"]["low"] for one in told["codebooks"]] == pytest.approx(
        [each.low for each in stats.conditional_entropies(tuples)]
    )
    assert told["axes"] == [{"name": "items", "size": 300}, {"name": "layers", "size": 3}]
    few = json.loads(call("measure", "--indices", files / "padded.npy", "--json").out)
    assert few["together"] is None
    assert few["codebooks"][0]["intervals"] is None
    assert few["codes_told"] is False
    empty = call("measure", "--indices", files / "padded.npy", "--layout", "items,layers", "--json").out
    assert json.loads(empty)["codebooks"][2]["perplexity"] is None


def test_the_layers_of_an_audio_codec_come_first_and_its_clips_are_the_unit(files):
    told = json.loads(
        call("measure", "--indices", files / "audio.npy", "--layout", "layers,clips,tokens", "--json").out
    )
    assert len(told["codebooks"]) == 2
    assert told["codebooks"][0]["intervals"]["over"] == 9
    assert told["codebooks"][0]["intervals"]["unit"] == "clips"
    assert told["together"]["tokens"] == 270


@pytest.mark.parametrize(
    ("name", "words", "told"),
    [
        ("nothing.npy", (), ["there is no file"]),
        ("floats.npy", (), ["float64"]),
        ("ids.npy", ("--codes", "8"), ["--codes 8: 15 of ids.npy is outside [0, 8)"]),
        ("ids.npy", ("--codes", "sixteen"), ["--codes 'sixteen'", "whole numbers"]),
        ("ids.npy", ("--codes", "0"), ["--codes '0'"]),
        ("ids.npy", ("--codes", "16,16", "--layout", "items,layers"), ["--codes 16, 16 are 2 numbers for 3 layers"]),
        ("ids.npy", ("--layout", "items,layer"), ["did you mean 'layers'"]),
        ("ids.npy", ("--layout", "layers,items,tokens"), ["--layout layers,items,tokens names 3 axes"]),
        ("ids.npy", ("--key", "ids"), ["--key 'ids'"]),
    ],
)
def test_bad_input_is_one_line(files, name, words, told):
    answer = call("measure", "--indices", files / name, *words)
    assert_refused(answer.code, answer.err, *told)
    assert not answer.out


def test_no_torch_is_loaded_for_an_array(files):
    script = (
        "import sys; from vqtool.cli import app\n"
        f"words = ['measure', '--indices', {str(files / 'ids.npy')!r}, '--layout', 'items,layers']\n"
        "app(words, standalone_mode=False)\n"
        "print('torch' in sys.modules, 'pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False False"


def test_progress_is_shown_of_many_tokens_and_not_among_json(files, monkeypatch):
    monkeypatch.setattr(command, "MANY", 100)
    assert "counting 50/50" in call("measure", "--indices", files / "images.npy").out
    assert "counting" not in call("measure", "--indices", files / "images.npy", "--json").out

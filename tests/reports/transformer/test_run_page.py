import base64
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image
from synthetic_tokens import (
    SMALL,
    World,
    write_evaluation,
    write_light_run,
    write_pictures,
    write_token_config,
    write_token_run,
)

from vqtool.diagnostics.run import RunDirectory
from vqtool.reports import write_report
from vqtool.reports.page.sections import Panel, hang

FIGURES = {
    "learning",
    "samples",
    "completions",
    "test-frequency-against-nll",
    "test-data-against-sampled",
    "test-position-maps",
    "test-positions-frequent",
    "test-positions-gap",
    "tokens-nll-in-time",
    "tokens-rows-in-time",
    "tokens-rows-against-frequency",
}


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> RunDirectory:
    made = write_token_run(tmp_path_factory.mktemp("full") / "run")
    write_report(made.path)
    return made


@pytest.fixture(scope="module")
def text(full) -> str:
    return (full.report / "index.html").read_text()


@pytest.fixture
def bare(tmp_path) -> RunDirectory:
    """A run that has just begun: a config and nothing else."""
    run = RunDirectory(tmp_path / "run")
    write_token_config(run, SMALL, 100)
    return run


def cards(text: str) -> dict[str, str]:
    """The numbers at the top by what they are."""
    found = re.findall(r'<div class="card"><b>(.*?)</b>(.*?)<div', text)
    return {label: value for value, label in found}


def test_a_run_of_a_transformer_gets_its_own_page(full, text):
    assert "transformer tiny over the 64 codes of first-stage, condition class, data synthetic" in text
    assert {path.stem for path in (full.report / "figures").glob("*.png")} == FIGURES
    assert {path.stem for path in (full.report / "figures").glob("*.svg")} == FIGURES
    tables = {path.stem for path in (full.report / "tables").iterdir()}
    assert tables == {"final-numbers", "test-gaps", "test-worst-learned"}
    assert text.count("data:image/png;base64,") == len(FIGURES)


def test_the_page_opens_with_the_numbers_of_the_evaluation(full, text):
    evaluation = full.read_json(full.evaluation("test"))
    found = cards(text)
    assert found["NLL, nats per token"] == f"{evaluation['nll']:.3f}"
    assert found["top-1 accuracy"] == "31.2%"
    assert "top-5 60.0%, top-10 72.1%" in text
    assert found["total variation, data against samples"] == f"{evaluation['total_variation']:.3f}"
    low, high = evaluation["total_variation_low"], evaluation["total_variation_high"]
    assert f"95 %: {low:.3f} to {high:.3f}; equal ones would show" in text
    assert found["codes sampled, of 40 in train and of K = 64"] == str(evaluation["codes_sampled"])
    assert found["dead mass"] == "1.3e-5"
    assert found["FID ↓"] == "–"
    assert "Not measured on the test split: fid (fewer than 2048 images)." in text
    assert text.index("NLL, nats per token") < text.index("Validation NLL rises") < text.index("<figure")


def test_never_learned_is_counted_again_from_the_codes(text):
    assert re.fullmatch(r"1 of \d+", cards(text)["codes never learned"])
    assert "codes-test.parquet gives" not in text


def test_an_evaluation_that_disagrees_with_its_codes_is_told(tmp_path):
    run = write_light_run(tmp_path / "run")
    run.write_json(run.evaluation("test"), run.read_json(run.evaluation("test")) | {"unlearned_codes": 9})
    assert "evaluation-test.json says 9, codes-test.parquet gives 1" in write_report(run.path).read_text()


def test_a_dead_code_that_is_sampled_is_a_problem_on_the_page(text):
    expected = f"1 of the 24 codes that never occur in training were sampled, 7 times .*: {SMALL.dead[0]}\\."
    assert re.search(r"<strong>problem</strong> " + expected, text[: text.index("<h2>Findings")])
    assert re.search(r"<strong>problem</strong> " + expected, text[text.index("<h2>Codes (test split)") :])


def test_a_model_that_samples_no_dead_code_has_no_such_problem(tmp_path):
    run = write_light_run(tmp_path / "run", replace(SMALL, alive=64))
    text = write_report(run.path).read_text()
    assert "<strong>problem</strong>" not in text
    assert "Every code occurs in training" in text


def test_the_tables_name_the_planted_codes(full):
    gaps = pd.read_csv(full.report / "tables" / "test-gaps.csv")
    worst = pd.read_csv(full.report / "tables" / "test-worst-learned.csv")
    assert SMALL.gap in gaps["code"].iloc[:2].tolist()
    assert worst["code"].iloc[0] == SMALL.unlearned


def test_every_link_of_the_page_leads_somewhere(full, text):
    for target in re.findall(r'href="([^"]+)"', text):
        assert f'id="{target[1:]}"' in text if target.startswith("#") else (full.report / target).is_file()


def test_a_run_just_begun_says_what_is_missing(bare):
    text = write_report(bare.path).read_text()
    for line in (
        "just begun: nothing logged yet of 100 steps",
        "The test split was not evaluated",
        "No loss yet",
        "No validation figures yet",
        "No samples yet",
        "No completions yet",
        "No codes yet",
        "No trace of the tokens yet",
        "No numbers yet",
    ):
        assert line in text
    assert "<img" not in text


def test_a_run_before_its_evaluation_shows_its_training(tmp_path):
    run = write_token_run(tmp_path / "run", T=4)
    for path in (run.evaluation("test"), run.codes("test"), run.positions("test"), run.done):
        path.unlink()
    shutil.rmtree(run.samples)
    text = write_report(run.path).read_text()
    assert "No codes yet" in text
    assert "targets that the trace saw" in text


def test_a_run_without_findings_has_no_section_for_them(tmp_path):
    run = write_light_run(tmp_path / "run")
    run.findings.unlink()
    assert "Findings" not in write_report(run.path).read_text()


@pytest.mark.parametrize("steps", [1, 3])
def test_a_single_look_at_the_validation_split_is_a_table(tmp_path, steps):
    run = write_light_run(tmp_path / "run")
    rows: list[dict] = [{"step": step, "loss/nll": 5.0, "optimizer/lr": 1e-3} for step in range(1, steps + 1)]
    look = {"step": steps, "validation/nll": 4.5, "validation/top1": 0.25, "validation/images": 128}
    run.metrics.write_text("".join(json.dumps(row) + "\n" for row in [*rows, look]))
    text = write_report(run.path).read_text()
    assert f"Validation over 128 images at step {steps}" in text
    laid = pd.read_csv(run.report / "tables" / "validation.csv").to_numpy().tolist()
    assert laid == [["nll", 4.5, "nats per token"], ["top1", 0.25, "share of the tokens"]]
    assert (run.report / "figures" / "learning.png").exists() == (steps > 1)
    assert ("Training over one batch at step 1" in text) == (steps == 1)
    assert ("1 look at the validation split (128 images each)" in text) == (steps > 1)


def test_the_newest_samples_are_shown(tmp_path):
    run = write_light_run(tmp_path / "run")
    write_pictures(run, 20)
    (run.samples / "samples-0000999.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    shutil.copy(run.samples / "samples-0000020.png", run.samples / "samples-0000500.png")
    assert "Samples of the transformer at step 500" in write_report(run.path).read_text()


def test_samples_that_were_drawn_after_the_run_are_shown_where_it_left_none(tmp_path):
    run = write_light_run(tmp_path / "run")
    write_pictures(run, 20)
    (run.samples / "samples-0000020.png").rename(run.samples / "samples-0000020-seed0-guidance-2.0.png")
    assert "Samples of the transformer at step 20" in write_report(run.path).read_text()


def test_of_several_splits_test_comes_first(tmp_path):
    run = write_light_run(tmp_path / "run")
    write_evaluation(run, SMALL, 20, split="a-split", nll=99.0)
    run.positions("a-split").unlink()
    text = write_report(run.path).read_text()
    assert text.index("<h2>Codes (test split)") < text.index("<h2>Codes (a-split split)")
    assert cards(text)["NLL, nats per token"] != "99.000"


def test_an_evaluation_without_samples_says_so(tmp_path):
    run = write_light_run(tmp_path / "run", replace(SMALL, samples=0))
    run.write_json(run.evaluation("test"), run.read_json(run.evaluation("test")) | {"total_variation": None})
    text = write_report(run.path).read_text()
    assert "Nothing was sampled" in text
    assert cards(text)["total variation, data against samples"] == "–"
    assert not (run.report / "tables" / "test-gaps.csv").exists()


def test_a_broken_file_hides_nothing_else(tmp_path):
    run = write_token_run(tmp_path / "run", T=2)
    for path in (run.positions("test"), next((run.trace / "tokens").iterdir())):
        path.write_text("no parquet")
    text = write_report(run.path).read_text()
    assert "The maps over the grid are not shown: cannot read" in text
    assert re.search(r"Not shown: cannot read .*part-", text)
    run.codes("test").write_text("no parquet")
    text = write_report(run.path).read_text()
    assert "The codes of the test split are not shown: cannot read" in text
    assert "NLL, nats per token" in text


def test_the_report_can_be_written_again(tmp_path):
    run = write_light_run(tmp_path / "run")
    first = write_report(run.path).read_text()
    assert write_report(run.path).read_text() == first


def test_a_single_position_and_a_single_code_can_be_drawn(tmp_path):
    run = RunDirectory(tmp_path / "run")
    write_token_config(run, SMALL, 10)
    frame = {"code": [0, 1], "train": [9, 0], "data": [4, 0], "sampled": [4, 0], "nll": np.float32([0.0, np.nan])}
    pd.DataFrame(frame).to_parquet(run.codes("test"))
    at = {"row": [0], "column": [0], "code": [0], "data": [4], "sampled": [4], "nll": np.float32([0.0])}
    pd.DataFrame(at).to_parquet(run.positions("test"))
    run.evaluation("test").write_text(json.dumps({"split": "test", "step": 1}))
    text = write_report(run.path).read_text()
    assert "1 × 1 positions" in text
    assert cards(text)["codes never learned"] == "1 of 1"


def test_the_page_keeps_white_and_the_colour_of_a_lone_mark(tmp_path):
    figure = Figure(figsize=(8, 4))
    noise = np.random.default_rng(0).random((300, 300))
    for axes, colours in zip(figure.subplots(1, 2), ("viridis", "RdBu_r"), strict=True):
        axes.imshow(noise, cmap=colours)
    figure.axes[0].plot(100, 100, marker="o", markersize=2, color="#ff00ff")
    (picture,) = hang([Panel("mark", "Mark", "", figure)], tmp_path)
    with Image.open(BytesIO(base64.b64decode(picture.source.partition(",")[2]))) as embedded:
        pixels = np.asarray(embedded.convert("RGB"), int)
    assert np.abs(pixels - [255, 0, 255]).max(-1).min() < 24
    assert (pixels[0, 0] == 255).all()


@pytest.mark.slow
def test_a_large_codebook_is_drawn_in_little_memory(tmp_path):
    world = World(K=16_384, alive=15_000, grid=(16, 16), images=2000, samples=2000)
    run = write_token_run(tmp_path / "run", world, T=300)
    code = (
        "import resource; from pathlib import Path; from vqtool.reports import write_report;"
        f"write_report(Path({str(run.path)!r}));"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert float(done.stdout) < 2

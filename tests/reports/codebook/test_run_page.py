import json
import shutil
from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic import write_metrics, write_run, write_trace

from vqtool.diagnostics.run import RunDirectory
from vqtool.reports import write_report

LOOK = {"validation/l1": 0.25, "validation/codes_used_split": 40.0, "validation/images": 160}


@pytest.fixture
def run(tmp_path) -> RunDirectory:
    """A finished run without a trace, findings or losses, quick to report on."""
    made = write_run(tmp_path / "run", T=2)
    shutil.rmtree(made.trace)
    made.findings.unlink()
    return made


def log(run: RunDirectory, *rows: dict[str, Any]) -> None:
    run.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))


def drawn(run: RunDirectory) -> set[str]:
    return {path.stem for path in (run.report / "figures").glob("*.png")}


def laid(run: RunDirectory, name: str) -> list[list[object]]:
    return pd.read_csv(run.report / "tables" / f"{name}.csv").to_numpy().tolist()


@pytest.mark.parametrize("diagnosed", [True, False])
def test_a_run_without_findings_has_no_section_for_them(run, diagnosed):
    if diagnosed:
        run.findings.write_text("")
    text = write_report(run.path).read_text()
    assert "Findings" not in text
    assert "diagnosed" not in text


def test_how_each_of_several_codebooks_stands_is_told_in_its_section(run):
    write_trace(run.trace / "first", np.full((20, 16), 8))
    write_trace(run.trace / "second", np.full((20, 16), 8) * (np.arange(16) < 4))
    (run.trace / "third").mkdir()
    (run.trace / "third" / "part-0000000001.parquet").write_text("no parquet")
    text = write_report(run.path).read_text()
    first, second, third = (text.index(f"<h2>Codebook {name}") for name in ("first", "second", "third"))
    assert "codebook first used 16 of 16 codes over the last record" in text[first:second]
    assert "codebook second used 4 of 16 codes over the last 4 records" in text[second:third]
    assert "codebook third used" not in text
    assert [row[1] for row in laid(run, "codebooks")] == ["first", "second"]


def test_how_a_single_codebook_stands_is_told_in_short(run):
    write_trace(run.trace / "first", np.full((20, 16), 8))
    text = write_report(run.path).read_text()
    assert "codebook first used 16 of 16 codes over the last record" in text[: text.index("<h2>Training")]


def test_a_single_look_at_the_validation_split_is_a_table(run):
    log(run, {"step": 10, "loss/l1": 0.5}, {"step": 20, "loss/l1": 0.4}, {"step": 20, **LOOK})
    text = write_report(run.path).read_text()
    assert "losses" in drawn(run)
    assert "validation" not in drawn(run)
    assert "Validation over 160 images at step 20" in text
    assert laid(run, "validation") == [["l1", 0.25, "no unit"], ["codes used in the whole split", 40.0, "codes"]]


def test_codes_used_at_a_look_stand_beside_what_even_use_would_show(run):
    log(run, {"step": 20, **LOOK, "validation/codes_used_split_ceiling": 63.9})
    write_report(run.path)
    assert laid(run, "validation")[1:] == [["codes used in the whole split (even use: 64)", 40.0, "codes"]]


def test_two_looks_are_curves(run):
    log(run, {"step": 10, **LOOK}, {"step": 20, **LOOK})
    text = write_report(run.path).read_text()
    assert "validation" in drawn(run)
    assert "2 looks at the validation split, at 160 images of it each" in text
    assert not (run.report / "tables" / "validation.csv").exists()


def test_losses_that_were_logged_once_are_a_table(run):
    log(run, {"step": 5, "loss/l1": 0.5, "quantizer/commitment": 0.125}, {"step": 5, **LOOK})
    text = write_report(run.path).read_text()
    assert drawn(run) == {"reconstructions"}
    assert "Losses over one batch at step 5" in text
    assert laid(run, "losses") == [["loss/l1", 0.5, "no unit"], ["quantizer/commitment", 0.125, "no unit"]]


def test_what_was_logged_often_is_no_table(run):
    write_metrics(run, 100, 0)
    write_report(run.path)
    assert drawn(run) >= {"losses", "validation"}
    assert {path.stem for path in (run.report / "tables").iterdir()} == {"final-numbers"}


def test_one_record_is_told_in_numbers_and_drawn_where_no_time_is(run):
    write_trace(run.trace / "quantize", np.full((1, 16), 8))
    text = write_report(run.path).read_text()
    assert "codebook quantize used 16 of 16 codes over the last record (10 steps, 128 tokens)" in text
    names = {name.removeprefix("quantize-") for name in drawn(run) if name.startswith("quantize-")}
    assert names == {"rank-frequency", "norm-histogram", "norm-against-hits"}


def test_a_run_of_before_is_shown_with_what_it_has(run):
    """Runs of older versions have no samples, no environment, no seconds and fewer figures in their evaluation."""
    shutil.rmtree(run.samples)
    run.environment.unlink()
    run.write_json(run.done, {})
    run.write_json(run.evaluation("test"), {"split": "test", "psnr": 20.0})
    log(run, {"step": 10, "loss/l1": 0.5})
    text = write_report(run.path).read_text()
    assert "20.00 dB" in text
    assert "No reconstructions yet" in text


def test_an_evaluation_says_usage_of_its_ceiling_and_what_is_true_beyond_the_sample(run):
    figures = {"codebook_size": 64, "tokens": 64, "codes_used_split": 32, "perplexity_split": 21.3}
    older = run.read_json(run.evaluation("test")) | figures
    run.write_json(run.evaluation("test"), older)
    text = write_report(run.path).read_text()
    assert "50.0 % of a 63.5 % ceiling" in text
    assert "32 of 64 codes used" in text
    assert "coverage" not in text
    newer = {"coverage_split": 0.75, "perplexity_corrected_split": 30.0, "codes_in_use_low_split": 40}
    ends = {"perplexity_low_split": 25.0, "perplexity_high_split": 64.0, "usage": "a sentence"}
    run.write_json(run.evaluation("test"), older | newer | ends)
    text = write_report(run.path).read_text()
    assert "32 of 64 codes used; coverage 75.0 %; at least 40 in use (95 % over images)" in text
    assert "perplexity, in codes; 30.0 corrected for few tokens; 95 % over images: 25.0 to 64.0" in text
    assert "a sentence" not in text

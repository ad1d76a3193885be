import json
import math

import pandas as pd
import pytest
from synthetic import write_run

from vqtool.diagnostics.run import RunDirectory
from vqtool.reports import comparison, write_table
from vqtool.reports.page.facts import RunFacts
from vqtool.reports.page.run_sections import final_numbers
from vqtool.reports.page.tables import for_people, latex, markdown, plus_minus, spreads


def evaluate(run: RunDirectory, **figures):
    run.write_json(run.evaluation("test"), run.read_json(run.evaluation("test")) | figures)


@pytest.fixture
def runs(tmp_path):
    """Two seeds of one quantizer and one of another, with known PSNR."""
    made = [
        write_run(tmp_path / f"{spec}-{seed}", spec, seed) for spec, seed in (("ema_1", 0), ("ema_1", 1), ("gumbel", 0))
    ]
    for run, psnr in zip(made, (20.0, 22.0, 30.0), strict=True):
        evaluate(run, psnr=psnr)
    return made


def test_the_comparison_has_mean_and_sample_sd_over_seeds(runs):
    frame = comparison(runs).set_index("quantizer")
    assert frame.loc["ema_1", "n"] == 2
    assert frame.loc["ema_1", "psnr_mean"] == 21.0
    assert frame.loc["ema_1", "psnr_sd"] == pytest.approx(math.sqrt(2))
    assert frame.loc["gumbel", "psnr_mean"] == 30.0
    assert math.isnan(frame.loc["gumbel", "psnr_sd"])


def test_one_seed_has_no_plus_minus(runs):
    text, _ = for_people(comparison(runs))
    assert text["PSNR (dB) ↑"].tolist() == ["21.00 ± 1.41", "30.00"]
    assert text["Runs (n)"].tolist() == ["2", "1"]


def test_codes_used_are_named_after_the_whole_split(runs):
    text, _ = for_people(comparison(runs))
    assert "Codes used (whole test split)" in text
    assert "Perplexity (whole test split)" in text


def test_usage_is_told_of_its_ceiling_and_over_its_tokens(runs):
    evaluate(runs[0], codes_used_split=30, tokens=128)
    evaluate(runs[1], codes_used_split=32, tokens=128)
    frame = comparison(runs)
    text, notes = for_people(frame)
    # K = 64: even use would show 1 - (1 - 1/64)^128 = 86.7 % for 128 tokens and all for 4,096
    assert text["Usage (whole test split)"].tolist() == [
        "48.4 ± 2.2 % of a 86.7 % ceiling",
        "50.0 % of a 100.0 % ceiling",
    ]
    assert not any("ceiling" in column.lower() for column in text)
    assert "Usage and perplexity over the 128 tokens of the test split (ema_1)." in notes
    assert "Usage and perplexity over the 4,096 tokens of the test split (gumbel)." in notes
    assert frame["usage_ceiling_split_mean"].tolist() == pytest.approx([86.68, 100], abs=0.01)


def test_coverage_stands_with_the_tokens_where_every_run_has_it(runs):
    for run, coverage in zip(runs, (0.95, 0.9, 0.99), strict=True):
        evaluate(run, coverage_split=coverage)
    notes = for_people(comparison(runs))[1]
    assert "Usage and perplexity over the 4,096 tokens of the test split, coverage 90.0 % (ema_1)." in notes


def test_a_missing_metric_is_a_dash_with_its_reason_in_a_footnote(runs):
    text, notes = for_people(comparison(runs))
    assert text["rFID ↓"].tolist() == ["–", "–"]
    assert "rFID missing: fewer than 2048 images." in notes


def test_a_reason_that_is_not_true_of_all_names_its_quantizers(runs):
    evaluate(runs[2], missing={"rfid": "no weights"})
    _, notes = for_people(comparison(runs))
    assert "rFID missing: fewer than 2048 images (ema_1)." in notes
    assert "rFID missing: no weights (gumbel)." in notes


def test_counts_that_no_seed_changes_have_no_plus_minus(runs):
    text, _ = for_people(comparison(runs))
    assert text["Trainable parameters"].tolist() == ["1,000", "1,000"]
    assert text["Codes used (whole test split)"].tolist() == ["32", "32"]
    assert text["PSNR (dB) ↑"].tolist() == ["21.00 ± 1.41", "30.00"]


def test_a_count_that_a_seed_changes_keeps_its_plus_minus_in_every_row(runs):
    evaluate(runs[0], codes_used_split=30)
    runs.append(write_run(runs[0].path.parent / "gumbel-1", "gumbel", 1))
    text, _ = for_people(comparison(runs))
    assert text["Codes used (whole test split)"].tolist() == ["31.0 ± 1.4", "32.0 ± 0.0"]
    assert text["L2 ↓"].tolist() == ["0.00400 ± 0.00000"] * 2


@pytest.mark.parametrize(
    ("means", "sds", "cells"),
    [
        ([5.0, 7.0], [0.0, math.nan], ["5", "7"]),
        ([5.0, math.nan], [0.0, math.nan], ["5", "–"]),
        ([5.0, 7.5], [0.0, 0.0], ["5 ± 0", "8 ± 0"]),
        ([5.0, 7.0], [0.0, 1.0], ["5 ± 0", "7 ± 1"]),
    ],
)
def test_only_a_column_of_equal_whole_numbers_is_without_plus_minus(means, sds, cells):
    assert spreads(means, sds, 0) == cells


def test_a_run_that_lacks_what_others_have_is_told(runs):
    runs[1].evaluation("test").unlink()
    frame = comparison(runs).set_index("quantizer")
    assert frame.loc["ema_1", "psnr_mean"] == 20.0
    assert "PSNR (dB) missing in 1 of 2 runs: test split not evaluated" in frame.loc["ema_1", "notes"]


def test_an_unfinished_run_has_no_device_hours(runs):
    runs[2].done.unlink()
    row = comparison(runs).set_index("quantizer").loc["gumbel"]
    assert math.isnan(row["device_hours_per_epoch_mean"])
    assert "Device-hours per epoch missing: run not finished" in row["notes"]


def test_codebooks_of_different_size_are_not_averaged(tmp_path):
    frame = comparison([write_run(tmp_path / "small", K=8), write_run(tmp_path / "large", K=16)])
    assert frame["quantizer"].tolist() == ["standard, K = 8", "standard, K = 16"]


def test_the_csv_keeps_every_digit_and_the_others_are_for_people(runs, tmp_path):
    paths = write_table(comparison(runs), tmp_path / "tables" / "comparison.v1")
    assert [path.name for path in paths] == ["comparison.v1.csv", "comparison.v1.md", "comparison.v1.tex"]
    frame = pd.read_csv(paths[0])
    assert frame["psnr_sd"][0] == pytest.approx(math.sqrt(2), rel=1e-12)
    assert "21.00 ± 1.41" in paths[1].read_text()
    tex = paths[2].read_text()
    assert r"ema\_1" in tex
    assert r"21.00 $\pm$ 1.41" in tex
    assert r"\toprule" in tex


def test_every_row_of_a_latex_table_has_as_many_cells_as_its_head():
    tex = latex(pd.DataFrame({"a&b": ["1 & 2", r"\x_{3}"], "c": ["50%", "$5 #1 ~^"]}))
    rows = [line for line in tex.splitlines() if line.endswith(r"\\")]
    assert [row.replace(r"\&", "").count("&") for row in rows] == [1, 1, 1]
    assert r"\textbackslash{}x\_\{3\}" in tex
    assert r"\$5 \#1 \textasciitilde{}\textasciicircum{}" in tex


def test_a_bar_in_a_name_does_not_break_a_markdown_table():
    assert markdown(pd.DataFrame({"name": ["a|b\nc"]})).splitlines()[2] == r"| a\|b c |"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((math.nan,), "–"),
        ((483.0, math.nan, 1), "483"),
        ((483.5, 2.04, 1), "483.5 ± 2.0"),
        ((0.0123456,), "0.0123"),
        ((1234.5, 0.4), "1,234 ± 0"),
        ((math.inf, math.nan, 2), "inf"),
        ((0.0,), "0"),
    ],
)
def test_numbers_are_rounded_for_people(arguments, text):
    assert plus_minus(*arguments) == text


def test_final_numbers_say_over_what_they_were_measured(tmp_path):
    frame = final_numbers(RunFacts(write_run(tmp_path / "run"))).set_index("quantity")
    assert frame.loc["psnr", "value"] == 24.5
    assert frame.loc["psnr", "measured"] == "whole test split, 64 images, step 100"
    assert frame.loc["validation/l1", "measured"] == "one look at the validation split, step 200"
    assert frame.loc["loss/l1", "measured"] == "one logged step, step 200"


def test_a_begun_run_has_no_numbers(tmp_path):
    run = write_run(tmp_path / "run")
    for path in (run.metrics, run.done, run.evaluation("test")):
        path.unlink()
    assert final_numbers(RunFacts(run)).empty


def test_findings_come_by_severity_and_a_cut_line_is_left_out(tmp_path):
    run = write_run(tmp_path / "run")
    lines = [json.dumps({"severity": severity}) for severity in ("info", "problem", "warning")]
    run.findings.write_text("\n".join([*lines, '{"severity": "prob']))
    assert [finding["severity"] for finding in RunFacts(run).findings()] == ["problem", "warning", "info"]

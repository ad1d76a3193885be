import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from synthetic import write_run
from synthetic_tokens import SMALL, write_light_run, write_token_config

from vqtool.diagnostics.run import RunDirectory, find_runs
from vqtool.reports import comparison, write_report
from vqtool.reports.comparison.transformer_table import group_by_settings, table_for_people, transformer_table
from vqtool.reports.page.facts import RunFacts


def evaluate(run: RunDirectory, **figures: float) -> None:
    run.write_json(run.evaluation("test"), run.read_json(run.evaluation("test")) | figures)


def links(page: Path) -> list[str]:
    return [target for target in re.findall(r'href="([^"#]+)"', page.read_text()) if target.endswith("index.html")]


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> Path:
    """What training both stages leaves: one run of each, reported."""
    folder = tmp_path_factory.mktemp("both") / "out"
    write_run(folder / "first-stage", "ema", T=4)
    evaluate(write_light_run(folder / "transformer"), nll=3.25)
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """Two first stages and three transformers, two of which differ by their seeds only."""
    folder = tmp_path_factory.mktemp("many") / "study"
    for spec in ("ema", "standard"):
        write_run(folder / spec, spec, T=4)
    for name, seed, nll, train in (("t0", 0, 3.0, {}), ("t1", 1, 4.0, {}), ("long", 0, 2.5, {"accumulate": 2})):
        run = write_light_run(folder / name, replace(SMALL, seed=seed))
        config = yaml.safe_load(run.config.read_text())
        config["train"] |= train
        run.config.write_text(yaml.safe_dump(config))
        evaluate(run, nll=nll)
    write_report(folder)
    return folder


def facts(folder: Path) -> list[RunFacts]:
    return [fact for fact in map(RunFacts, find_runs(folder)) if fact.is_transformer]


def test_the_page_of_both_stages_leads_to_the_page_of_each(both):
    page = both / "report" / "index.html"
    assert sorted(links(page)) == ["../first-stage/report/index.html", "../transformer/report/index.html"]
    for target in links(page):
        assert (page.parent / target).is_file()
    assert "Codebook quantize" in (both / "first-stage" / "report" / "index.html").read_text()
    assert "Codes (test split)" in (both / "transformer" / "report" / "index.html").read_text()


def test_the_page_of_both_stages_has_the_key_numbers_of_both(both):
    text = (both / "report" / "index.html").read_text()
    assert "24.50 dB" in text
    assert "32 of 64" in text
    assert "<b>3.250</b>NLL, nats per token" in text


def test_transformers_get_a_table_and_one_figure_of_their_validation(many):
    names = {path.stem for path in (many / "report" / "figures").glob("*.png")}
    assert {"transformers-nll", "ablation-l1", "quantize-collapse-side-by-side"} <= names
    assert {path.stem for path in (many / "report" / "tables").iterdir()} == {"transformers", "comparison"}


def test_what_no_transformer_could_measure_is_said_once(many):
    text = (many / "report" / "index.html").read_text()
    assert text.count("Not measured on the test split: fid (fewer than 2048 images).") == 1
    assert text.count("no weights of the perceptual network") == 1


def test_several_first_stages_are_compared_without_the_transformers(many):
    text = (many / "report" / "index.html").read_text()
    assert "2 runs, 2 quantizers (ema: n = 1, standard: n = 1)" in text
    assert sorted(links(many / "report" / "index.html")) == [
        f"../{name}/report/index.html" for name in ("long", "t0", "t1")
    ]


def test_the_comparison_of_quantizers_leaves_transformers_out(many):
    assert comparison(find_runs(many))["quantizer"].tolist() == ["ema", "standard"]


def test_a_comparison_of_transformers_alone_is_empty(many):
    assert comparison([fact.run for fact in facts(many)]).empty


def test_runs_that_differ_by_their_seeds_only_are_one_row(many):
    groups = group_by_settings(facts(many), many)
    assert list(groups) == ["long", "t0 and 1 more"]
    frame = transformer_table(groups, many).set_index("run")
    assert frame.loc["t0 and 1 more", "n"] == 2
    assert frame.loc["t0 and 1 more", "nll_mean"] == 3.5
    assert frame.loc["t0 and 1 more", "nll_sd"] == pytest.approx(math.sqrt(0.5))
    assert math.isnan(frame.loc["long", "nll_sd"])


def test_the_table_has_an_interval_for_a_single_run_and_a_spread_for_several(many):
    text, notes = table_for_people(transformer_table(group_by_settings(facts(many), many), many))
    variation = dict(zip(text["Run"], text["Total variation ↓"], strict=True))
    assert re.fullmatch(r"0\.\d{3} \[0\.\d{3}, 0\.\d{3}\]", variation["long"])
    assert re.fullmatch(r"0\.\d{3} ± 0\.\d{3}", variation["t0 and 1 more"])
    assert dict(zip(text["Run"], text["NLL ↓"], strict=True))["t0 and 1 more"] == "3.500 ± 0.707"
    assert text["First stage"].tolist() == ["first-stage", "first-stage"]
    assert text["FID ↓"].tolist() == ["–", "–"]
    assert any("differ by their seeds (t0 and 1 more: t0, t1)" in note for note in notes)


def test_runs_of_the_same_name_are_told_apart_by_their_folders(tmp_path):
    for name in ("a", "b"):
        run = RunDirectory(tmp_path / name / "transformer")
        write_token_config(run, SMALL, 10, accumulate=1 + (name == "b"))
    groups = group_by_settings(facts(tmp_path), tmp_path)
    assert sorted(groups) == ["a/transformer", "b/transformer"]
    frame = transformer_table(groups, tmp_path)
    assert sorted(frame["first_stage"]) == ["a/first-stage", "b/first-stage"]


def test_transformers_that_have_just_begun_say_what_is_missing(tmp_path):
    for name in ("a", "b"):
        write_token_config(RunDirectory(tmp_path / name), replace(SMALL, K=8 if name == "a" else 16), 10)
    text = write_report(tmp_path).read_text()
    assert "no run has logged validation/nll" in text
    assert "The test split was not evaluated: a, b." in text


def test_a_single_transformer_below_a_folder_gets_the_page_of_that_run(tmp_path):
    write_token_config(RunDirectory(tmp_path / "run"), SMALL, 10)
    assert "<h1>Run run</h1>" in write_report(tmp_path).read_text()


def test_older_runs_without_a_stage_are_first_stages(tmp_path):
    run = write_run(tmp_path / "run", T=2)
    assert "stage" not in yaml.safe_load(run.config.read_text())
    assert not RunFacts(run).is_transformer

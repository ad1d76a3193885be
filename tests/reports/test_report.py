import re
from html.parser import HTMLParser

import numpy as np
import pytest
import yaml

from vqtool.diagnostics.errors import InputError
from vqtool.diagnostics.run import RunDirectory
from vqtool.reports import write_report

from .conftest import FINDING, write_findings, write_trace

HOSTILE = "<script>alert('$x$ & $y$')</script>"


class Loads(HTMLParser):
    """Collects what a browser would fetch by itself, and the scripts."""

    def __init__(self):
        super().__init__()
        self.sources, self.scripts = [], 0

    def handle_starttag(self, tag, attrs):
        self.scripts += tag == "script"
        names = ("src", "srcset", "data", "poster") + (("href",) if tag in ("link", "image", "use") else ())
        self.sources += [value for name, value in attrs if name in names]


def rename(run: RunDirectory, spec: str) -> None:
    config = yaml.safe_load(run.config.read_text())
    config["quantizer"]["spec"] = spec
    run.config.write_text(yaml.safe_dump(config))


def test_a_run_becomes_a_page_with_figures_and_tables(make_run):
    run = make_run()
    page = write_report(run.path)
    assert page == run.report / "index.html"
    names = {path.stem for path in (run.report / "figures").glob("*.png")}
    assert names >= {"losses", "validation", "reconstructions", "quantize-usage", "quantize-collapse"}
    assert names == {path.stem for path in (run.report / "figures").glob("*.svg")}
    assert {path.name for path in (run.report / "tables").iterdir()} == {
        f"final-numbers.{ending}" for ending in ("csv", "md", "tex")
    }
    text = page.read_text()
    assert "32 of 64" in text
    assert "whole test split" in text
    assert text.count("data:image/png;base64,") == len(names)


def test_the_page_needs_no_network_and_no_script(make_run):
    parser = Loads()
    text = write_report(make_run().path).read_text()
    parser.feed(text)
    assert parser.sources
    assert all(source.startswith("data:image/png;base64,") for source in parser.sources)
    assert parser.scripts == 0
    assert not re.search(r"@import|url\(", text)


def test_every_link_of_the_page_leads_somewhere(make_run):
    page = write_report(make_run().path)
    text = page.read_text()
    for target in re.findall(r'href="([^"]+)"', text):
        assert f'id="{target[1:]}"' in text if target.startswith("#") else (page.parent / target).is_file()


def test_a_hostile_name_is_shown_as_text(make_run):
    run = make_run("run")
    rename(run, HOSTILE)
    write_findings(run, [{**FINDING, "statement": HOSTILE, "severity": HOSTILE}])
    text = write_report(run.path).read_text()
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_a_hostile_name_can_be_drawn_in_a_comparison(make_run, tmp_path):
    rename(make_run("runs/a"), HOSTILE)
    make_run("runs/b")
    assert "<script" not in write_report(tmp_path / "runs").read_text()


def test_a_run_just_begun_says_what_is_missing(make_run, tmp_path):
    run = RunDirectory(tmp_path / "begun")
    run.path.mkdir()
    run.config.write_text("quantizer: {spec: ema, codebook_size: 8}\ntrain: {steps: 100}\n")
    text = write_report(run.path).read_text()
    for line in (
        "just begun",
        "No losses yet",
        "No codebook trace yet",
        "not evaluated",
        "not diagnosed",
        "No numbers",
    ):
        assert line in text
    assert "<img" not in text


def test_an_interrupted_run_says_how_far_it_came(make_run):
    run = make_run()
    run.done.unlink()
    run.metrics.write_text(run.metrics.read_text() + '{"step": 9')
    assert "interrupted or still running: step 200 of 200" in write_report(run.path).read_text()


def test_every_codebook_has_its_own_section_and_a_broken_one_hides_no_other(make_run):
    run = make_run()
    write_trace(run.trace / "second", np.ones((4, 16), np.int64), ema=True)
    (run.trace / "third").mkdir()
    (run.trace / "third" / "part-0000000001.parquet").write_text("no parquet")
    text = write_report(run.path).read_text()
    assert "Codebook quantize" in text
    assert (run.report / "figures" / "second-collapse.png").is_file()
    assert "Not shown: cannot read" in text


def test_the_caption_says_which_gradient_is_shown(make_run):
    assert "(grad_norm, window of 10 steps)" in write_report(make_run("a").path).read_text()
    assert "(pull_norm, window of 10 steps)" in write_report(make_run("b", "ema").path).read_text()


def test_resets_are_shown_where_there_are_any(make_run):
    with_resets, without = make_run("a", "ema+reset"), make_run("b", "ema")
    write_report(with_resets.path)
    write_report(without.path)
    assert (with_resets.report / "figures" / "quantize-resets.png").is_file()
    assert not (without.report / "figures" / "quantize-resets.png").exists()


def test_a_sample_cut_short_gives_way_to_the_one_before(make_run):
    run = make_run()
    (run.samples / "reconstructions-999.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    assert "The same images at step 200" in write_report(run.path).read_text()


@pytest.fixture
def ablation(make_run, tmp_path):
    """Two seeds of one quantizer and one of another."""
    for name, spec, seed in (("a0", "standard", 0), ("a1", "standard", 1), ("b0", "ema+reset", 0)):
        make_run(f"runs/{name}", spec, seed)
    return tmp_path / "runs"


def test_several_runs_become_a_comparison(ablation):
    page = write_report(ablation)
    names = {path.stem for path in (ablation / "report" / "figures").glob("*.png")}
    assert names == {
        "ablation-l1",
        "quantize-codes-used-window",
        "quantize-perplexity-window",
        "quantize-collapse-side-by-side",
    }
    assert (ablation / "report" / "tables" / "comparison.csv").is_file()
    text = page.read_text()
    assert "One seed only, so no band: ema+reset." in text
    assert "Besides quantizer and seed" not in text


def test_a_comparison_links_to_the_reports_of_its_runs(ablation):
    write_report(ablation / "a0")
    text = write_report(ablation).read_text()
    assert text.count("../a0/report/index.html") == 1
    assert text.count("It has no report of its own yet") == 2


def test_a_comparison_tells_what_else_differs(ablation):
    config = yaml.safe_load((ablation / "b0" / "config.yaml").read_text())
    config["train"]["batch_size"] = 99
    (ablation / "b0" / "config.yaml").write_text(yaml.safe_dump(config))
    assert "differ in: train.batch_size." in write_report(ablation).read_text()


def test_a_comparison_of_begun_runs_says_what_is_missing(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text("quantizer: {spec: ema}\n")
    text = write_report(tmp_path).read_text()
    assert "No codebook trace yet in any run" in text
    assert "test split not evaluated" in text


def test_a_report_can_be_written_again(make_run):
    run = make_run()
    first = write_report(run.path).read_text()
    assert write_report(run.path).read_text() == first


def test_progress_names_the_run_and_its_codebooks(make_run):
    told = []
    write_report(make_run().path, told.append)
    assert "run: codebook quantize" in told


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(InputError, match="no runs in"):
        write_report(tmp_path)


@pytest.mark.parametrize("text", ["quantizer: [", "just text", ""])
def test_a_config_that_is_no_config_is_named(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InputError, match=r"cannot read .*config\.yaml"):
        write_report(tmp_path)

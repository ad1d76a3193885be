import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml
from synthetic import FINDING, write_findings, write_run, write_trace

from vqtool.diagnostics.errors import InputError
from vqtool.diagnostics.run import RunDirectory
from vqtool.reports import write_report

HOSTILE = "<script>alert('$x$ & $y$')</script>"


class Loads(HTMLParser):
    """Collects what a browser would fetch by itself, and counts the scripts."""

    def __init__(self):
        super().__init__()
        self.sources, self.scripts = [], 0

    def handle_starttag(self, tag, attrs):
        self.scripts += tag == "script"
        names = ("src", "srcset", "data", "poster") + (("href",) if tag in ("link", "image", "use") else ())
        self.sources += [value for name, value in attrs if name in names]


def configure(run: Path, section: str, key: str, value: object) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    config[section][key] = value
    (run / "config.yaml").write_text(yaml.safe_dump(config))


@pytest.fixture
def run(tmp_path) -> RunDirectory:
    """A finished run without a trace, quick to report on."""
    made = write_run(tmp_path / "run")
    shutil.rmtree(made.trace)
    return made


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> RunDirectory:
    """A reported run with a plain codebook, one that is EMA with resets, a broken one, and hostile names."""
    made = write_run(tmp_path_factory.mktemp("full") / "run")
    write_trace(made.trace / "second", np.eye(16, dtype=np.int64), ema=True, reset=True)
    (made.trace / "third").mkdir()
    (made.trace / "third" / "part-0000000001.parquet").write_text("no parquet")
    configure(made.path, "quantizer", "spec", HOSTILE)
    write_findings(made, [{**FINDING, "statement": HOSTILE, "severity": HOSTILE}])
    write_report(made.path)
    return made


@pytest.fixture(scope="module")
def text(full) -> str:
    return (full.report / "index.html").read_text()


def test_a_run_becomes_a_page_with_figures_and_tables(full, text):
    names = {path.stem for path in (full.report / "figures").glob("*.png")}
    assert names >= {"losses", "validation", "reconstructions", "quantize-usage", "quantize-collapse"}
    assert names == {path.stem for path in (full.report / "figures").glob("*.svg")}
    tables = {path.name for path in (full.report / "tables").iterdir()}
    written = ("codebooks", "final-numbers", "quantize-lives")
    assert tables == {f"{name}.{ending}" for name in written for ending in ("csv", "md", "tex")}
    assert text.count("data:image/png;base64,") == len(names)


def test_the_page_opens_with_the_verdict(text):
    assert text.index("32 of 64") < text.index("whole test split") < text.index("24.50 dB") < text.index("<figure")


def test_the_page_needs_no_network_and_no_script(text):
    parser = Loads()
    parser.feed(text)
    assert parser.sources
    assert all(source.startswith("data:image/png;base64,") for source in parser.sources)
    assert parser.scripts == 0
    assert not re.search(r"@import|url\(", text)


def test_every_link_of_the_page_leads_somewhere(full, text):
    targets = re.findall(r'href="([^"]+)"', text)
    assert targets
    for target in targets:
        assert f'id="{target[1:]}"' in text if target.startswith("#") else (full.report / target).is_file()


def test_a_hostile_name_is_shown_as_text(text):
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 3


def test_every_codebook_has_its_own_section_and_a_broken_one_hides_no_other(full, text):
    assert "Codebook quantize" in text
    assert (full.report / "figures" / "second-collapse.png").is_file()
    assert "Not shown: cannot read" in text


def test_the_caption_says_which_gradient_is_shown(text):
    plain, second = text.index("<h2>Codebook quantize"), text.index("<h2>Codebook second")
    assert "(grad_norm, window of 10 steps)" in text[plain:second]
    assert "(pull_norm, window of 10 steps)" in text[second:]


def test_resets_are_shown_where_there_are_any(full):
    assert (full.report / "figures" / "second-resets.png").is_file()
    assert not (full.report / "figures" / "quantize-resets.png").exists()


def test_a_run_just_begun_says_what_is_missing(tmp_path):
    (tmp_path / "config.yaml").write_text("quantizer: {spec: ema, codebook_size: 8}\ntrain: {steps: 100}\n")
    text = write_report(tmp_path).read_text()
    for line in (
        "just begun",
        "No losses yet",
        "No codebook trace yet",
        "not evaluated",
        "No numbers",
    ):
        assert line in text
    assert "<img" not in text


def test_an_interrupted_run_says_how_far_it_came(run):
    run.done.unlink()
    run.metrics.write_text('{"step": 70, "loss/l1": 0.5}\n{"step": 80')
    assert "interrupted or still running: step 70 of 200" in write_report(run.path).read_text()


def test_a_sample_cut_short_gives_way_to_the_one_before(run):
    (run.samples / "reconstructions-999.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    assert "The same images at step 200" in write_report(run.path).read_text()


def test_a_report_can_be_written_again(run):
    told = []
    page = write_report(run.path, told.append)
    assert page == run.report / "index.html"
    assert told[0].startswith("run: ")
    first = page.read_text()
    assert write_report(run.path).read_text() == first


@pytest.fixture(scope="module")
def ablation(tmp_path_factory) -> Path:
    """A reported comparison: two seeds of one quantizer, one of another with a hostile name; one run has a report."""
    folder = tmp_path_factory.mktemp("ablation")
    for name, spec, seed in (("a0", "standard", 0), ("a1", "standard", 1), ("b0", HOSTILE, 0)):
        write_run(folder / name, spec, seed)
    configure(folder / "b0", "train", "batch_size", 99)
    (folder / "a0" / "report").mkdir()
    (folder / "a0" / "report" / "index.html").write_text("")
    write_report(folder)
    return folder


def test_several_runs_become_a_comparison(ablation):
    names = {path.stem for path in (ablation / "report" / "figures").glob("*.png")}
    usage = {"quantize-codes-used-window", "quantize-perplexity-window"}
    lives = {"quantize-collapse-side-by-side", "quantize-survival-side-by-side"}
    assert names == {"ablation-l1", "reconstructions"} | lives | usage
    assert (ablation / "report" / "tables" / "comparison.csv").is_file()


def test_a_comparison_says_which_quantizer_has_one_seed_only(ablation):
    text = (ablation / "report" / "index.html").read_text()
    assert "One seed only, so no band: &lt;script&gt;" in text
    assert "<script" not in text


def test_a_comparison_links_to_the_reports_of_its_runs(ablation):
    text = (ablation / "report" / "index.html").read_text()
    assert text.count('href="../a0/report/index.html"') == 1
    assert text.count("It has no report of its own yet") == 2


def test_a_comparison_tells_what_else_differs(ablation):
    assert "differ in: train.batch_size." in (ablation / "report" / "index.html").read_text()


def test_a_comparison_of_begun_runs_says_what_is_missing(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text("quantizer: {spec: ema}\n")
    text = write_report(tmp_path).read_text()
    assert "No codebook trace yet in any run" in text
    assert "test split not evaluated" in text


def test_a_comparison_of_runs_that_have_not_recorded_yet_says_so(tmp_path):
    for name, spec in (("a", "standard"), ("b", "ema")):
        run = write_run(tmp_path / name, spec, 0)
        shutil.rmtree(run.trace)
        (run.trace / "quantize").mkdir(parents=True)
    text = write_report(tmp_path).read_text()
    assert text.count("is left out: no codebook trace") == 2


def test_a_folder_with_a_single_run_below_gets_the_page_of_that_run(run):
    page = write_report(run.path.parent)
    assert page == run.path.parent / "report" / "index.html"
    assert "<h1>Run run</h1>" in page.read_text()


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(InputError, match="no runs in"):
        write_report(tmp_path)


@pytest.mark.parametrize("text", ["quantizer: [", "just text", ""])
def test_a_config_that_is_no_config_is_named(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InputError, match=r"config .*config\.yaml (is not YAML|should hold keys)"):
        write_report(tmp_path)

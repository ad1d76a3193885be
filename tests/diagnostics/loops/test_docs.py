"""The scripts beside docs/loops.md run, and leave the records that it tells of."""

import re
import runpy
from pathlib import Path

import pytest

import vqtool
from vqtool.diagnostics import CodebookTrace

DOCS = Path(str(vqtool.__file__)).parent / "docs"
SCRIPTS = {path.name: path for path in sorted((DOCS / "loops").glob("*.py"))}
PAGE = (DOCS / "loops.md").read_text(encoding="utf-8")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def run(name, *arguments, **options):
    runpy.run_path(str(SCRIPTS[name]))["main"](*arguments, **options)


def records(folder):
    """The tokens of each record by its step."""
    trace = CodebookTrace.load(folder / "trace" / "quantize")
    return dict(zip(trace.steps.tolist(), trace.hits.sum(1).tolist(), strict=True))


EVERY_TEN_STEPS = dict.fromkeys(range(10, 60, 10), 10 * 32 * 16)


@pytest.mark.parametrize("name", [name for name in SCRIPTS if not name.startswith("log_")])
def test_a_script_leaves_a_record_of_every_ten_steps(tmp_path, name):
    run(name, str(tmp_path / "run"))
    assert records(tmp_path / "run") == EVERY_TEN_STEPS


def test_what_is_logged_goes_with_the_trace(tmp_path):
    logged = []
    run("log_to_wandb_or_mlflow.py", tmp_path, lambda values, step: logged.append((step, values)))
    assert records(tmp_path) == EVERY_TEN_STEPS
    name = "codebook/quantize/tokens_window"
    assert {step: values[name] for step, values in logged if name in values} == EVERY_TEN_STEPS
    assert "boundary/quantize/ratio" in {name for _, values in logged for name in values}


@pytest.mark.parametrize("name", ["accelerate_loop.py", "transformers_trainer.py"])
def test_a_script_that_is_run_again_with_resume_goes_on_with_its_trace(tmp_path, name):
    for resume in (False, True):
        run(name, str(tmp_path), resume=resume)
        assert records(tmp_path) == EVERY_TEN_STEPS


def test_a_lightning_script_goes_on_from_its_checkpoint(tmp_path):
    run("lightning_automatic.py", str(tmp_path))
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    run("lightning_automatic.py", str(tmp_path), checkpoint)
    assert records(tmp_path) == EVERY_TEN_STEPS


def test_scripts_are_short_and_the_page_names_each_and_quotes_them_word_for_word():
    lines = {line for path in SCRIPTS.values() for line in path.read_text(encoding="utf-8").splitlines()}
    for name, path in SCRIPTS.items():
        assert f"loops/{name}" in PAGE
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 50
    sections = PAGE.split("\n## ")[1:]
    quoted = [
        line
        for section in sections
        for block in re.findall(r"```python\n(.*?)```", section, re.S)
        for line in block.splitlines()
    ]
    assert len(quoted) >= 12
    assert not [line for line in quoted if line not in lines]

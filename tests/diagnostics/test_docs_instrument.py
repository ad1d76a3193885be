"""The scripts beside docs/instrument.md run, and print what the page says that they print."""

import ast
import re
import runpy
import sys
from pathlib import Path

import pytest
from quoted import assert_printed

import vqtool
from vqtool import diagnostics
from vqtool.diagnostics.recording.rows import TABLES

DOCS = Path(str(vqtool.__file__)).parent / "docs"
SCRIPTS = {path.name: path for path in sorted((DOCS / "instrument").glob("*.py"))}
PAGE = (DOCS / "instrument.md").read_text(encoding="utf-8")
PRINTED = dict(re.findall(r"```text\n\$ python docs/instrument/(\S+\.py)[^\n]*\n(.*?)```", PAGE, re.S))
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.S)
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture
def no_broken_torchaudio(monkeypatch):
    """transformers imports torchaudio where it is installed; one built for another CUDA than torch's raises."""
    try:
        import torchaudio  # noqa: F401
    except (ImportError, OSError, RuntimeError):
        monkeypatch.setitem(sys.modules, "torchaudio", None)


SLOW = {"diffusers_vqmodel.py", "transformers_dac.py"}  # they import large libraries


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in SCRIPTS])
@pytest.mark.usefixtures("no_broken_torchaudio")
def test_a_script_prints_what_the_page_quotes(tmp_path, capsys, name):
    runpy.run_path(str(SCRIPTS[name]))["main"](str(tmp_path / "run"))
    assert_printed(capsys.readouterr().out.splitlines(), PRINTED[name].splitlines())


def test_scripts_are_short_and_the_page_quotes_each():
    assert PRINTED.keys() == SCRIPTS.keys()
    for name, path in SCRIPTS.items():
        assert f"](instrument/{name})" in PAGE
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 60


def test_what_the_page_imports_is_there():
    for block in BLOCKS:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module == "vqtool.diagnostics":
                assert all(hasattr(diagnostics, alias.name) for alias in node.names)


@pytest.mark.parametrize(
    ("table", "heading"), [("boundary", "## The boundary"), ("geometry", "## Movement, latents and geometry")]
)
def test_every_column_that_the_page_explains_is_one_of_its_table(table, heading):
    section = PAGE.partition(heading)[2].partition("\n## ")[0]
    cells = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", section, re.M)
    named = [column for cell in cells for column in re.findall(r"`(\w+)`", cell)]
    assert len(named) >= 7
    assert not set(named) - TABLES[table].columns().keys()
